from pathlib import Path

from engine.corpus.image_files import ImageHasher


def test_an_address_of_an_unknown_kind_is_refused_and_stops_nothing(tmp_path: Path) -> None:
    """The importer lets none through; a corpus may be older than that, or written by someone else."""
    sha256, reason = ImageHasher(str(tmp_path)).hashed("http://example.org/x.png")
    assert sha256 == ""
    assert "only local paths and s3://" in reason
