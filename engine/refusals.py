"""Say why one record, query or image of many cannot be used: a value, not an exception.

An error of the whole call is raised (:mod:`engine.errors`). What is wrong with one of many is returned in its
place as a :class:`Refusal`, so that the others go on and nothing is dropped without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique


@unique
class Code(StrEnum):
    """Name the kinds of fault. Programs decide by these: a code keeps its meaning, details may change."""

    # Files and lines.
    FILE_MISSING = "file_missing"
    FILE_CUT_OFF = "file_cut_off"
    FILE_BROKEN = "file_broken"
    FILE_TOO_LARGE = "file_too_large"
    LINE_TOO_LONG = "line_too_long"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"

    # The form of a record.
    WRONG_LAYOUT = "wrong_layout"
    WRONG_TYPE = "wrong_type"
    CONFLICTING_FIELDS = "conflicting_fields"
    UNKNOWN_FIELD = "unknown_field"
    NO_CONTENT = "no_content"
    TOO_MANY_CANDIDATES = "too_many_candidates"

    # Texts: names, sentences, descriptions, addresses.
    TEXT_EMPTY = "text_empty"
    TEXT_TOO_LONG = "text_too_long"
    TEXT_CONTROL_CHARACTER = "text_control_character"
    TEXT_LINE_BREAK = "text_line_break"
    TEXT_SURROGATE = "text_surrogate"

    # Names and ids.
    UNKNOWN_ENTITY = "unknown_entity"
    DUPLICATE_ENTITY = "duplicate_entity"
    DUPLICATE_SENTENCE = "duplicate_sentence"
    DUPLICATE_QUERY_ID = "duplicate_query_id"
    CONTRADICTING_ID = "contradicting_id"

    # Mentions.
    MENTION_NOT_FOUND = "mention_not_found"
    MENTION_IN_LONGER_NAME = "mention_in_longer_name"
    SPAN_OUT_OF_RANGE = "span_out_of_range"
    SPAN_BLANK = "span_blank"
    SPAN_MISMATCH = "span_mismatch"

    # Images.
    IMAGE_ADDRESS = "image_address"
    IMAGE_MISSING = "image_missing"
    IMAGE_UNREADABLE = "image_unreadable"
    IMAGE_NOT_BASE64 = "image_not_base64"
    IMAGE_EMPTY = "image_empty"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_FORMAT = "image_format"
    IMAGE_ANIMATED = "image_animated"
    IMAGE_COLOURS = "image_colours"
    IMAGE_BROKEN = "image_broken"

    # Queries.
    QUERY_INVALID = "query_invalid"
    NO_TRUTH = "no_truth"
    TIMEOUT = "timeout"
    INTERNAL = "internal"
    WORKER_DIED = "worker_died"


def encodable(text: str) -> str:
    """Return a text that UTF-8 can hold: in the place of half a surrogate pair stands a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why something cannot be used.

    Args:
        code: the kind of fault.
        detail: one line for a person, without the place: that stands beside it.
    """

    code: Code
    detail: str

    def about(self, subject: str) -> Refusal:
        """Return the same refusal said of a part of the record, such as ``alias`` or ``image``."""
        return Refusal(self.code, f"{subject} {self.detail}")

    def __str__(self) -> str:
        return self.detail
