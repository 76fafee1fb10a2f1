"""Link raw texts: find the entities of a table in them, and write a corpus for `seedset import`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, Field

from cluster.commandline import command
from cluster.options import CommandSettings
from engine.corpus.linking.languages import check_language
from engine.corpus.linking.rules import LinkRules
from engine.corpus.linking.titles import redirects_to
from engine.corpus.readers.base import Entity, RefusedRecord
from engine.corpus.readers.entity_tables import entities_of_files
from engine.corpus.readers.row_files import Form, RowFile, RowFiles, find_row_files, parse_columns
from engine.corpus.readers.source_files import shown
from engine.corpus.readers.tables import ENTITY_COLUMNS
from engine.corpus.readers.values import dumps, required_text
from engine.errors import FormatError
from engine.refusals import Refusal
from engine.storage.parts import MANIFEST, write_model
from engine.storage.store import Store
from jobs import console
from jobs.settings import DATA
from jobs.steps.link_drawing import DrawSettings, draw
from jobs.steps.link_report import LinkReport
from jobs.steps.linking import QUARANTINE, LinkSettings, LinkSource, lexicon_of, link_parts, write_quarantine
from jobs.workers.executor import AutoExecutor

EXAMPLES = """
  seedset link --entities products.csv --texts reviews/ --output linked
  seedset import --workspace work --source linked

  seedset link --entities s3://b/products.parquet --entity-columns name=title,aliases=also_called \\
      --texts 's3://b/reviews/part-*.parquet' --text-columns text=body,document=url --output s3://b/linked
  seedset link --entities names.txt --texts corpus.jsonl.gz --per-entity 50 --ambiguous nearest \\
      --output linked
  seedset link --entities countries/entities.parquet --texts pages.jsonl --markup wikitext \\
      --redirects redirects.csv --output linked
"""

TEXT_NAMES = ("text", "sentence", "body", "content", "document_text")
"""Names of columns that are taken for the text's where none is given, the first that is there."""

TEXT_COLUMNS = ("text", "document")

REDIRECT_COLUMNS = ("from", "to")

LOOKED_AT = 20
"""Files that are opened to see which columns there are."""

RULES = "What a mention is"
HEADINGS = {"reading": DATA, "reading.rules": RULES, "reading.markup": RULES, "drawing": "What is kept"}


class LinkCommandSettings(CommandSettings):
    """The settings of the command."""

    entities: str = Field(
        description="Table of entities: name, and if there are any aliases, description, attributes. A file, "
        "folder, pattern or s3:// address; JSON lines, Parquet, Arrow, CSV, TSV, or a name a line."
    )
    texts: list[str] = Field(
        description="Texts or sentences: a file, folder, pattern or s3:// address. Repeat it for more. Of a "
        "Hugging Face data set give the folder, or its name as hf://OWNER/NAME.",
        min_length=1,
    )
    output: str = Field(description="Write the linked corpus into this folder or s3:// prefix.")
    entity_columns: str = Field(
        default="", description="Columns of the table that have other names, as name=title,aliases=alt."
    )
    text_columns: str = Field(
        default="",
        description="Columns of the texts, as text=body,document=url.  [default: the first of "
        f"{', '.join(TEXT_NAMES)} that is there]",
    )
    text_format: Literal["auto", "jsonl", "parquet", "arrow", "csv", "tsv", "text"] = Field(
        default="auto", description="Read the texts in this form; auto: by the ending of each file."
    )
    redirects: str = Field(
        default="",
        description="With --markup: a table of redirects, the columns from and to being titles of pages.",
    )
    redirect_columns: str = Field(
        default="", description="Columns of the redirects that have other names, as from=title,to=target."
    )
    reading: LinkSettings = LinkSettings()
    drawing: DrawSettings = DrawSettings()
    strict: bool = Field(default=False, description="Fail if any row or sentence is refused.")
    workers: int | None = Field(
        default=None, ge=1, description="Run this many actors.  [default: the cluster's CPUs]"
    )

    def unused(self) -> Mapping[str, str]:
        """Return the options that concern only one of the two ways in which mentions are found."""
        if self.reading.markup == "none":
            return dict.fromkeys(("redirects", "redirect_columns"), "without --markup")
        return dict.fromkeys(("case", "unlisted_names", "compounds", "too_common"), "with --markup")


