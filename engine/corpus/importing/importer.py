"""Import a corpus: check every record, find its mention, and publish the whole or nothing."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from engine.corpus.image_addresses import fault_of_address
from engine.corpus.importing.images import ImageWriter, decode_image_bytes
from engine.corpus.importing.mentions import HOWS, NO_SENTENCE, MentionFinder, Rule, Span
from engine.corpus.importing.source import ImportSource, open_source
from engine.corpus.importing.writer import MentionWriter, Quarantine, write_entities
from engine.corpus.readers.base import EXCERPT, CorpusReader, Entity, RefusedRecord, Sentence
from engine.corpus.readers.entity_tables import UniqueNames
from engine.corpus.schema import MANIFEST, CorpusManifest, Counts, SourceFile, corpus_digest
from engine.corpus.text import MAX_SENTENCE_CHARACTERS, fault_of_name, fault_of_text
from engine.errors import FormatError, StorageError
from engine.refusals import Code, Refusal
from engine.storage.store import Store, sha256_of
from engine.storage.workspace import Workspace
from engine.text.spelling import SpellingTable, clean_name, nfc, skeleton, tell_apart
from engine.vocabulary import MAX_NAME_LENGTH

Progress = Callable[[int], None]
_PROGRESS_EVERY = 4096

_DUPLICATE = Refusal(Code.DUPLICATE_SENTENCE, "duplicate sentence")


class ImportSettings(BaseModel):
    """Limits of an import, and what it does with records that are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_sentence_characters: int = Field(
        default=MAX_SENTENCE_CHARACTERS, ge=1, description="Refuse sentences of more characters."
    )
    mention_rule: Rule = Field(
        default="best",
        description="Take the best of several places of the name in a sentence (same case, not inside "
        "a longer name), or the first in any case, as RetExpan's program does.",
    )
    strict: bool = Field(default=False, description="Publish nothing if any record is refused.")
    accept_broken_files: bool = Field(
        default=False, description="Publish what can be read of a file that is cut off or broken."
    )
    overwrite: bool = Field(default=False, description="Replace the corpus that is there.")


def import_corpus(
    workspace: Workspace,
    source: ImportSource,
    settings: ImportSettings,
    progress: Progress = lambda n: None,
) -> CorpusManifest:
    """Import ``source`` into the workspace and return its manifest.

    Args:
        workspace: where the corpus is published.
        source: what is imported.
        settings: limits, and what stops the import.
        progress: called with the number of sentences read, a few thousand at a time.

    Raises:
        StorageError: nothing at the source; a corpus is there already.
        FormatError: the source is not in the format, a file of it is cut off or broken, files that belong to
            it would not be read, it holds no usable sentence, or, when strict, any refusal.
    """
    if workspace.corpus.exists() and not settings.overwrite:
        raise StorageError(
            f"{workspace.corpus.uri}: a corpus is there already, and what was made from it depends on it; "
            "add --overwrite to replace it, or name another --workspace"
        )
    seen = workspace.corpus_seen()
    form, reader = open_source(source)
    folder = workspace.corpus.staging()
    try:
        manifest = _Import(folder, settings).run(reader, form, source.address, progress)
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1))
        workspace.publish_corpus(folder, seen)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return manifest


