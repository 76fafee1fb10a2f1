"""Find methods by name: ours, those that installed packages bring, and ``module:NAME`` of a user's own.

A package brings methods under the entry-point group :data:`GROUP`; in its ``pyproject.toml``::

    [project.entry-points."seedset.methods"]
    my-method = "my_package.methods:PIPELINE"

A module is imported here, which runs it. So names come from a command line, a settings file or a program,
never from a request or from data: the service answers with the methods that it was started with.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple

from engine import methods
from engine.errors import QueryError, UserError
from engine.stages.base import Pipeline, Stage

GROUP = "seedset.methods"

OBJECT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
"""How an object in a module is named: ``package.module:NAME``."""


class ListedMethod(NamedTuple):
    """A method for a list: its name, its stages in words, and what it is."""

    name: str
    pipeline: str
    about: str


def is_ours(name: str) -> bool:
    """Return whether a name is of a method or an ablation of ours, or a former one."""
    return name in methods.METHODS or name in methods.ABLATIONS or name in methods.RENAMED


def installed() -> dict[str, metadata.EntryPoint]:
    """Return the methods that installed packages bring, by name; a name of ours stays ours."""
    found = metadata.entry_points(group=GROUP)
    return {entry.name: entry for entry in sorted(found, key=str) if not is_ours(entry.name)}


def is_method(name: str) -> bool:
    """Return whether a name may be of a method, importing nothing: an object is not looked for."""
    return is_ours(name) or OBJECT.fullmatch(name) is not None or name in installed()


def find_method(name: str) -> Pipeline:
    """Return the pipeline of a method: ours, an installed one's, or what ``module:NAME`` names.

    Raises:
        QueryError: no method is called so; names those there are, the closest first.
        UserError: the module cannot be imported, or holds no pipeline of that name.
    """
    if is_ours(name):
        return methods.method(name)
    if OBJECT.fullmatch(name):
        return _imported(name, name)
    others = installed()
    if name in others:
        return _imported(others[name].value, f"the installed method {name!r}")
    known = [*methods.METHODS, *methods.ABLATIONS, *others]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise QueryError(
        f"unknown method {name!r}; {hint}Known: {', '.join(known)}; or module:NAME of a pipeline of your own"
    )


def listed(ablations: bool = True) -> Iterator[ListedMethod]:
    """Yield every method, those of installed packages last; one that cannot be imported says why."""
    for name, pipeline in {**methods.METHODS, **(methods.ABLATIONS if ablations else {})}.items():
        yield ListedMethod(name, str(pipeline), methods.ABOUT.get(name, ""))
    for name, entry in installed().items():
        about = f"installed, as {entry.value}"
        try:
            yield ListedMethod(name, str(find_method(name)), about)
        except UserError as error:
            yield ListedMethod(name, f"({error})", about)


def _imported(target: str, called: str) -> Pipeline:
    """Return the pipeline that an object in a module is.

    Raises:
        UserError: there is no such module or object, its import fails, or it is no pipeline.
    """
    module_name, _, path = target.partition(":")
    # As `python -m` does, and the command `seedset` does not: what lies in this folder is found.
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise UserError(
                f"{called}: {module_name} imports {error.name!r}, which is not installed"
            ) from error
        raise UserError(
            f"{called}: no module is called {error.name!r}, neither here ({here}) nor installed; write "
            "package.module:NAME"
        ) from None
    except Exception as error:
        raise UserError(
            f"{called}: importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error
    module = found
    for part in path.split("."):
        found = getattr(found, part, None)
    if isinstance(found, Stage):
        return Pipeline((found,)).settled()
    if isinstance(found, Pipeline):
        return found.settled()
    there = [name for name, value in vars(module).items() if isinstance(value, Stage | Pipeline)]
    has = f"it holds {', '.join(there)}" if there else "it holds none"
    what = f"is a {type(found).__name__}" if found is not None else "is not there"
    raise UserError(f"{called}: {path} {what}, not a pipeline of stages (a >> b) in {module_name}; {has}")