class LinkManifest(BaseModel):
    """The manifest of an output, written last: without it the output is unfinished."""

    entities: int
    texts: int
    sentences: int
    mentions: int
    drawn: int
    parts: list[int]
    files: list[str]
    settings: dict[str, object]


@command(EXAMPLES, headings=HEADINGS)
def main(settings: LinkCommandSettings) -> None:
    """Find the entities of a table in raw texts: every name and alias as a whole word, the longest first.

    What is written is read by `seedset import`. Parts of the texts that have not changed are
    not read again: a run that was stopped goes on, and with new files only these are linked. report.md says
    what was found, what never was and why, and which names are ambiguous or ordinary words. With --markup the
    links of the texts are the mentions: each that leads to a name or an alias of the table.
    """
    started = time.monotonic()
    if settings.reading.split and (about := check_language(settings.reading.language)):
        console.say(about)
    output = Store.open(settings.output)
    entities, refused = _entities(settings)
    texts = _texts(settings.texts, None if settings.text_format == "auto" else settings.text_format, output)
    columns = _text_columns(settings.text_columns, texts.files)
    redirects = _redirects(settings, entities, refused) if settings.redirects else {}
    console.say(_read_as(texts, columns))
    with AutoExecutor(settings.workers, [output.uri]) as executor:
        source = LinkSource(entities, texts.files, columns, redirects)
        found = link_parts(source, output, settings.reading, executor)
    console.say("drawing")
    by_links = settings.reading.markup != "none"
    drawn = draw(output, found, entities, settings.drawing, by_links)
    report = LinkReport(found, drawn, entities)
    lost = write_quarantine(output, found.summaries, refused)
    _write_report(output, report, settings)
    _say_lost(output, report, lost, settings.strict, by_links)
    manifest = LinkManifest(
        entities=len(entities),
        texts=report.total("texts"),
        sentences=report.total("sentences"),
        mentions=int(drawn.found.sum()),
        drawn=drawn.mentions,
        parts=drawn.parts,
        files=[one.file.uri for one in texts.files],
        settings=_rules(settings),
    )
    write_model(output / f"_{MANIFEST}", manifest)
    console.say(f"report: {output.uri}/report.md")
    console.result(
        never_found=report.never_found,
        **manifest.model_dump(include={"entities", "texts", "sentences", "mentions", "drawn"}),
        refused=lost,
        seconds=f"{time.monotonic() - started:.1f}",
    )


def _say_lost(output: Store, report: LinkReport, lost: int, strict: bool, by_links: bool) -> None:
    """Say what was refused.

    Raises:
        FormatError: anything was and nothing may be, or no entity was found at all.
    """
    for reason, number in report.reasons.items():
        console.say(f"  {number} × {reason}")
    where = f"{output.uri}/{QUARANTINE}"
    if lost:
        console.say(f"{lost} rows or sentences were refused; see {where}")
    if strict and lost:
        raise FormatError(f"{lost} rows or sentences were refused, and --strict allows none; see {where}")
    if report.drawn.mentions:
        return
    searched = f"stands in {report.total('sentences')} sentences"
    if by_links:
        searched = f"is what one of {report.links.number} links leads to"
    raise FormatError(f"none of {len(report.entities)} entities {searched}; see {output.uri}/report.md")


def _entities(settings: LinkCommandSettings) -> tuple[list[Entity], list[RefusedRecord]]:
    """Return the table, and what is refused of it.

    Raises:
        FormatError: it has no entity.
    """
    columns = parse_columns(settings.entity_columns, ENTITY_COLUMNS, "--entity-columns")
    files = find_row_files(settings.entities)
    entities, refused = entities_of_files(files.files, columns)
    if not entities:
        first = f"; the first of {len(refused)} refusals: {refused[0].refusal}" if refused else ""
        raise FormatError(f"--entities {settings.entities}: no entity in it{first}")
    return entities, refused


