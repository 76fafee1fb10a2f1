"""Import a corpus: check every record, find its mention, and publish the whole or nothing."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from engine.corpus.image_addresses import fault_of_address
from engine.corpus.importing.entities import EntityTable
from engine.corpus.importing.growth import BroughtMentions, EarlierCorpus
from engine.corpus.importing.images import ImageWriter, decode_image_bytes
from engine.corpus.importing.mentions import (
    HOWS,
    NO_SENTENCE,
    VERSION,
    MentionFinder,
    Rule,
    Span,
)
from engine.corpus.importing.seen import SeenKeys
from engine.corpus.importing.source import ImportSource, open_source
from engine.corpus.importing.writer import ENTITIES, MentionWriter, Quarantine, write_entities
from engine.corpus.readers.base import EXCERPT, CorpusReader, RefusedRecord, Sentence
from engine.corpus.schema import MANIFEST, CorpusManifest, Counts, SourceFile, corpus_digest
from engine.corpus.text import MAX_SENTENCE_CHARACTERS, fault_of_text
from engine.errors import FormatError, StorageError, UserError
from engine.refusals import Code, Refusal
from engine.storage.manifests import made_by_after
from engine.storage.store import Store, sha256_of
from engine.storage.workspace import Workspace
from engine.text.spelling import nfc
from engine.versions import OF_TABLES, versions_of

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
    append: bool = Field(
        default=False,
        description="Add to the corpus that is there: its entities keep their ids, sentences that it has are "
        "passed over.",
    )
    update: bool = Field(
        default=False,
        description="Add to it, and let the source's aliases, descriptions and attributes take the place of "
        "those that are there.",
    )
    remove_missing: bool = Field(
        default=False,
        description="With --update: the source is the whole corpus as it is now. Sentences that it lacks are "
        "removed, and entities: these keep their ids, and are no more answered.",
    )

    @property
    def adds(self) -> bool:
        """Whether the corpus that is there stays."""
        return self.append or self.update


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
        StorageError: nothing at the source; a corpus is there already; none is, to be added to.
        FormatError: the source is not in the format, a file of it is cut off or broken, files that belong to
            it would not be read, it holds no usable sentence, or, when strict, any refusal.
    """
    if settings.overwrite and settings.adds:
        raise UserError("--overwrite: replaces the corpus that --append and --update add to; leave one out")
    if settings.remove_missing and not settings.update:
        raise UserError("--remove-missing: goes with --update, which takes what the source has")
    if settings.remove_missing and settings.accept_broken_files:
        raise UserError(
            "--remove-missing: removes what cannot be read of a broken file; leave --accept-broken-files out"
        )
    seen = workspace.corpus_seen()
    if workspace.corpus.exists() and not (settings.overwrite or settings.adds):
        raise StorageError(
            f"{workspace.corpus.uri}: a corpus is there already, and what was made from it depends on it; "
            "add --append to add to it, --overwrite to replace it, or name another --workspace"
        )
    form, reader = open_source(source)
    earlier = EarlierCorpus.open(workspace) if settings.adds else None
    folder = workspace.corpus.staging()
    try:
        one = _Import(folder, settings, earlier)
        manifest = one.run(reader, form, source.address, progress)
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1))
        workspace.publish_corpus(folder, seen, one.kept)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return manifest


