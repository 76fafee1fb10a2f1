"""Make command lines of pydantic models, and end them with one line when the user made a mistake.

A command is a function of one argument, its settings: ``@command(EXAMPLES)``. The settings' model is the
command line, the settings file and the help; see :mod:`cluster.options`.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar, get_type_hints

import typer
from pydantic import BaseModel
from rich.console import Console
from typer.core import TyperCommand

from cluster.effect import check_effect
from cluster.errors import line_of, show_tracebacks, wants_traceback, whole_traceback
from cluster.lock import Writes
from cluster.options import RUN, CommandSettings, Former, Option, options_of
from cluster.presets import Presets
from cluster.settings_file import (
    Given,
    Values,
    as_yaml,
    build_settings,
    own_pairs,
    read_file,
    with_mapping,
    with_pairs,
)
from engine.errors import UserError
from engine.renames import logger, warn_of_former
from engine.storage.staging import staged_removed

Settings = TypeVar("Settings", bound=BaseModel)


SETTINGS_FILE, HELP = "Settings file", "Help"
"""Headings of the options that every command has."""


class GroupedOptions(TyperCommand):
    """A command whose help shows its options under their headings."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section of the help for each heading, in the order of the options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            line = parameter.get_help_record(ctx)
            if line is not None:
                heading = getattr(parameter, "rich_help_panel", None) or HELP
                sections.setdefault(heading, []).append(line)
        for heading, lines in sections.items():
            with formatter.section(heading):
                formatter.write_dl(lines)


@dataclass(frozen=True)
class Action:
    """An option that does something instead of the command, without its settings.

    Args:
        flag: such as ``--check-config``.
        help: what it does.
        act: takes the path given; of a flag alone, takes nothing.
        takes_path: whether a path follows.
        heading: under which the help shows it.
    """

    flag: str
    help: str
    act: Callable[..., None]
    takes_path: bool = False
    heading: str = SETTINGS_FILE

    @property
    def name(self) -> str:
        """The name of the parameter."""
        return self.flag.removeprefix("--").replace("-", "_")


