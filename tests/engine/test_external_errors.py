"""Test that what the outside throws becomes one line with the place and a way out, and a defect does not."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pyarrow.fs as pafs
import pytest
from safetensors.numpy import load
from tokenizers import Tokenizer

from engine.errors import StorageError, UserError
from engine.external_errors import as_user_error, system_number, translated


def raised(action: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        action()
    return caught.value


@pytest.mark.parametrize(
    ("number", "way_out"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EDQUOT, "free space"),
        (errno.EACCES, "give this account the right"),
        (errno.EPERM, "give this account the right"),
        (errno.EROFS, "name a place that can be written"),
        (errno.ENAMETOOLONG, "255 bytes"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ELOOP, "in a circle"),
        (errno.EREMOTEIO, "check the place"),  # in no row
    ],
)
def test_an_error_of_the_system_says_what_where_and_the_way_out(number: int, way_out: str) -> None:
    error = as_user_error(OSError(number, os.strerror(number), "/data/file"), "/work")
    assert isinstance(error, StorageError)
    assert str(error).startswith(f"/work: /data/file: {os.strerror(number)}; ")
    assert way_out in str(error)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (lambda: pafs.LocalFileSystem().open_input_file("/nowhere"), "'/nowhere': No such file"),
        (lambda: load(b"version https://git-lfs"), "the weights cannot be read"),
        (lambda: Tokenizer.from_str("{}"), "at line 1 column 2"),
        (lambda: json.loads("{"), "not JSON"),
        (lambda: json.loads("[" * 100_000), "nested too deeply"),
        (b"caf\xe9".decode, "not UTF-8 (0xe9 at byte 3)"),
        ("caf\udce9".encode, r"'caf\udce9' is not UTF-8"),
        (lambda: "é".encode("ascii"), "cannot be written in ascii"),
        (lambda: np.empty(1 << 50), "not enough memory"),
        (lambda: httpx.get("http://127.0.0.1:9", trust_env=False), "the network fails"),
    ],
)
def test_what_libraries_raise_becomes_one_line(action: Callable[[], object], said: str) -> None:
    error = as_user_error(raised(action), "PLACE")
    assert isinstance(error, UserError)
    assert str(error).startswith("PLACE: ")
    assert said in str(error)
    assert "; " in str(error), "a way out"
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "I/O error: No space left on device (os error 28)",
        "Error in write_index\nError: write error in x: 1 != 2 (No space left on device)",
    ],
)
def test_what_other_languages_write_of_a_full_disk_is_known(text: str) -> None:
    error = RuntimeError(text)
    assert system_number(error) == errno.ENOSPC
    told = str(as_user_error(error, "/data/index"))
    assert "No space left" in told
    assert told.endswith("free space or name a place on another disk, then run the command again")


@pytest.mark.parametrize(
    "text",
    [  # of torch 2.13 on /dev/full: a small tensor, a large one
        "basic_ios::clear: iostream error",
        "[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598",
    ],
)
def test_what_torch_says_where_a_file_cannot_be_written_on_is_known(text: str) -> None:
    told = str(as_user_error(RuntimeError(text), "/data/state.pt"))
    assert told.startswith("/data/state.pt: cannot be written to its end, as on a full disk (")
    assert told.endswith("free space or name a place on another disk, then run the command again")


@pytest.mark.parametrize("error", [ValueError("shapes"), KeyError("x"), RuntimeError("no"), TypeError()])
def test_a_defect_stays_what_it_is(error: Exception) -> None:
    assert as_user_error(error) is None
    with pytest.raises(type(error)), translated("PLACE"):
        raise error


def test_a_temporary_stands_for_its_place_and_the_cause_is_kept(tmp_path: Path) -> None:
    temporary = tmp_path / "none" / "hidden"
    with pytest.raises(StorageError) as caught, translated("PLACE", "mend it", hidden=[str(temporary)]):
        temporary.write_bytes(b"")
    assert str(caught.value) == "PLACE: No such file or directory; mend it"
    assert isinstance(caught.value.__cause__, FileNotFoundError)