class _Import:
    """One import into a staging folder, on top of an earlier corpus if there is one."""

    def __init__(self, folder: Path, settings: ImportSettings, earlier: EarlierCorpus | None) -> None:
        self._folder, self._settings, self._earlier = folder, settings, earlier
        self._counts = Counts()
        self._rules = earlier.manifest.mention_rules if earlier else VERSION
        known, listed = (earlier.entities, earlier.manifest.listed) if earlier else ([], False)
        self._table = EntityTable(
            known, listed, settings.update, settings.max_sentence_characters, self._refuse
        )
        self._broken: list[RefusedRecord] = []
        self.kept: dict[str, str] = {}
        """Files of the earlier corpus that belong to this one and are not in its folder, and their sha256."""

    def run(self, reader: CorpusReader, form: str, source: str, progress: Progress) -> CorpusManifest:
        """Read everything, write everything but the manifest, and return it."""
        earlier = self._earlier
        if earlier:
            earlier.bring_refused(self._folder)
        with Quarantine(self._folder / "quarantine") as self._quarantine:
            self._table.read(reader)
            self._read_sentences(reader, progress)
            self._verdict(source, form)
        brought = self._bring_earlier()
        write_entities(self._folder / ENTITIES, self._table.entities)
        self.kept = brought.kept | (earlier.keep_unchanged(self._folder) if earlier else {})
        digests = self._digests()
        digest = corpus_digest(digests)
        files, reasons = [_source_file(f) for f in reader.files()], self._quarantine.reasons
        makers = earlier.manifest.made_by if earlier else ()
        return CorpusManifest(
            made_by=made_by_after(makers, versions_of(OF_TABLES)),
            format=form,
            source=source,
            files=earlier.with_files(files) if earlier else files,
            files_added=len(files),
            counts=earlier.with_counts(self._counts, brought) if earlier else self._counts,
            added=self._counts.model_copy(update={"entities": self._table.new}),
            found=earlier.with_found(self._found) if earlier else self._found,
            mention_rules=self._rules,
            reasons=dict((reasons + Counter(earlier.manifest.reasons if earlier else {})).most_common()),
            parts=brought.parts + self._mentions.parts,
            digest=digest,
            part_digests=[sha for name, sha in digests.items() if name.startswith("mentions/")],
            lineage=earlier.manifest.line if earlier else digest,
            listed=self._table.listed,
            unread=getattr(reader, "unread", []),
        )

    def _digests(self) -> dict[str, str]:
        """Return the sha256 of the entity table and the mentions parts, by their paths, sorted."""
        written = self._folder.rglob("*.parquet")
        digests = {path.relative_to(self._folder).as_posix(): sha256_of(path) for path in written}
        digests |= {name: digest for name, digest in self.kept.items() if name.endswith(".parquet")}
        return dict(sorted(digests.items()))

    def _bring_earlier(self) -> BroughtMentions:
        """Bring what stays of the earlier corpus, and count what the whole then has."""
        brought, table = BroughtMentions(), self._table
        if self._settings.remove_missing:
            table.remove_missing()
        if self._earlier and self._known:
            brought = self._earlier.bring(
                self._folder, self._known, self._settings.remove_missing, table.withdrawn
            )
        counts, removed = self._counts, sum(one.removed for one in table.entities)
        counts.entities, counts.entities_removed = len(table.entities), removed
        counts.details_known, counts.removed = table.details_known, brought.removed
        counts.entities_without_sentences = (
            counts.entities - removed - len(self._mentioned | brought.mentioned)
        )
        return brought

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

    def _read_sentences(self, reader: CorpusReader, progress: Progress) -> None:
        names, aliases = [e.name for e in self._table.entities], [e.aliases for e in self._table.entities]
        self._finder = MentionFinder(names, aliases, self._settings.mention_rule, self._rules)
        first = self._earlier.next_part if self._earlier else 0
        self._mentions = MentionWriter(self._folder / "mentions", first)
        self._image_writer = ImageWriter(self._folder / "images")
        self._found = dict.fromkeys(HOWS, 0)
        self._seen = SeenKeys()
        self._known = self._earlier.known() if self._earlier else None
        self._mentioned: set[int] = set()
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
            elif taken is None:
                self._counts.known += 1
            elif one.sentence:
                self._mentioned.add(taken)
        progress(read % _PROGRESS_EVERY)
        self._mentions.flush()
        self._counts.sentences_read = read
        self._counts.mentions = sum(self._mentions.parts)

    def _take(self, one: Sentence) -> int | Refusal | None:
        """Write the context's mention; return its entity, why it is refused, or None if it is known."""
        entity_id = self._table.find_named(one.entity)
        if entity_id is None:
            return self._table.fault_of_unknown(one.entity)
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
        marked = start if one.annotated else None
        if self._known and self._known.meet(entity_id, sentence, image, marked):
            return None
        if not self._seen.add(hash((entity_id, sentence, image, marked))):
            return _DUPLICATE
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
        nothing_needed = self._earlier and not self._settings.remove_missing
        if not (counts.mentions or counts.known or nothing_needed):
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
