"""Define what a reader yields: entities, sentences, and refused records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from engine.corpus.positions import Position
from engine.refusals import Code, Refusal, encodable
from engine.storage.store import Store

EXCERPT = 500
"""Characters of a refused record that the quarantine keeps."""


class Entity(NamedTuple):
    """An entity as its source has it; nothing is checked yet."""

    name: str
    aliases: list[str]
    description: str | None
    attributes: dict[str, list[str]]
    source: str
    position: Position
    written: str = ""
    """The name as its source has it, where that is not ``name``."""
    removed: bool = False
    """Whether it was removed from the corpus, where its id stays."""

    @property
    def given(self) -> str:
        """The name as its source has it."""
        return self.written or self.name


class Sentence(NamedTuple):
    """A context of an entity as its source has it: a sentence, an image, or both.

    ``sentence`` is "" where there is only an image; ``start`` and ``end`` count characters, None where not
    given; ``image`` is an address (:func:`engine.corpus.image_addresses.address_in`).
    """

    entity: str
    sentence: str
    start: int | None
    end: int | None
    image: str | None
    source: str
    position: Position
    annotated: bool = False
    """People marked the mention: it holds, also where it is spelt in another way."""
    image_bytes: bytes | str | None = None
    """The image itself in the place of an address; a text is base64."""


@dataclass(frozen=True, slots=True)
class RefusedRecord:
    """A record that is not imported: a line of the quarantine.

    ``of`` says what it counts as: an entity, a sentence, a detail (a description, attributes, an image) or
    the rest of a file.
    """

    source: str
    position: Position
    refusal: Refusal
    record: str = field(default="")
    of: Literal["entity", "sentence", "detail", "file"] = "sentence"

    @property
    def counts_as(self) -> Literal["entity", "sentence", "detail", "file"]:
        """What is lost: ``of``, or the rest of the file where the refusal says so."""
        return "file" if self.refusal.code in (Code.FILE_CUT_OFF, Code.FILE_BROKEN) else self.of

    def as_json(self) -> dict[str, str]:
        """Return the quarantine line: source, position, code, reason and the beginning of the record."""
        return {
            "source": encodable(self.source),
            "position": encodable(str(self.position)),
            "code": self.refusal.code.value,
            "reason": encodable(self.refusal.detail),
            "record": encodable(self.record[:EXCERPT]),
        }


class CorpusReader(Protocol):
    """A corpus in an outside format. Every iterator may be asked for again, and starts from the beginning.

    A reader may have a list ``unread``: files of records that lie beside those that are read, by their path
    from the source on.
    """

    def files(self) -> list[Store]:
        """Return the files that are read."""

    def entities(self) -> Iterator[Entity | RefusedRecord] | None:
        """Return the entities, or None where the format names none apart from the sentences."""

    def sentences(self) -> Iterator[Sentence | RefusedRecord]:
        """Return the sentences."""