class _Import:
    """One import into a staging folder."""

    def __init__(self, folder: Path, settings: ImportSettings) -> None:
        self._folder, self._settings = folder, settings
        self._counts = Counts()
        self._entities: list[Entity] = []
        self._broken: list[RefusedRecord] = []
        self._ids: SpellingTable[int] = SpellingTable()

    def run(self, reader: CorpusReader, form: str, source: str, progress: Progress) -> CorpusManifest:
        """Read everything, write everything but the manifest, and return it."""
        with Quarantine(self._folder / "quarantine") as self._quarantine:
            self._read_entities(reader)
            self._read_sentences(reader, progress)
            self._verdict(source, form)
        write_entities(self._folder / "entities.parquet", self._entities)
        written = sorted(self._folder.rglob("*.parquet"))
        digests = {path.relative_to(self._folder).as_posix(): sha256_of(path) for path in written}
        return CorpusManifest(
            format=form,
            source=source,
            files=[_source_file(f) for f in reader.files()],
            counts=self._counts,
            found=self._found,
            reasons=dict(self._quarantine.reasons.most_common()),
            parts=self._mentions.parts,
            digest=corpus_digest(digests),
            part_digests=[sha for name, sha in digests.items() if name.startswith("mentions/")],
            unread=getattr(reader, "unread", []),
        )

    def _refuse(self, refused: RefusedRecord) -> None:
        counts, lost = self._counts, refused.counts_as
        if lost == "entity":
            counts.entities_refused += 1
        elif lost == "detail":
            counts.details_refused += 1
        elif lost == "file":
            counts.files_broken += 1
            self._broken.append(refused)
        elif refused.refusal.code is Code.DUPLICATE_SENTENCE:
            counts.duplicates += 1
        else:
            counts.refused += 1
        self._quarantine.add(refused)

    def _read_entities(self, reader: CorpusReader) -> None:
        given = reader.entities()
        self._listed = given is not None
        names = UniqueNames()
        for one in given if given is not None else _named_by_sentences(reader.sentences()):
            if isinstance(one, RefusedRecord):
                self._refuse(one)
                continue
            if fault := names.take(one):
                if self._listed:  # else each of its sentences is refused, with this reason
                    self._refuse(RefusedRecord(one.source, one.position, fault, one.given, "entity"))
                continue
            self._ids.add(one.name, len(self._entities))
            self._entities.append(self._checked(one))
        self._counts.entities = len(self._entities)

    def _checked(self, one: Entity) -> Entity:
        """Return the entity without the details that cannot be used; they go to the quarantine."""
        description = nfc(one.description) if one.description else None
        if description and (fault := fault_of_text(description, self._settings.max_sentence_characters)):
            self._refuse_detail(one, fault.about("description"), description)
            description = None
        aliases = []
        for alias in dict.fromkeys(one.aliases):
            if fault := fault_of_name(alias, MAX_NAME_LENGTH):
                self._refuse_detail(one, fault.about("alias"), alias)
            elif alias != one.name:
                aliases.append(alias)
        return one._replace(description=description, aliases=aliases, attributes=self._attributes(one))

    def _attributes(self, one: Entity) -> dict[str, list[str]]:
        """Return the attributes of an entity without names and values that cannot be used."""
        kept: dict[str, list[str]] = {}
        for name, values in _cleaned(one.attributes).items():
            if fault := fault_of_name(name, MAX_NAME_LENGTH):
                self._refuse_detail(one, fault.about("attributes: a name"), str({name: values}))
                continue
            faults = [fault_of_name(value, MAX_NAME_LENGTH) for value in values]
            for value, fault in zip(values, faults, strict=True):
                if fault:
                    self._refuse_detail(one, fault.about(f"attribute {name!r}: a value"), value)
            good = [value for value, fault in zip(values, faults, strict=True) if not fault]
            if good or not values:
                kept[name] = good
        return kept

    def _refuse_detail(self, one: Entity, refusal: Refusal, record: str) -> None:
        named = refusal.about(f"{one.name!r}:")
        self._refuse(RefusedRecord(one.source, one.position, named, record, "detail"))

    def _read_sentences(self, reader: CorpusReader, progress: Progress) -> None:
        names, aliases = [e.name for e in self._entities], [e.aliases for e in self._entities]
        self._finder = MentionFinder(names, aliases, self._settings.mention_rule)
        self._mentions = MentionWriter(self._folder / "mentions")
        self._image_writer = ImageWriter(self._folder / "images")
        self._found = dict.fromkeys(HOWS, 0)
        self._seen: set[int] = set()
        mentioned = bytearray(len(names))
        read = 0
        for one in reader.sentences():
            if isinstance(one, RefusedRecord):
                read += one.counts_as == "sentence"
                self._refuse(one)
                continue
            read += 1
            if read % _PROGRESS_EVERY == 0:
                progress(_PROGRESS_EVERY)
            taken = self._take(one)
            if isinstance(taken, Refusal):
                self._refuse(RefusedRecord(one.source, one.position, taken, one.sentence))
            elif one.sentence:
                mentioned[taken] = 1
        progress(read % _PROGRESS_EVERY)
        self._mentions.flush()
        self._counts.sentences_read = read
        self._counts.mentions = sum(self._mentions.parts)
        self._counts.entities_without_sentences = len(names) - sum(mentioned)

    def _take(self, one: Sentence) -> int | Refusal:
        """Write the context's mention and return its entity, or why it is refused."""
        entity_id = self._ids.find(one.entity)
        if entity_id is None:
            return self._fault_of_unknown(one.entity)
        only_image = not one.sentence and (one.image or one.image_bytes)
        found = ("", (0, 0, NO_SENTENCE)) if only_image else self._located(entity_id, one)
        if isinstance(found, Refusal):
            return found
        image = self._image(one)
        if isinstance(image, Refusal):
            if only_image:
                return image
            record = str((one.image or one.image_bytes or "")[:EXCERPT])
            self._refuse(RefusedRecord(one.source, one.position, image, record, "detail"))
            image = None
        sentence, (start, end, how) = found
        # What we find is the first place of several; what people marked may be every one.
        key = hash((entity_id, sentence, image, start if one.annotated else None))
        if key in self._seen:
            return _DUPLICATE
        self._seen.add(key)
        self._mentions.add(entity_id, sentence, start, end, image)
        self._found[how] += 1
        self._counts.images += image is not None
        return entity_id

    def _located(self, entity_id: int, one: Sentence) -> tuple[str, Span] | Refusal:
        """Return the sentence as it is stored and where its mention is, or why it is refused."""
        sentence, start, end = one.sentence, one.start, one.end
        if fault := fault_of_text(sentence, self._settings.max_sentence_characters):
            return fault
        if (composed := nfc(sentence)) != sentence:
            if start is not None and end is not None:
                start, end = _moved(sentence, start), _moved(sentence, end)
            sentence = composed
        if start is None or end is None:
            span = self._finder.find(entity_id, sentence)
        elif one.annotated:
            span = self._finder.narrow(entity_id, sentence, start, end)
        else:
            span = self._finder.check(entity_id, sentence, start, end)
        return span if isinstance(span, Refusal) else (sentence, span)

    def _image(self, one: Sentence) -> str | Refusal | None:
        """Return the address of the context's image, or why it is refused; bytes are written here."""
        if one.image_bytes:
            content = decode_image_bytes(one.image_bytes)
            return (
                content.about("image_bytes")
                if isinstance(content, Refusal)
                else self._image_writer.add(content)
            )
        if one.image and (fault := fault_of_address(one.image)):
            return fault.about("image")
        return one.image or None

    def _fault_of_unknown(self, name: str) -> Refusal:
        if fault := fault_of_name(name, MAX_NAME_LENGTH):
            return fault.about("entity name")
        listed = " (no line of the entity file)" if self._listed else ""
        alike = self._ids.alike(name) or self._twins.get(skeleton(name).casefold(), [])
        hint = f"; alike are {', '.join(tell_apart(name, alike[:3]))}" if alike else ""
        return Refusal(Code.UNKNOWN_ENTITY, f"{name!r} is no entity of this corpus{listed}{hint}")

    @cached_property
    def _twins(self) -> dict[str, list[str]]:
        """Names by what the eye sees of them, without case; made with the first name that is unknown."""
        found: dict[str, list[str]] = {}
        for one in self._entities:
            found.setdefault(skeleton(one.name).casefold(), []).append(one.name)
        return found

    def _verdict(self, source: str, form: str) -> None:
        counts = self._counts
        shown = "; ".join(f"{r['source']}, {r['position']}: {r['reason']}" for r in self._quarantine.first)
        if self._settings.strict and counts.quarantined:
            raise FormatError(
                f"{source}: {counts.quarantined} records cannot be used, and --strict allows none; "
                f"nothing was published. The first: {shown}"
            )
        if self._broken and not self._settings.accept_broken_files:
            raise FormatError(f"{source}: {_breaks(self._broken)}")
        if not counts.mentions:
            raise FormatError(
                f"{source}: no usable sentence in it as --format {form} ({counts.sentences_read} read, "
                f"{counts.entities} entities); nothing was published. "
                + (f"The first refusals: {shown}" if shown else "The files are empty.")
            )


