"""Read the seeds of types: a JSON file of ``{type: [entity names]}``."""

from __future__ import annotations

import json
from collections.abc import Mapping

from engine.corpus.readers.json_stream import json_type
from engine.errors import FormatError, MissingFileError, UserError
from engine.query import MAX_SEEDS
from engine.repeated_keys import RepeatedKeyError, json_value
from engine.storage.store import Store
from engine.typing.labels import label_words
from engine.vocabulary import Vocabulary

FORM = '{"city": ["Oslo", "Rome"], "person": ["Ada Lovelace"]}'


def read_seeds(file: Store, vocabulary: Vocabulary) -> dict[str, tuple[int, ...]]:
    """Return the entity ids of each type's seeds, in the order of the file.

    Args:
        file: JSON, an object with a list of names (or aliases) for each type.
        vocabulary: of the entities that can be expanded.

    Raises:
        MissingFileError: there is no such file.
        FormatError: it is no such object.
        UnknownEntityError: a name that the vocabulary does not hold; names the closest.
        UserError: fewer than two types; a type without a seed, or with more than a query takes; an entity
            that is named twice, under one type or two; types that are alike in words.
    """
    seeds: dict[str, tuple[int, ...]] = {}
    named: dict[int, tuple[str, str]] = {}
    for label, names in _named(file).items():
        place = f"{file.uri}: type {label!r}"
        if not names:
            raise UserError(f"{place}: no seed; name at least one entity, or leave the type out")
        if len(names) > MAX_SEEDS:
            raise UserError(f"{place}: {len(names)} seeds; an expansion takes at most {MAX_SEEDS}")
        seeds[label] = vocabulary.resolve_all(names, place)
        for entity, name in zip(seeds[label], names, strict=True):
            if entity in named:
                first, other = named[entity]
                where = "twice" if first == label else f"under {first!r}, too"
                spelt = f" (as {other!r})" if other != name else ""
                raise UserError(f"{place}: {name!r} is named {where}{spelt}; name each entity once")
            named[entity] = label, name
    if len(seeds) < 2:
        raise UserError(
            f"{file.uri}: {len(seeds)} types; give two or more, which are told apart, such as {FORM}"
        )
    try:
        label_words(list(seeds))
    except UserError as error:
        raise UserError(f"{file.uri}: {error}") from None
    return seeds


def _named(file: Store) -> Mapping[str, list[str]]:
    content = file.read_if_there()
    if content is None:
        raise MissingFileError(f"{file.uri}: no such file of seeds")
    try:
        given = json_value(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RepeatedKeyError, RecursionError) as error:
        raise FormatError(f"{file.uri}: not valid JSON ({error})") from None
    if not isinstance(given, dict):
        raise FormatError(
            f"{file.uri}: must be an object with a list of names for each type, such as {FORM}, not "
            f"{json_type(given)}"
        )
    for label, names in given.items():
        if not isinstance(names, list):
            raise FormatError(
                f"{file.uri}: type {label!r}: must be a list of entity names, not {json_type(names)}"
            )
        for place, name in enumerate(names, 1):
            if not isinstance(name, str):
                raise FormatError(
                    f"{file.uri}: type {label!r}, seed {place}: must be a name, not {json_type(name)}"
                )
    return given
