"""Change settings of a pipeline's stages by name: for all queries, or for one within declared limits.

A setting is named by its stage, ``SegmentRerank.length``; where a pipeline has several stages of a name, by
the stage's place among them too, ``SegmentRerank[2].length``. The stage's own model checks the value.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from engine.errors import QueryError
from engine.query import Options, Value
from engine.renames import current_name
from engine.stages.base import Pipeline, SettingName, Stage

SHOWN = 80
"""Characters shown of a name or a value that was given: it may be as long as a request."""

NONE = ("none", "null")
"""What stands for no value where one is given as text."""


class OptionError(QueryError):
    """A setting that cannot be changed so.

    Args:
        key: as given.
        message: what is wrong with it.
        suggestions: names that would work in its place.
    """

    def __init__(self, key: str, message: str, suggestions: Sequence[str] = ()) -> None:
        self.key, self.suggestions = key[:SHOWN], list(suggestions)
        super().__init__(f"{_shown(key)}: {message}")
        self._arguments = (key, message, self.suggestions)

    def __reduce__(self) -> tuple[type, tuple[str, str, list[str]]]:
        """Cross process borders whole."""
        return type(self), self._arguments


def change(pipeline: Pipeline, settings: Mapping[str, Any]) -> Pipeline:
    """Return a pipeline with some settings changed.

    Args:
        pipeline: stays as it is.
        settings: values by name; texts, as a command line has them, are read as the setting's type.

    Raises:
        OptionError: no such stage or setting (names the closest), one of several that is not told apart, or a
            value that the stage refuses.
    """
    given: dict[int, dict[str, Any]] = {}
    for key, value in settings.items():
        place, setting = _find(pipeline.stages, key)
        if setting in given.setdefault(place, {}):
            raise OptionError(key, "is given a second time, in another spelling")
        given[place][setting] = _of_text(pipeline.stages[place], setting, value)
    stages = list(pipeline.stages)
    for place, values in given.items():
        stages[place] = _with(stages[place], _address(stages, place), values, strict=False)
    return Pipeline(tuple(stages))


def change_methods(methods: Mapping[str, Pipeline], settings: Mapping[str, Any]) -> dict[str, Pipeline]:
    """Return methods with some settings changed; one that lacks the stage of a setting stays without it.

    Raises:
        OptionError: as :func:`change` does; also where a setting is of no method's stage.
    """
    for key in settings:
        if not any(_has_stage(pipeline, key) for pipeline in methods.values()):
            stages = [stage for pipeline in methods.values() for stage in pipeline.stages]
            _find(stages, key)  # says what is wrong with it
    return {
        name: change(pipeline, {k: v for k, v in settings.items() if _has_stage(pipeline, k)})
        for name, pipeline in methods.items()
    }


def checked_options(stages: Sequence[Stage], options: Mapping[str, Value]) -> Options:
    """Return the settings that a query changes, as stages read them.

    Args:
        stages: of the pipeline that answers the query.
        options: values by name, of their type (no texts that stand for numbers); the text "none" is no value
            (None), for files of queries, where null is a value that is not given.

    Raises:
        OptionError: as :func:`change` does; also a setting that no query may change, or a number out of its
            bounds (:attr:`engine.stages.base.Stage.per_request`).
    """
    given: dict[int, dict[str, Any]] = {}
    found: dict[str, Value] = {}
    for key, value in options.items():
        place, setting = _find(stages, key)
        bounds = stages[place].per_request.get(setting)
        if bounds is None:
            raise OptionError(key, f"no query may change it; {_may_change(stages)}", list(offered(stages)))
        value = _of_text(stages[place], setting, value)
        name = f"{_address(stages, place)}.{setting}"
        if name in found:
            raise OptionError(key, "is given a second time, in another spelling")
        if isinstance(value, int | float) and not bounds[0] <= value <= bounds[1]:
            raise OptionError(key, f"{_shown(value)} is out of bounds: give {bounds[0]:g} to {bounds[1]:g}")
        given.setdefault(place, {})[setting] = value
        found[name] = value
    for place, values in given.items():
        _with(stages[place], _address(stages, place), values, strict=True)
    return tuple(sorted(found.items()))


def offered(stages: Sequence[Stage]) -> dict[str, dict[str, Value]]:
    """Return the settings that a query may change: each with its value, and the bounds of its numbers."""
    return {
        f"{_address(stages, place)}.{setting}": {
            "value": getattr(stage, setting),
            "minimum": low,
            "maximum": high,
        }
        for place, stage in enumerate(stages)
        for setting, (low, high) in stage.per_request.items()
    }


def _may_change(stages: Sequence[Stage]) -> str:
    names = [f"{name} ({o['minimum']:g} to {o['maximum']:g})" for name, o in offered(stages).items()]
    return f"it may change {', '.join(names)}" if names else "it may change none of this method"


def _has_stage(pipeline: Pipeline, key: str) -> bool:
    name = SettingName.parse(key)
    return name is not None and any(
        stage.name == name.stage and name.number in (None, stage.number) for stage in pipeline.stages
    )


def _find(stages: Sequence[Stage], key: str) -> tuple[int, str]:
    """Return the place of the stage that a name names, and the setting."""
    name = SettingName.parse(key)
    if name is None:
        raise OptionError(key, "write Stage.setting, such as SegmentRerank.length")
    places = [place for place, stage in enumerate(stages) if stage.name == name.stage]
    known = list(dict.fromkeys(stage.name for stage in stages))
    if not places:
        close = _close(name.stage, known)
        hint = f"did you mean {close[0]}? " if close else ""
        raise OptionError(
            key,
            f"no stage is called so here; {hint}There are {', '.join(known)}",
            [f"{one}.{name.setting}" for one in close],
        )
    # Stages of several methods may be looked through together: there a name is no less clear.
    if name.number is None and len({stages[place].number for place in places}) > 1:
        ways = [f"{name.stage}[{stages[place].number}].{name.setting}" for place in places]
        raise OptionError(key, f"there are several; write {' or '.join(dict.fromkeys(ways))}", ways)
    number = name.number or 1
    place = next((place for place in places if stages[place].number == number), None)
    if place is None:
        raise OptionError(key, f"there is no {name.stage} of number {number}, but {len(places)} in all")
    return place, _setting(stages[place], key, name.setting)


def _setting(stage: Stage, key: str, given: str) -> str:
    """Return the setting that is meant; a former name becomes the current one."""
    setting = current_name(stage.name, given, stage.renamed)
    fields = list(type(stage).model_fields)
    if setting in fields:
        return setting
    close = _close(setting, fields)
    hint = f"did you mean {close[0]}? " if close else ""
    settings = f"It has {', '.join(fields)}" if fields else "It has none"
    raise OptionError(
        key,
        f"{stage.name} has no such setting; {hint}{settings}",
        [f"{key.rpartition('.')[0]}.{one}" for one in close],
    )


def _address(stages: Sequence[Stage], place: int) -> str:
    """Return a stage's name, with its number where there are several."""
    stage = stages[place]
    several = Counter(one.name for one in stages)[stage.name] > 1
    return f"{stage.name}[{stage.number}]" if several else stage.name


def _of_text(stage: Stage, setting: str, value: Any) -> Any:
    """Return a value; of a text for no value, where that is allowed, None."""
    if not isinstance(value, str) or value.strip().lower() not in NONE:
        return value
    declared = type(stage).model_fields[setting].annotation
    return None if type(None) in getattr(declared, "__args__", ()) else value


def _with(stage: Stage, address: str, values: Mapping[str, Any], strict: bool) -> Stage:
    """Return a stage with some settings changed.

    Raises:
        OptionError: it refuses them.
    """
    before = {name: getattr(stage, name) for name in stage.model_fields_set}
    try:
        return type(stage).model_validate({**before, **values}, strict=strict)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        setting = str(first["loc"][0]) if first["loc"] else ", ".join(values)
        said = first["msg"].removeprefix("Value error, ")
        value = f"{_shown(values[setting])}: " if setting in values else ""
        raise OptionError(f"{address}.{setting}", f"{value}{said}") from None


def _close(given: str, known: Iterable[str]) -> list[str]:
    folded = {one.casefold(): one for one in known}
    return [folded[one] for one in difflib.get_close_matches(given[:SHOWN].casefold(), list(folded), n=3)]


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
