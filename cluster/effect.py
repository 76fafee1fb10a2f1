"""Refuse options that have no effect beside the others: who gives one believes that it does something.

Settings files pass, since one file can hold the settings of several runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from cluster.options import Option, options_of
from cluster.settings_file import Values
from engine.errors import UserError


def check_effect(unused: Mapping[str, str], options: Sequence[Option], values: Values) -> None:
    """Refuse an option of the command line that has no effect beside the others.

    Args:
        unused: such options by key, and beside what (:meth:`cluster.options.CommandSettings.unused`).
        options: of the command.
        values: that were given; those out of files pass.

    Raises:
        UserError: names the option.
    """
    for option in options:
        given = values.get(option.key)
        if given is not None and given.place.startswith("--") and option.key in unused:
            off = option.shape == "flag" and not given.value
            flag = f"--{option.words.partition('/--')[2]}" if off else given.place.rstrip(":")
            raise UserError(f"{flag} has no effect {unused[option.key]}; leave it out")


def keys_within(model: type[BaseModel], field: str) -> list[str]:
    """Return the keys of the options that set what is in a field of the settings, and nothing else."""
    return [o.key for o in options_of(model) if all(target.path[0] == field for target in o.targets)]
