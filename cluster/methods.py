"""Options by which commands choose methods and change settings of their stages.

A command takes them into its own settings::

    method: Annotated[list[str], METHOD_NAME] = Field(description=…)
    set: Changes = declared(MethodSettings, "set")

and reads them with :func:`pipelines`; ``actions=[LIST_METHODS]`` gives it ``--list-methods``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from cluster.commandline import HELP, Action
from cluster.options import Choices, Pairs
from engine.methods import ABLATIONS, METHODS, RENAMED
from engine.plugins import find_method, is_method, listed
from engine.query import Value
from engine.stages.base import Pipeline
from engine.stages.options import change_methods

OTHERS = "or one that a package installed, or module:NAME of a pipeline of your own (see --list-methods)"

METHOD_NAME = Choices((*METHODS, *ABLATIONS), tuple(RENAMED), is_method, OTHERS)
"""Marks a field whose text, or texts, name methods."""


def _flat(given: Any) -> Any:
    """Return ``{"a.b": c}`` of ``{"a": {"b": c}}``, as a settings file may have it; the rest is unchanged."""
    if not isinstance(given, Mapping):
        return given
    found: dict[str, Any] = {}
    for key, value in given.items():
        inner = (
            {f"{key}.{name}": v for name, v in value.items()} if isinstance(value, Mapping) else {key: value}
        )
        if twice := next((name for name in inner if name in found), None):
            raise ValueError(f"{twice} is given a second time")
        found |= inner
    return found


Changes = Annotated[dict[str, Value], BeforeValidator(_flat), Pairs("<Stage.setting=value>")]
"""Settings of stages that differ from the method's, by name."""


class MethodSettings(BaseModel):
    """What commands that run methods have in common."""

    set: Changes = Field(
        default={},
        description="Change a setting of the method's stages, such as SegmentRerank.length=8 (of the second "
        "stage of that name SegmentRerank[2].length=8); repeat it for more. --list-methods shows all.",
    )


def pipelines(names: Iterable[str], changes: Mapping[str, Value]) -> dict[str, Pipeline]:
    """Return methods by name, with some settings of their stages changed.

    Raises:
        UserError: no such method, or a setting that none of them has.
    """
    return change_methods({name: find_method(name) for name in names}, changes)


def _print_methods() -> None:
    for name, pipeline, about in listed():
        print(f"{name}: {about}\n    {pipeline}" if about else f"{name}\n    {pipeline}")
    print("\nSettings of the stages, as they are where a method says nothing (--set Stage.setting=value):")
    stages = {stage.name: type(stage) for m in (METHODS, ABLATIONS) for p in m.values() for stage in p.stages}
    for name, kind in stages.items():
        print(f"{name}: {', '.join(f'{s}={field.default}' for s, field in kind.model_fields.items())}")


LIST_METHODS = Action(
    "--list-methods", "List every method instead, with its stages.", _print_methods, heading=HELP
)
