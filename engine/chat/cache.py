"""Keep the answers of chat models, so that a rerun asks nothing and ranks the same.

One JSON file an answer, named by a digest of all that was sent but the address and the key::

    <folder>/<first two digits>/<digest>.json   {"request": …, "answer": …}

A file is there whole or not at all, and of two workers that ask the same at once the first one's answer
stays.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeVar, cast

from pydantic import ValidationError

from engine.chat.messages import Answer, Request
from engine.errors import StorageError
from engine.storage.store import Store

A = TypeVar("A", bound=Answer)


@dataclass(frozen=True)
class AnswerCache:
    """The answers kept in a folder, local or in a bucket."""

    folder: Store

    def file(self, request: Request[Answer]) -> Store:
        """Return where the answer to a request is, or will be."""
        return self.folder / request.key[:2] / f"{request.key}.json"

    def get(self, request: Request[A]) -> A | None:
        """Return the answer to a request, None if there is none.

        Raises:
            StorageError: the file is not whole, or of another request; names it.
        """
        content = self.file(request).read_if_there()
        return None if content is None else self._read(request, content)

    def put(self, request: Request[A], answer: A) -> A:
        """Keep an answer; return the one that is kept: another worker's, where that one was first."""
        entry = {"request": request.body, "answer": answer.model_dump()}
        content = json.dumps(entry, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"
        if self.file(request).replace_bytes(content, None):
            return answer
        return self.get(request) or answer

    def _read(self, request: Request[A], content: bytes) -> A:
        file = self.file(request)
        way_out = "delete the file, and the prompt is sent again"
        try:
            entry = json.loads(content)
            answer = cast(A, request.answer_type.model_validate(entry["answer"]))
            asked = entry["request"]
        except (ValidationError, ValueError, KeyError, TypeError, RecursionError):
            raise StorageError(f"{file.uri}: no answer that was kept here, or cut off; {way_out}") from None
        if asked != request.body:
            raise StorageError(f"{file.uri}: the answer to another prompt; {way_out}")
        return answer