def _breaks(broken: list[RefusedRecord]) -> str:
    """Return what is said of files that break off."""
    first, number = broken[0], len({refused.source for refused in broken})
    return (
        f"{number} of its files cannot be read whole; nothing was published. The first: {first.source}, "
        f"{first.position}: {first.refusal.detail.rstrip('.?')}. Copy or make the file again, or add "
        "--accept-broken-files to publish what can be read of it"
    )


def _named_by_sentences(sentences: Iterable[Sentence | RefusedRecord]) -> Iterable[Entity]:
    """Return the entities of the sentences in order of first appearance."""
    seen: SpellingTable[None] = SpellingTable()
    for one in sentences:
        if isinstance(one, Sentence) and one.entity not in seen and not seen.alike(one.entity):
            seen.add(one.entity, None)
            yield Entity(one.entity, [], None, {}, one.source, one.position)


def _cleaned(attributes: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return attributes with names and values as they are stored; those that become one are joined."""
    found: dict[str, dict[str, None]] = {}
    for name, values in attributes.items():
        found.setdefault(clean_name(name), {}).update(dict.fromkeys(map(clean_name, values)))
    return {name: list(values) for name, values in found.items()}


def _moved(sentence: str, place: int) -> int:
    """Return where an offset lies after normalisation; negative ones stay, to be refused."""
    return len(nfc(sentence[:place])) if 0 <= place <= len(sentence) else -1


def _source_file(file: Store) -> SourceFile:
    digest, size = hashlib.sha256(), 0
    with file.open_input() as stream:
        while block := stream.read(4 << 20):
            digest.update(block)
            size += len(block)
    return SourceFile(name=file.name, size=size, sha256=digest.hexdigest())
