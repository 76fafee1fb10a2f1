"""Turn type labels into words: the model reads a label as a word or phrase (FiveFine, section 2.2).

``_`` becomes a space, and of a path the last part counts: ``/organization/sports_team`` is "sports team".
Where two labels of a list would be the same words, their parents are said too, behind them:
``/person/legal`` is "legal person" and ``/other/legal`` "legal other". A user's own words are taken as they
are; where these clash, they are refused.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from engine.errors import FormatError, MissingFileError, UserError
from engine.repeated_keys import RepeatedKeyError, json_value
from engine.storage.store import Store

SEPARATOR = "/"


def is_path(label: str) -> bool:
    """Return whether a label names its parents: ``/person/artist``."""
    return label.startswith(SEPARATOR)


def ancestors(label: str) -> list[str]:
    """Return a path's parents, the topmost first; of a label that is no path none."""
    if not is_path(label):
        return []
    parts = label.strip(SEPARATOR).split(SEPARATOR)
    return [SEPARATOR + SEPARATOR.join(parts[:depth]) for depth in range(1, len(parts))]


def with_ancestors(labels: Iterable[str]) -> list[str]:
    """Return labels and all their parents, each once, in order of first appearance, parents first."""
    return list(dict.fromkeys(one for label in labels for one in (*ancestors(label), label)))


def finest(labels: Iterable[str]) -> list[str]:
    """Return those of some labels that are no parent of another one of them."""
    given = list(labels)
    parents = {parent for label in given for parent in ancestors(label)}
    return [label for label in given if label not in parents]


def label_words(labels: Sequence[str], given: Mapping[str, str] | None = None) -> list[str]:
    """Return the words of each label.

    Args:
        labels: all types that a model is to know, each once.
        given: words of some of them, as a user wants them.

    Raises:
        UserError: a label has no words, occurs twice, or two have the same words (letter case aside).
    """
    given = given or {}
    twice = sorted(label for label, n in _counted(labels).items() if n > 1)
    if twice:
        raise UserError(f"labels: {twice[0]!r} is listed twice; name each type once")
    unknown = sorted(given.keys() - set(labels))
    if unknown:
        raise UserError(f"labels: words are given for {unknown[0]!r}, which is not among the types")
    words = {label: given.get(label) or _own_words(label, 1) for label in labels}
    for label in labels:
        words[label] = " ".join(words[label].replace("_", " ").split())
        if not words[label]:
            raise UserError(f"labels: {label!r} has no words; give it some with --label-words")
    for depth in range(2, 1 + max((label.count(SEPARATOR) for label in labels), default=0)):
        for alike in _clashes(words):
            for label in alike:
                if label not in given and is_path(label):
                    words[label] = _own_words(label, depth)
    if clash := next(iter(_clashes(words)), None):
        raise UserError(
            f"labels: {clash[0]!r} and {clash[1]!r} are both {words[clash[0]]!r} in words, so the model "
            "could not tell them apart; give one of them other words with --label-words"
        )
    return [words[label] for label in labels]


def _counted(labels: Sequence[str]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for label in labels:
        counts[label] += 1
    return counts


def _own_words(label: str, depth: int) -> str:
    """Return the last parts of a path, at most ``depth``, the last one first, as words."""
    parts = label.strip(SEPARATOR).split(SEPARATOR) if is_path(label) else [label]
    return " ".join(" ".join(reversed(parts[-depth:])).replace("_", " ").split())


def _clashes(words: Mapping[str, str]) -> list[list[str]]:
    """Return the groups of labels whose words are the same but for letter case."""
    by_words: dict[str, list[str]] = defaultdict(list)
    for label, text in words.items():
        by_words[text.casefold()].append(label)
    return [alike for alike in by_words.values() if len(alike) > 1]


def read_labels(file: Store) -> list[str]:
    """Return the labels of a text file that holds one a line, as UFET's ``types.txt`` does.

    One that is listed twice counts once: OntoNotes' list repeats ``/location/structure``.

    Raises:
        MissingFileError: there is no such file.
        FormatError: it is no UTF-8, or holds none.
    """
    labels = list(dict.fromkeys(line.strip() for line in _text_of(file).splitlines() if line.strip()))
    if not labels:
        raise FormatError(f"{file.uri}: no label in it; a line holds one")
    return labels


def read_label_words(file: Store) -> dict[str, str]:
    """Return the words of labels from a JSON file: ``{"/person/legal": "lawyer"}``.

    Raises:
        MissingFileError: there is no such file.
        FormatError: it is no JSON object of texts.
    """
    try:
        words = json_value(_text_of(file))
    except (json.JSONDecodeError, RepeatedKeyError, RecursionError) as error:
        raise FormatError(f"{file.uri}: not valid JSON ({error})") from None
    if not isinstance(words, dict) or not all(isinstance(value, str) for value in words.values()):
        raise FormatError(f'{file.uri}: must be an object of texts, such as {{"/person/legal": "lawyer"}}')
    return words


def _text_of(file: Store) -> str:
    content = file.read_if_there()
    if content is None:
        raise MissingFileError(f"{file.uri}: no such file of {PurePosixPath(file.name).stem or 'labels'}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{file.uri}: not valid UTF-8 at byte {error.start}") from None
