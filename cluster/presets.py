"""Name the settings files that come with the program: those of a paper, with a section for each command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.errors import UserError


@dataclass(frozen=True)
class Presets:
    """Settings files that come with the program, each with a section for every command that it is of.

    Args:
        folder: holds them, as ``NAME.yaml``.
        section: of the command.
    """

    folder: Path
    section: str

    @property
    def names(self) -> list[str]:
        """The presets there are."""
        return sorted(file.stem for file in self.folder.glob("*.yaml"))

    def path(self, given: str) -> Path:
        """Return the file of a preset, or the one of a user's own that is named.

        Raises:
            UserError: there is none of that name.
        """
        if given in self.names:
            return self.folder / f"{given}.yaml"
        if given.endswith((".yaml", ".yml")):
            return Path(given)
        known = ", ".join(self.names)
        raise UserError(f"--preset {given}: give one of {known}, or a YAML file of their form")
