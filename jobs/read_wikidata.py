"""Make a table of entities from a dump of Wikidata, for `seedset link` and `seedset import --entities`.

Runs on one core and streams: a full dump takes hours, and its labels some GB in the folder of temporary files
(``TMPDIR``). The result is a folder with ``entities.parquet``, and what is refused in ``_refused.jsonl``.
"""

from __future__ import annotations

import re
import time

from pydantic import Field

from cluster.commandline import command
from cluster.options import CommandSettings
from engine.corpus.readers.row_files import find_row_files
from engine.corpus.readers.source_files import shown
from engine.corpus.readers.wikidata import ENTITY_ID, INSTANCE_OF
from engine.errors import FormatError, UserError
from engine.storage.parts import MANIFEST, write_model
from engine.storage.store import Store
from jobs import console
from jobs.steps.wikidata_table import ENTITIES, REFUSED, DumpCounts, DumpSettings, DumpTable

EXAMPLES = """
  seedset read-wikidata --dump latest-all.json.bz2 --instance-of Q6256 --attribute P31=class \\
      --attribute P30=continent --output countries
  seedset link --entities countries --texts news/ --output linked

  seedset read-wikidata --dump dump.json.gz --language de --language en --with-page --attribute P31 \\
      --output s3://bucket/entities
"""

_LANGUAGE = re.compile(r"[a-z]{2,}(-[a-z0-9]+)*")


class ReadWikidataSettings(CommandSettings):
    """The settings of the command."""

    dump: str = Field(
        description="Dump of JSON, an entity a line: a file (.json, also compressed), folder, pattern or "
        "s3:// address."
    )
    output: str = Field(description="Write the table into this folder or s3:// prefix.")
    language: list[str] = Field(
        default=["en"],
        min_length=1,
        description="Language of labels, aliases and descriptions; repeat it for others that are taken where "
        "the first has none. Last come the labels that hold in every language.",
    )
    site: str = Field(
        default="",
        description="Site whose pages' titles are read, as enwiki.  [default: the Wikipedia of the first "
        "language]",
    )
    attribute: list[str] = Field(
        default=[],
        description="Take this property as an attribute, as P30=continent, or P30 by its own label; repeat "
        "it for more.",
    )
    instance_of: list[str] = Field(
        default=[],
        description=f"Take only entities of this class ({INSTANCE_OF}), as Q6256; repeat it for more.  "
        "[default: all items]",
    )
    with_page: bool = Field(default=False, description="Take only entities that have a page on the site.")
    strict: bool = Field(default=False, description="Fail if any line or detail is refused.")
    overwrite: bool = Field(default=False, description="Replace the table that is there.")


@command(EXAMPLES)
def main(settings: ReadWikidataSettings) -> None:
    """Make a table of entities of a Wikidata dump: names, aliases, descriptions, attributes.

    An entity's name is its label. Where several of the table have the same label it is the title of its
    page, or the label with the id behind it; the label is then an alias, as the title always is. Values of
    attributes are those of the best rank, entities by their labels.
    """
    started = time.monotonic()
    wanted = _wanted(settings)
    output = Store.open(settings.output)
    if (output / ENTITIES).exists() and not settings.overwrite:
        raise UserError(f"{output.uri}: has a table already; name another --output, or give --overwrite")
    files = find_row_files(settings.dump, "jsonl").files
    if inside := [one.file.uri for one in files if one.file.uri.startswith(f"{output.uri}/")]:
        raise UserError(
            f"--output {output.uri}: lies within --dump, which holds {inside[0]}; name another place"
        )
    (output / f"_{MANIFEST}").delete()
    console.say(f"dump: {shown(one.file.uri for one in files)}")
    with console.meter("entities") as meter:
        counts = DumpTable(output, wanted, meter.add).make(files)
    _say(output, counts, wanted, settings.strict)
    write_model(output / f"_{MANIFEST}", counts)
    console.result(
        entities=counts.entities,
        read=counts.read,
        refused=counts.refused,
        seconds=f"{time.monotonic() - started:.1f}",
        output=f"{output.uri}/{ENTITIES}",
    )


def _wanted(settings: ReadWikidataSettings) -> DumpSettings:
    """Return what is taken of a dump.

    Raises:
        UserError: an option is not of its form.
    """
    for language in settings.language:
        if _LANGUAGE.fullmatch(language) is None:
            raise UserError(f"--language {language}: write a code as Wikidata has it, such as en or zh-hans")
    attributes: dict[str, str] = {}
    for given in settings.attribute:
        of, equals, name = (piece.strip() for piece in given.partition("="))
        if ENTITY_ID.fullmatch(of) is None or of[0] != "P" or (equals and not name):
            raise UserError(f"--attribute {given}: write PROPERTY=NAME or PROPERTY, as P30=continent")
        if of in attributes:
            raise UserError(f"--attribute {given}: {of} is given a second time; leave one out")
        attributes[of] = name
    for given in settings.instance_of:
        if ENTITY_ID.fullmatch(given) is None or given[0] != "Q":
            raise UserError(f"--instance-of {given}: write the id of an item, as Q6256")
    return DumpSettings(
        languages=settings.language,
        site=settings.site or f"{settings.language[0].replace('-', '_')}wiki",
        attributes=attributes,
        classes=settings.instance_of,
        with_page=settings.with_page,
    )


def _say(output: Store, counts: DumpCounts, wanted: DumpSettings, strict: bool) -> None:
    """Say what was left out and refused.

    Raises:
        FormatError: anything was refused and nothing may be; nothing is left for the table.
    """
    where = f"{output.uri}/{REFUSED}"
    languages = " or ".join(wanted.languages)
    reasons = [
        f"{number} × {reason}"
        for number, reason in (
            (counts.other_class, f"no instance of {' or '.join(wanted.classes)}"),
            (counts.without_page, f"no page on {wanted.site}"),
            (counts.without_label, f"no label in {languages}"),
            (counts.repeated, "a second time the same id"),
            (counts.others, "neither item nor property"),
        )
        if number
    ]
    if reasons:
        console.say(f"left out: {'; '.join(reasons)}")
    if counts.renamed:
        console.say(f"{counts.renamed} entities have a label that others have too: named by title or id")
    if counts.values_without_label:
        named = f"{counts.values_without_label} of {counts.values} entities that attributes name"
        console.say(f"{named} have no label in {languages} here: written as their ids")
    refused = f"{counts.refused} lines or details were refused"
    if counts.refused:
        console.say(f"{refused}; see {where}")
    if strict and counts.refused:
        raise FormatError(f"{refused}, and --strict allows none; see {where}")
    if not counts.entities:
        why = "; ".join(reasons) or "a dump has an entity a line"
        raise FormatError(f"no entity is left of {counts.read} items in the dump: {why}; {refused}")


if __name__ == "__main__":
    main.run()
