"""Read JSON and YAML that a person wrote, and refuse a key that is given twice.

Both formats let the later of two equal keys win without a word: a second ``tokens:`` would drop the first
one's callers, a second ``positive`` half of a question.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # at run time where a file is read: most help texts do without
    import yaml

TEXT, NULL, MERGE = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "null", "merge"))

SHOWN = 80
"""Characters shown of a key: it may be as long as the document."""

NESTED = (dict, list)
"""Values that hold keys, or others that do."""


class RepeatedKeyError(ValueError):
    """A key that a document gives twice; ``line`` counts from 1, 0 where it is not known."""

    def __init__(self, key: str, line: int = 0) -> None:
        self.key, self.line = key, line
        place = f"line {line}: " if line else ""
        super().__init__(f"{place}{key[:SHOWN]} is given a second time; of two equal keys leave one")


class RepeatedKeys(dict[str, Any]):
    """A JSON object with a key that is given twice: ``repeated``."""

    repeated: str


def json_value(text: str | bytes, **options: Any) -> Any:
    """Return what a JSON document holds; ``options`` are those of :func:`json.loads`.

    Raises:
        RepeatedKeyError: an object gives a key twice.
        ValueError: it is not JSON.
    """
    return json.loads(text, object_pairs_hook=_without_repeats, **options)


def json_records(text: str | bytes, **options: Any) -> Any:
    """Return what a JSON document holds, objects that give a key twice as :class:`RepeatedKeys`.

    So one record can be refused and the others stay. ``options`` and errors are those of :func:`json.loads`.
    """
    return json.loads(text, object_pairs_hook=_marked, **options)


def repeated_key(value: Any) -> str | None:
    """Return a key that is given twice in a value of :func:`json_records`, at any depth; None if none is."""
    if isinstance(value, RepeatedKeys):
        return value.repeated
    if not isinstance(value, NESTED):
        return None
    inner: Iterable[Any] = value.values() if isinstance(value, dict) else value
    nested = (one for one in inner if isinstance(one, NESTED))  # most are texts and numbers
    return next((key for one in nested if (key := repeated_key(one)) is not None), None)


def yaml_value(text: str, scalars_as_text: bool = False) -> Any:
    """Return what a YAML document holds.

    Args:
        text: the document.
        scalars_as_text: leave every key and value but null as it is written, as on a command line. YAML 1.1
            takes ``no`` for false, ``007`` for 7 and ``2026-01-01`` for a date, and what was written is gone.

    Raises:
        RepeatedKeyError: a mapping gives a key twice.
        ValueError: it is not YAML, or nested too deeply.
    """
    import yaml

    try:
        return yaml.load(text, _loader(scalars_as_text))
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError("not YAML: nested too deeply") from None


def yaml_node(text: str, scalars_as_text: bool = False) -> yaml.Node | None:
    """Return a YAML document's node, which knows its lines; of a text that :func:`yaml_value` takes."""
    import yaml

    node: yaml.Node | None = yaml.compose(text, _loader(scalars_as_text))
    return node


def other_than_text(text: str) -> tuple[str, int] | None:
    """Return the first key of a YAML document that YAML reads as something else than text, and its line."""
    node = yaml_node(text)
    return _other_than_text(node) if node is not None else None


def _other_than_text(node: yaml.Node) -> tuple[str, int] | None:
    import yaml

    inner: Sequence[yaml.Node] = node.value if isinstance(node, yaml.SequenceNode) else ()
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag not in (TEXT, MERGE):
                return key.value, key.start_mark.line + 1
        inner = [value for _, value in node.value]
    return next((found for one in inner if (found := _other_than_text(one))), None)


def _first_repeated(keys: Sequence[str]) -> str | None:
    seen: set[str] = set()
    return next((key for key in keys if key in seen or seen.add(key)), None)  # type: ignore[func-returns-value]


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RepeatedKeyError(str(_first_repeated([key for key, _ in pairs])))
    return found


def _marked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    marked = RepeatedKeys(found)
    marked.repeated = str(_first_repeated([key for key, _ in pairs]))
    return marked


@cache
def _loader(scalars_as_text: bool) -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            seen: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if key.value in seen:
                    raise RepeatedKeyError(key.value, key.start_mark.line + 1)
                seen.add(key.value)
            return node

    if scalars_as_text:
        kept = (NULL, MERGE)
        Loader.yaml_implicit_resolvers = {
            first: [(tag, form) for tag, form in known if tag in kept]
            for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }
    return Loader