class Command(Generic[Settings]):
    """A function of its settings, with the command line made of their model; see :func:`command`.

    Args:
        function: takes the settings.
        examples: lines that close the help.
        about: what the help says after the function's docstring.
        file_flags: options that name a settings file.
        printed: makes of the settings what ``--print-config`` prints; None: the settings file.
        print_help: of ``--print-config``.
        actions: options that do something else.
        headings: of the options, by the dotted path of their field or of what it is in.
        former: former names of options, by their keys.
        presets: where ``--preset NAME`` takes settings from.
        writes: where it writes into a workspace, whose lock it then holds.
    """

    def __init__(
        self,
        function: Callable[[Settings], None],
        examples: str,
        about: str = "",
        file_flags: Sequence[str] = ("--config",),
        printed: Callable[[Settings], str] | None = None,
        print_help: str = "Print these settings as a file for --config instead.",
        actions: Sequence[Action] = (),
        headings: Mapping[str, str] | None = None,
        former: Mapping[str, Former] | None = None,
        presets: Presets | None = None,
        writes: Writes | None = None,
    ) -> None:
        self.function, self.examples, self.about, self.presets = function, examples, about, presets
        self.file_flags, self.actions = file_flags, actions
        self.headings, self.former = headings or {}, former or {}
        self._printed, self._print_help, self.writes = printed, print_help, writes
        self.__doc__ = function.__doc__

    @cached_property
    def model(self) -> type[Settings]:
        """The settings' model."""
        (name,) = inspect.signature(self.function).parameters
        found: type[Settings] = get_type_hints(self.function)[name]
        return found

    @cached_property
    def options(self) -> list[Option]:
        """Every option of the settings, those among them that only files can give."""
        return options_of(self.model, self.headings)

    @cached_property
    def app(self) -> typer.Typer:
        """The command line."""
        return self._app(self.__call__)

    def _app(self, then: Callable[[Settings, float], None]) -> typer.Typer:
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        about = inspect.cleandoc(self.function.__doc__ or "") + (f"\n\n{self.about}" if self.about else "")
        epilog = preformatted("Examples:\n" + inspect.cleandoc(self.examples))
        app.command(cls=GroupedOptions, help=about, epilog=epilog)(self._typer_function(then))
        return app

    def __call__(self, settings: Settings, wait_minutes: float = 0.0) -> None:
        """Run the function; where it writes into a workspace, after so long a wait for others at most."""
        with self.writes.held(settings, wait_minutes) if self.writes else nullcontext():
            self.function(settings)

    def run(self, words: Sequence[object] | None = None) -> None:
        """Run as a command line, on ``sys.argv`` or on these words.

        ``python -m jobs.x`` calls its module ``__main__``, and what is defined there does not reach Ray's
        workers by its name: the same command out of the importable module is run.
        """
        own = importable(self.function)
        found = self if own is self.function else own
        run_app(found.app, None if words is None else [str(word) for word in words])

    def parse(self, words: Sequence[object]) -> Settings:
        """Return the settings of a command line, without running it.

        Raises:
            UserError: they are not allowed.
        """
        found: list[Settings] = []
        self._app(lambda settings, wait: found.append(settings))(
            [str(word) for word in words], standalone_mode=False
        )
        return found[0]

    @property
    def _set_help(self) -> tuple[str, str, str] | None:
        """What the help says of ``--set``: its text, placeholder and heading; None where there is none."""
        nested = any(option.shape == "nested" for option in self.options)
        told = "any other setting, as key=value or a.b=value."
        if pairs := next((option for option in self.options if option.shape == "pairs"), None):
            return pairs.help + (f" Also {told}" if nested else ""), pairs.metavar, pairs.heading
        return (f"Sets {told}", "<key=value>", SETTINGS_FILE) if nested else None

    def _typer_function(self, then: Callable[[Settings, float], None]) -> Callable[..., None]:
        """Return a function whose parameters typer shows as the options; None: an option was not given."""
        own: list[tuple[str, Any, Any]] = [
            (option.key, *_parameter(option))
            for option in self.options
            if option.shape not in ("nested", "pairs")
        ]
        own += [(f"former_{key}", *_former_parameter(key, former)) for key, former in self.former.items()]
        own += self._file_parameters()

        def given(**words: Any) -> None:
            self._run_given(words, then)

        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [inspect.Parameter(n, keyword, default=d, annotation=a) for n, a, d in own]
        given.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        given.__annotations__ = {name: annotation for name, annotation, _ in own}
        return given

    def _file_parameters(self) -> list[tuple[str, Any, Any]]:
        """Return what every command has beside its settings: where else they come from, and its actions."""
        found: list[tuple[str, Any, Any]] = []
        if about := self._set_help:
            told, metavar, heading = about
            pairs = _option("--set", help=told, metavar=metavar, heading=heading)
            found.append(("set_pairs", list[str] | None, pairs))
        if self.presets:
            told = (
                f"Begin with the settings of a paper ({', '.join(self.presets.names)}), or a file like these."
            )
            preset = _option("--preset", help=told, metavar="<name>", heading=SETTINGS_FILE)
            found.append(("preset_name", str | None, preset))
        read = "YAML file of settings, by these names. What is given on the command line counts more."
        file = _option(*self.file_flags, help=read, metavar="<path>", heading=SETTINGS_FILE)
        found.append(("config_file", Path | None, file))
        shown = typer.Option(
            False, "--print-config", help=self._print_help, rich_help_panel=SETTINGS_FILE, show_default=False
        )
        found.append(("print_config", bool, shown))
        told = "Show the traceback of an error beside its line, as SEEDSET_TRACEBACK=1 does."
        debug = typer.Option(False, "--traceback", help=told, rich_help_panel=HELP, show_default=False)
        found.append(("traceback", bool, debug))
        if self.writes:
            told = "Wait so long for commands that this one cannot write beside."
            wait = typer.Option(None, "--wait", help=told, metavar="<minutes>", min=0, rich_help_panel=RUN)
            found.append(("wait_minutes", float | None, wait))
        for action in self.actions:
            kind, default = (Path | None, None) if action.takes_path else (bool, False)
            acts = typer.Option(default, action.flag, help=action.help, rich_help_panel=action.heading)
            found.append((action.name, kind, acts))
        return found

    def _run_given(self, words: dict[str, Any], then: Callable[[Settings, float], None]) -> None:
        if words["traceback"]:
            show_tracebacks()
        if not logger.handlers:  # a service's log has its own
            logger.addHandler(WarningLines())
        for action in self.actions:
            if words[action.name]:
                action.act(*([words[action.name]] if action.takes_path else []))
                return
        values = self._values(words)
        settings = build_settings(self.model, self.options, values)
        if isinstance(settings, CommandSettings):
            check_effect(settings.unused(), self.options, values)
        if words["print_config"]:
            text = self._printed(settings) if self._printed else as_yaml(settings, self.options)
            print(text, end="")
            return
        then(settings, words.get("wait_minutes") or 0.0)

    def _values(self, words: dict[str, Any]) -> Values:
        """Return what was given: the command line above ``--set`` above the file above the preset."""
        found: Values = {}
        if self.presets and (name := words.get("preset_name")):
            preset = self.presets.path(name)
            found |= read_file(preset, self.options, self.former, self.presets.section)
        if file := words["config_file"]:
            found |= read_file(file, self.options, self.former)
        own, rest = own_pairs(words.get("set_pairs") or [], self.options, self.former)
        found = with_mapping(found, own, self.options)
        found = with_pairs(found, rest, self.options, self.former)
        for option in self.options:
            value = words.get(option.key)
            if value is not None and value != []:
                typed = option.typed(value) if isinstance(value, str) else value
                found[option.key] = Given(typed, option.flag)
        for key, former in self.former.items():
            if (value := words.get(f"former_{key}")) is not None:
                old, new = _flag(key), _flag(former.now)
                if words.get(former.now) is not None:
                    raise UserError(f"{old} is now called {new}: give {new} alone")
                warn_of_former(old, new if former.becomes is None else f"{new} {former.value(value)}")
                found[former.now] = Given(former.value(value), old)
        return found


