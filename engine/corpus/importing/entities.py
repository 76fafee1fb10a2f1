"""Read the entities of a corpus: those that are there keep their ids, new ones follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from engine.corpus.readers.base import CorpusReader, Entity, RefusedRecord, Sentence
from engine.corpus.readers.entity_tables import UniqueNames
from engine.corpus.text import fault_of_name, fault_of_text
from engine.refusals import Code, Refusal
from engine.text.spelling import SpellingTable, clean_name, nfc, skeleton, tell_apart
from engine.vocabulary import MAX_NAME_LENGTH


class EntityTable:
    """The entities of a corpus that is being made; the id of one is its place.

    Args:
        known: that are there already, in the order of their ids.
        listed: whether a table named them, so that a name that is not among them is a mistake.
        update: let what is read of a known entity take the place of its details.
        max_characters: of a description.
        refuse: takes what cannot be used.
    """

    def __init__(
        self,
        known: Sequence[Entity],
        listed: bool,
        update: bool,
        max_characters: int,
        refuse: Callable[[RefusedRecord], None],
    ) -> None:
        self._update, self._max_characters, self._refuse = update, max_characters, refuse
        self.listed = listed
        self.entities: list[Entity] = []
        self.details_known = 0
        """Known entities of which other details were read, which were not taken."""
        self._ids: SpellingTable[int] = SpellingTable()
        self._known = len(known)
        self._met: set[int] = set()
        self.withdrawn: set[int] = set()
        """Ids of known entities that the source lists as removed: their sentences go, too."""
        for one in known:
            self._add(one)

    @property
    def new(self) -> int:
        """How many entities were not there before."""
        return len(self.entities) - self._known

    def find_named(self, name: str) -> int | None:
        """Return the id of the entity that a sentence names, which is then not missing in the source.

        It has the name or one that looks alike. Of an entity that was removed, None.
        """
        found = self._ids.find(name)
        if found is None or self.entities[found].removed:
            return None
        self._met.add(found)
        return found

    def remove_missing(self) -> None:
        """Let the known entities that the source does not name count as removed: their ids alone stay."""
        for entity_id in set(range(self._known)) - self._met:
            self._remove(entity_id)

    def _remove(self, entity_id: int) -> None:
        one = self.entities[entity_id]
        self.entities[entity_id] = one._replace(aliases=[], description=None, attributes={}, removed=True)

    def read(self, reader: CorpusReader) -> None:
        """Read the entities that a source lists, or where none does the names of its sentences."""
        given, names = reader.entities(), UniqueNames()
        if given is None and self.listed:
            return
        self.listed |= given is not None
        for one in given if given is not None else _named_by_sentences(reader.sentences()):
            if isinstance(one, RefusedRecord):
                self._refuse(one)
                continue
            if fault := names.take(one):
                if self.listed:  # else each of its sentences is refused, with this reason
                    self._refuse(RefusedRecord(one.source, one.position, fault, one.given, "entity"))
                continue
            there = self._ids.find(one.name)
            if one.removed:
                self._withdraw(one)
            elif one.name in self._ids and there is not None:
                self._meet_known(there, one)
            elif self.listed or there is None:  # else its sentences go to one that looks alike
                self._add(self._checked(one))

    def _withdraw(self, one: Entity) -> None:
        """Remove an entity that the source lists as removed; what is not there, or no more, stays so."""
        there = self._ids.find(one.name)
        if there is not None and one.name in self._ids and not self.entities[there].removed:
            self._remove(there)
            self.withdrawn.add(there)

    def _add(self, one: Entity) -> None:
        self._ids.add(one.name, len(self.entities))
        self.entities.append(one)

    def _meet_known(self, entity_id: int, one: Entity) -> None:
        """Take what the source says of an entity that is there, or count that it says something else."""
        self._met.add(entity_id)
        before = self.entities[entity_id] = self.entities[entity_id]._replace(removed=False)
        said = self._checked(one._replace(name=before.name))
        after = before._replace(
            aliases=said.aliases or before.aliases,
            description=said.description or before.description,
            attributes=said.attributes or before.attributes,
        )
        if self._update:
            self.entities[entity_id] = after
        elif after != before:
            self.details_known += 1

    def _checked(self, one: Entity) -> Entity:
        """Return the entity without the details that cannot be used; they go to the quarantine."""
        description = nfc(one.description) if one.description else None
        if description and (fault := fault_of_text(description, self._max_characters)):
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

    def fault_of_unknown(self, name: str) -> Refusal:
        """Return why a name is refused that no entity has."""
        if fault := fault_of_name(name, MAX_NAME_LENGTH):
            return fault.about("entity name")
        if (removed := self._ids.find(name)) is not None and self.entities[removed].removed:
            return Refusal(
                Code.UNKNOWN_ENTITY, f"{name!r} was removed from this corpus; list it to bring it back"
            )
        listed = " (no line of the entity file)" if self.listed else ""
        alike = self._ids.alike(name) or self._twins.get(skeleton(name).casefold(), [])
        hint = f"; alike are {', '.join(tell_apart(name, alike[:3]))}" if alike else ""
        return Refusal(Code.UNKNOWN_ENTITY, f"{name!r} is no entity of this corpus{listed}{hint}")

    @cached_property
    def _twins(self) -> dict[str, list[str]]:
        """Names by what the eye sees of them, without case; made with the first name that is unknown."""
        found: dict[str, list[str]] = {}
        for one in self.entities:
            found.setdefault(skeleton(one.name).casefold(), []).append(one.name)
        return found


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
