import os
from pathlib import Path

import pytest

from engine.images.fetch import ImageHasher
from engine.refusals import Code, Refusal


def test_an_address_of_an_unknown_kind_is_refused_and_stops_nothing(tmp_path: Path) -> None:
    """The importer lets none through; a corpus may be older than that, or written by someone else."""
    sha256, refusal = ImageHasher(str(tmp_path)).hashed("http://example.org/x.png")
    assert sha256 == ""
    assert refusal is not None
    assert refusal.code is Code.IMAGE_ADDRESS
    assert "only local paths and s3://" in refusal.detail


@pytest.mark.timeout(20)
def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    hasher = ImageHasher(str(tmp_path / "w"))
    irregular = Refusal(Code.IMAGE_UNREADABLE, "cannot be read: not a regular file")
    for name in ("pipe.png", "folder.png", "link.png"):
        assert hasher.hashed(str(tmp_path / name)) == ("", irregular)
    missing = Refusal(Code.IMAGE_MISSING, "missing: no such file")
    assert hasher.hashed(str(tmp_path / "none.png")) == ("", missing)
