"""Keep the labels of a typing model: the file ``labels.json`` of its folder. Imports no model library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.errors import FormatError, UserError
from engine.models.hub import NamedModel
from engine.typing.inputs import MAX_TOKENS
from engine.typing.labels import is_path, label_words, with_ancestors

LABELS = "labels.json"

Rule = Literal["threshold", "single"]
"""How types are chosen by their scores. "threshold" (UFET): all above 0, the best one where none is. "single"
(FET): the best one, and its parents."""


class LabelsFile(BaseModel):
    """What ``labels.json`` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: list[str]
    words: list[str]
    max_tokens: int = MAX_TOKENS
    rule: Rule = "threshold"

    @classmethod
    def of(cls, labels: Sequence[str], words: Mapping[str, str] | None, max_tokens: int) -> Self:
        """Return the labels and settings of a model that is to know some types.

        Raises:
            UserError: the labels clash (:func:`engine.typing.labels.label_words`).
        """
        rule: Rule = "single" if any(map(is_path, labels)) else "threshold"
        return cls(labels=list(labels), words=label_words(labels, words), max_tokens=max_tokens, rule=rule)

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Return the labels and settings of a folder that :meth:`TypingModel.save` wrote.

        Raises:
            UserError: it is no such folder.
            FormatError: its file of labels is not in the form that it should have.
        """
        file = Path(NamedModel.open(folder, "typing model").path) / LABELS
        try:
            about = cls.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            raise UserError(
                f"typing model {folder}: no {LABELS} in it; name a folder that `seedset train-typing` wrote"
            ) from None
        except (ValidationError, OSError) as error:
            raise FormatError(f"{file}: not the labels of a typing model ({error})") from None
        if len(about.labels) != len(about.words) or not about.labels:
            raise FormatError(f"{file}: {len(about.labels)} labels and {len(about.words)} words of labels")
        return about

    @property
    def predicted(self) -> list[str]:
        """All types that may be predicted: the labels, then their parents that are no labels themselves."""
        return list(dict.fromkeys([*self.labels, *with_ancestors(self.labels)]))
