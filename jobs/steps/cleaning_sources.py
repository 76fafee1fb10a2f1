"""Plan which model input, features and lists a workspace can do without, and which parts of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from pydantic import ValidationError

from engine.corpus.blocks.format import BlockManifest
from engine.corpus.inputs.format import InputManifest
from engine.storage.parts import CURRENT, MANIFEST
from engine.storage.removal import Removal
from jobs.steps.description_view import DESCRIPTIONS, named_chunks
from jobs.steps.lexical_view import ANY_TERMS, ANY_WEIGHTS, TERMS, WEIGHTS, TermsManifest
from jobs.steps.mask_view import SUMS
from jobs.steps.survey import UNFINISHED, Survey
from jobs.steps.teacher import TAUGHT

ANYWHERE = ""
"""In place of the folder of parts of which it cannot be told: of manifests of another version."""
UNUSED = "no kept bundle, run or pointer names it"
UNNAMED = "no input that is kept names them"
LEXICAL = "the last lexical view was not made of them"

_SHARED = "parts-"
"""Begin of the names of folders with parts that several inputs share."""
_TOKENIZER, _LAST_OF_TOKENIZER = "tokenizer-", "tokenizer_config.json"
TYPES = "types-"
"""Begin of the names of folders with types of sentences, before the fingerprint of the typing model."""
_MADE = re.compile(r"(mask|lm)-.+")
_STATES = re.compile(rf"(?P<parts>{_SHARED}.+)-[0-9a-f]{{8}}-(bfloat16|float32|{SUMS})")
_PART = re.compile(r"part-(?P<name>[^.]+)\..+")


@dataclass
class _Parts:
    """Names of parts by the folder that they are in: those that inputs need that stay, and that go."""

    kept: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    dropped: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def note(self, stays: bool, folder: str, names: set[str]) -> None:
        """Note the parts of an input that stays or goes."""
        (self.kept if stays else self.dropped)[folder] |= names

    def needs(self, folder: str, name: str) -> bool:
        """Return whether a part stays."""
        return name in self.kept[folder] or name in self.kept[ANYWHERE]

    def goes(self, folder: str, name: str) -> bool:
        """Return whether a part goes with its input."""
        return name in self.dropped[folder] or name in self.dropped[ANYWHERE]


def input_removals(found: Survey, used: set[str]) -> Iterator[Removal]:
    """Yield model input, blocks and tokenizers that nothing names, then parts of none, then their states.

    Args:
        found: the workspace.
        used: paths of what stays.
    """
    parts = _Parts()
    shared = []
    for name in found.listing.children("inputs"):
        path = f"inputs/{name}"
        if name == CURRENT:
            continue
        if name.startswith(_SHARED):
            shared.append(name)
        elif found.listing.holds(f"{path}/{MANIFEST}"):
            yield from _input(found, path, path in used, parts)
        elif name.startswith(_TOKENIZER):
            yield from _tokenizer(found, path, path in used)
        elif not _MADE.fullmatch(name):
            found.unknown.append(path)
        elif found.given_up(path) and found.pointed("inputs") != name:
            yield Removal(path, "model input", UNFINISHED, (path,))
    for name in shared:
        yield from _unnamed_parts(found, name, parts)
    for name in found.listing.children("cache"):
        if match := _STATES.fullmatch(name):
            yield from _unneeded(
                found,
                f"cache/{name}",
                match["parts"],
                parts,
                "cached states",
                UNNAMED,
                at_once=True,
                beside=MANIFEST,
            )
        elif not name.startswith((TYPES, DESCRIPTIONS, TAUGHT, ANY_TERMS, ANY_WEIGHTS)):
            found.unknown.append(f"cache/{name}")


def _input(found: Survey, path: str, stays: bool, parts: _Parts) -> Iterator[Removal]:
    """Yield an input with a manifest if it goes, and note the names of its parts."""
    document = found.document(f"{path}/{MANIFEST}")
    manifest = _manifest(document)
    if manifest is None:
        found.unknown.append(path)
        listed = document.get("parts") if isinstance(document, dict) else None
        parts.note(True, ANYWHERE, set(map(str, listed)) if isinstance(listed, dict | list) else set())
        return
    # The parts of an earlier version's inputs lie where that version put them.
    earlier = isinstance(manifest, InputManifest) and not manifest.sources
    parts.note(stays, ANYWHERE if earlier else manifest.settings.parts_key(), set(manifest.parts))
    if not stays:
        yield Removal(path, "model input", UNUSED, (f"{path}/{MANIFEST}", path), f"inputs/{CURRENT}")


def _manifest(document: object) -> InputManifest | BlockManifest | None:
    with suppress(ValidationError):
        return InputManifest.model_validate(document)
    with suppress(ValidationError):
        return BlockManifest.model_validate(document)
    return None


def _tokenizer(found: Survey, path: str, stays: bool) -> Iterator[Removal]:
    if stays:
        return
    last = f"{path}/{_LAST_OF_TOKENIZER}"
    if found.listing.holds(last):
        yield Removal(path, "tokenizer", UNUSED, (last, path))
    elif found.given_up(path):
        yield Removal(path, "tokenizer", UNFINISHED, (path,))


def _unnamed_parts(found: Survey, folder: str, parts: _Parts) -> Iterator[Removal]:
    yield from _unneeded(found, f"inputs/{folder}", folder, parts, "input parts", UNNAMED, at_once=False)


def _unneeded(
    found: Survey,
    path: str,
    folder: str,
    parts: _Parts,
    kind: str,
    why: str,
    at_once: bool,
    beside: str | None = None,
) -> Iterator[Removal]:
    """Yield the parts in a folder that no input needs, as one removal.

    Those that no input ever named may be of one that is being made, or that goes on: they stay for a day, and
    are then counted among those that are needed.

    Args:
        found: the workspace.
        path: of the folder.
        folder: the name that its parts are needed under.
        parts: what is needed; those that stay are added.
        kind: of what goes.
        why: it goes.
        at_once: do not wait.
        beside: the name of a file that is no part, and goes with the last part.
    """
    files: dict[str, list[str]] = defaultdict(list)
    for entry in found.listing.below(path):
        name = entry.path[len(path) + 1 :]
        if match := _PART.fullmatch(name):
            files[match["name"]].append(entry.path)
        elif not name.startswith(".") and name != beside:
            found.unknown.append(entry.path)
    gone: list[str] = []
    count = 0
    for name, own in files.items():
        if parts.needs(folder, name):
            continue
        if at_once or parts.goes(folder, name) or all(found.given_up(file) for file in own):
            gone += own  # a part is there with all its files alone, in whatever order they go
            count += 1
        else:
            parts.kept[folder].add(name)
    if count:
        if beside and count == len(files) and found.listing.holds(f"{path}/{beside}"):
            gone.append(f"{path}/{beside}")
        reason = f"{count} of {len(files)}: {why}"
        yield Removal(path, kind, reason, tuple(gone))


def type_removals(found: Survey, fingerprints: set[str]) -> Iterator[Removal]:
    """Yield the types of sentences by typing models that no kept bundle was typed with.

    Args:
        found: the workspace.
        fingerprints: of the typing models of the bundles that are kept.
    """
    for name in found.listing.children("cache"):
        path = f"cache/{name}"
        if not name.startswith(TYPES) or name.removeprefix(TYPES) in fingerprints:
            continue
        if found.given_up(path):  # else a bundle of them may be under way
            yield Removal(path, "cached types", "no kept bundle was typed with their model", (path,))


def taught_removals(found: Survey) -> Iterator[Removal]:
    """Yield labels that teachers gave, after the time in which an unfinished training may go on."""
    for name in found.listing.children("cache"):
        path = f"cache/{name}"
        if name.startswith(TAUGHT) and found.given_up(path, found.unfinished_s):
            yield Removal(path, "cached labels", "not written to since; a training makes them again", (path,))


def description_removals(found: Survey, texts: list[str]) -> Iterator[Removal]:
    """Yield the vectors of descriptions that the corpus does not have any more.

    Args:
        found: the workspace.
        texts: the descriptions of all entities.
    """
    needed = {name for name, _ in named_chunks(texts)}
    for folder in found.listing.children("cache"):
        if folder.startswith(DESCRIPTIONS):
            parts = _Parts(kept=defaultdict(set, {folder: set(needed)}))
            path, kind = f"cache/{folder}", "cached descriptions"
            yield from _unneeded(found, path, folder, parts, kind, "the corpus has others", at_once=True)


def lexical_removals(found: Survey) -> Iterator[Removal]:
    """Yield counts of terms that the last lexical view was not made of, and weights of other views.

    They may be of a view that is being made: they stay for a day.
    """
    used = None
    with suppress(ValidationError):
        used = TermsManifest.model_validate(found.document(f"cache/{TERMS}/{MANIFEST}"))
    weights = None if used is None else f"{WEIGHTS}{used.weights}"
    for folder in found.listing.children("cache"):
        path = f"cache/{folder}"
        if folder == TERMS:
            parts, why = _Parts(kept=defaultdict(set, {folder: set(used.parts if used else ())})), LEXICAL
            yield from _unneeded(found, path, folder, parts, "cached terms", why, False, beside=MANIFEST)
        elif folder.startswith((ANY_TERMS, ANY_WEIGHTS)) and folder != weights and found.given_up(path):
            yield Removal(path, "cached terms", LEXICAL, (path,))


def feature_removals(found: Survey, used: set[str]) -> Iterator[Removal]:
    """Yield image features that nothing names."""
    yield from _folders(found, used, "images", "image features", found.unfinished_s)


def contrast_removals(found: Survey, used: set[str]) -> Iterator[Removal]:
    """Yield contrast lists that nothing names."""
    yield from _folders(found, used, "contrast", "contrast lists")


def _folders(
    found: Survey, used: set[str], folder: str, kind: str, after_s: float | None = None
) -> Iterator[Removal]:
    for path in (f"{folder}/{name}" for name in found.listing.children(folder) if name != CURRENT):
        if found.listing.holds(path):
            found.unknown.append(path)
        elif path in used:
            continue
        elif found.listing.holds(f"{path}/{MANIFEST}"):
            yield Removal(path, kind, UNUSED, (f"{path}/{MANIFEST}", path), f"{folder}/{CURRENT}")
        elif found.given_up(path, *(() if after_s is None else (after_s,))):
            yield Removal(path, kind, UNFINISHED, (path,), f"{folder}/{CURRENT}")