def _redirects(
    settings: LinkCommandSettings, entities: Sequence[Entity], refused: list[RefusedRecord]
) -> dict[str, list[int]]:
    """Return the redirects to entities; rows that cannot be used go to ``refused``.

    Raises:
        FormatError: none of them leads to an entity.
    """
    given = parse_columns(settings.redirect_columns, REDIRECT_COLUMNS, "--redirect-columns")
    named = {name: given.get(name, name) for name in REDIRECT_COLUMNS}

    def pairs() -> Iterator[tuple[str, str]]:
        for file in find_row_files(settings.redirects).files:
            there = file.columns()
            if there is not None and (missing := [name for name in named.values() if name not in there]):
                raise FormatError(
                    f"--redirects {file.file.uri}: no column {missing[0]} (found: {', '.join(there)}); give "
                    "--redirect-columns from=NAME,to=NAME"
                )
            for row, position, text in file.rows(named):
                texts = [row] if isinstance(row, Refusal) else [required_text(row[n], n) for n in named]
                if fault := next((one for one in texts if isinstance(one, Refusal)), None):
                    refused.append(RefusedRecord(file.name, position, fault, text or dumps(row), "detail"))
                else:
                    title, target = map(str, texts)
                    yield title, target

    found = redirects_to(pairs(), lexicon_of(entities))
    if not found:
        raise FormatError(f"--redirects {settings.redirects}: none leads to an entity of --entities")
    console.say(f"redirects: {len(found)} lead to entities")
    return found


def _texts(addresses: Sequence[str], form: Form | None, output: Store) -> RowFiles:
    """Return the files of the texts, each once.

    Raises:
        FormatError: what is written would be read as texts the next time.
    """
    found = [find_row_files(address, form) for address in addresses]
    files = {one.file.uri: one for some in found for one in some.files}
    if inside := [uri for uri in files if uri.startswith(f"{output.uri}/")]:
        raise FormatError(
            f"--output {output.uri}: lies within --texts, which hold {inside[0]}; name another place"
        )
    return RowFiles(list(files.values()), [name for some in found for name in some.unread])


def _text_columns(given: str, files: Sequence[RowFile]) -> dict[str, str]:
    """Return the columns that are read of the texts, by ours: as given, or by their names in the first files.

    Raises:
        FormatError: none is named like a text's, or one that was given is not there.
    """
    found = parse_columns(given, TEXT_COLUMNS, "--text-columns")
    there = list(dict.fromkeys(name for one in files[:LOOKED_AT] for name in one.columns() or ()))
    listed = f"(found: {', '.join(there) or 'none'})"
    if lacking := [name for name in found.values() if name not in there]:
        raise FormatError(f"--text-columns {given}: {files[0].file.uri} has no column {lacking[0]} {listed}")
    if "text" not in found:
        name = next((name for name in TEXT_NAMES if name in there), None)
        if name is None:
            raise FormatError(
                f"{files[0].file.uri}: no column is named {' or '.join(TEXT_NAMES)} {listed}; give "
                "--text-columns text=NAME"
            )
        found = {"text": name, **found}
    return {name: found[name] for name in TEXT_COLUMNS if name in found}


def _read_as(texts: RowFiles, columns: dict[str, str]) -> str:
    forms = {one.form for one in texts.files}
    said = f"texts: {len(texts.files)} files of {' and '.join(sorted(forms))}, the text in {columns['text']}"
    return said + (f"; not read: {shown(texts.unread)}" if texts.unread else "")


def _write_report(output: Store, report: LinkReport, settings: LinkCommandSettings) -> None:
    (output / "report.md").write_bytes(report.markdown(_rules(settings)).encode())
    with (output / "report.csv").writing() as path:
        report.write_csv(path)


def _rules(settings: LinkCommandSettings) -> dict[str, object]:
    """Return the settings that decide what is found and kept."""
    rules: LinkRules = settings.reading.rules
    reading = settings.reading.model_dump(exclude={"rules"})
    return {**rules.model_dump(), **reading, **settings.drawing.model_dump()}


if __name__ == "__main__":
    main.run()