def command(examples: str, **settings: Any) -> Callable[[Callable[[Settings], None]], Command[Settings]]:
    """Make a function of settings a command; its docstring begins the help, ``examples`` close it.

    Args:
        examples: lines of the help.
        **settings: of :class:`Command`.
    """

    def decorate(function: Callable[[Settings], None]) -> Command[Settings]:
        return Command(function, examples, **settings)

    return decorate


def wait_until_stopped() -> Callable[[], bool]:
    """Return when Ctrl-C or SIGTERM comes; what is returned says whether one has come again since."""
    stop, again = threading.Event(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: (again if stop.is_set() else stop).set())
    stop.wait()
    return again.is_set


def preformatted(text: str) -> str:
    """Return a text with tables for a help: its lines stay as they are, the markup of code goes."""
    # Where a word in code ends a column, what follows keeps its place.
    plain = re.sub(r"``([^`]*)``( {2,})", r"\1\2    ", text).replace("``", "")
    return "\n\n".join(f"\b\n{paragraph}" for paragraph in plain.strip().split("\n\n"))


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def _option(*flags: str, help: str, metavar: str, heading: str, choices: Sequence[str] = ()) -> Any:
    def complete(incomplete: str) -> list[str]:
        return [name for name in choices if name.startswith(incomplete)]

    return typer.Option(
        None,
        *flags,
        help=help,
        metavar=metavar,
        show_default=False,
        rich_help_panel=heading,
        autocompletion=complete if choices else None,
    )


def _parameter(option: Option) -> tuple[Any, Any]:
    """Return the annotation and the declaration that make typer show an option; pydantic checks its value."""
    if option.shape == "flag":
        flag = typer.Option(
            None, option.words, help=option.help, show_default=False, rich_help_panel=option.heading
        )
        return bool | None, flag
    annotation = list[str] | None if option.shape == "list" else str | None
    shown = _option(
        option.words,
        help=option.help,
        metavar=option.metavar,
        heading=option.heading,
        choices=option.choices,
    )
    return annotation, shown


def _former_parameter(key: str, former: Former) -> tuple[Any, Any]:
    """Return the annotation and the declaration of an option's former name, which no help shows."""
    flag = _flag(key)
    if former.becomes is None:
        return str | None, typer.Option(None, flag, hidden=True)
    return bool | None, typer.Option(None, f"{flag}/--no-{flag.removeprefix('--')}", hidden=True)


def importable(function: Callable[..., None]) -> Any:
    """Return what a function's name stands for in its importable module; see :meth:`Command.run`."""
    spec = sys.modules["__main__"].__spec__
    if function.__module__ != "__main__" or spec is None:
        return function
    return getattr(importlib.import_module(spec.name), function.__name__)


class WarningLines(logging.Handler):
    """A handler that writes warnings to the terminal as lines such as ``warning: …``."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        print(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)


def run_app(app: typer.Typer, words: Sequence[str] | None = None, name: str | None = None) -> None:
    """Run a command line; an error is printed as one line on stderr.

    The exit status is 2 where the error is one that a user can mend (ours, or the outside's: see
    :mod:`cluster.errors`), and 1 where it is a defect of the program.

    Args:
        app: the command line.
        words: what stands behind its name; None: ``sys.argv``.
        name: the program's; None: as it was called.
    """
    try:
        with staged_removed():
            app(words, prog_name=name)
    except Exception as error:
        line, status = line_of(error)
        if wants_traceback():
            print(whole_traceback(error), end="", file=sys.stderr)
        terminal = Console(stderr=True, highlight=False)
        terminal.print(f"error: {line}", style="bold red", markup=False, soft_wrap=True)
        sys.exit(status)
