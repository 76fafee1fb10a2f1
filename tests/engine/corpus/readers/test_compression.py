"""Compressed sources: read by their content, and never published where they are cut off."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.corpus.readers.json_stream import lines
from engine.errors import FormatError
from engine.storage.store import Store
from tests.support.corpora import jsonl, run_import, ultrawiki

ROWS = b"".join(b'{"entity": "iron", "sentence": "Iron number %d."}\n' % i for i in range(300))


def by_arrow(codec: str) -> Callable[[bytes], bytes]:
    def compress(content: bytes) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, codec) as stream:
            stream.write(content)
        return sink.getvalue().to_pybytes()

    return compress


CODECS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": by_arrow("zstd"),
    "lz4": by_arrow("lz4"),
}


@pytest.mark.parametrize("ending", CODECS)
def test_lines_are_read_beside_plain_ones(tmp_path: Path, ending: str) -> None:
    jsonl(tmp_path / "raw/sentences/a.jsonl", [{"entity": "gold", "sentence": "Gold."}])
    (tmp_path / f"raw/sentences/b.jsonl.{ending}").write_bytes(CODECS[ending](ROWS))
    got = run_import(tmp_path / "w", tmp_path / "raw", "jsonl")
    assert len(got.mentions) == 301
    assert not got.quarantine
    (tmp_path / "s.jsonl").write_bytes(CODECS[ending](ROWS[:60]) + CODECS[ending](ROWS[60:]))
    assert len(run_import(tmp_path / "v", tmp_path / "s.jsonl", "jsonl").mentions) == 300


@pytest.mark.parametrize("ending", CODECS)
def test_one_that_is_cut_off_is_not_published(tmp_path: Path, ending: str) -> None:
    jsonl(tmp_path / "raw/sentences/a.jsonl", [{"entity": "gold", "sentence": "Gold."}])
    file = tmp_path / f"raw/sentences/b.jsonl.{ending}"
    for content in (CODECS[ending](ROWS)[:-12], b""):
        file.write_bytes(content)
        with pytest.raises(FormatError, match=rf"sentences/b.jsonl.{ending}, line \d+, byte \d+: .*cut off"):
            run_import(tmp_path / "w", tmp_path / "raw", "jsonl")
    assert not (tmp_path / "w/corpus").exists()
    got = run_import(tmp_path / "w", tmp_path / "raw", "jsonl", accept_broken_files=True)
    assert (got.manifest.counts.mentions, got.manifest.counts.files_broken) == (1, 1)


def test_what_stands_before_the_end_of_a_file_that_is_cut_off_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl.gz").write_bytes(gzip.compress(ROWS)[:-12])
    got = run_import(tmp_path / "w", tmp_path / "s.jsonl.gz", "jsonl", accept_broken_files=True)
    assert 200 < len(got.mentions) <= 300
    [(position, reason)] = got.reasons
    assert position.startswith(f"line {len(got.mentions) + 1}, ")
    assert reason == "the compressed file ends too early: it is cut off"


def test_one_that_is_broken_inside(tmp_path: Path) -> None:
    packed = gzip.compress(ROWS)
    (tmp_path / "s.jsonl.gz").write_bytes(packed + b"more")
    with pytest.raises(FormatError, match=r"s.jsonl.gz, line \d+, byte \d+: cannot be unpacked from here on"):
        run_import(tmp_path / "w", tmp_path / "s.jsonl.gz", "jsonl")
    (tmp_path / "s.jsonl").write_bytes(b"PK\3\4 and so on")
    with pytest.raises(FormatError, match="a zip archive, which may hold several files; unpack it first"):
        run_import(tmp_path / "w", tmp_path / "s.jsonl", "jsonl")
    for form in ("jsonl", "parquet"):
        (tmp_path / f"s.{form}").write_bytes(
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
        )
        with pytest.raises(FormatError, match="a pointer of Git LFS, not the file; run `git lfs pull`"):
            run_import(tmp_path / "w", tmp_path / f"s.{form}", form)


def test_a_layout_of_compressed_files(tmp_path: Path) -> None:
    source = ultrawiki(tmp_path / "raw", {"iron": ["Iron."]}, ent2text={"iron": "A metal.", "BZh91": "x"})
    for file in list(source.iterdir()):
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    got = run_import(tmp_path / "w", source, "ultrawiki")
    assert got.entities[0]["description"] == "A metal."
    packed = (source / "ent2sents.json.gz").read_bytes()
    (source / "ent2sents.json.gz").write_bytes(packed[:-6])
    with pytest.raises(
        FormatError, match=r"ent2sents.json, at its beginning: the compressed file ends too early"
    ):
        run_import(tmp_path / "v", source, "ultrawiki")


@given(
    st.lists(st.sampled_from([b"", b"a", b"bb", b"ccc", b"\r"]), max_size=12),
    st.booleans(),
    st.lists(st.integers(0, 30), max_size=4),
)
def test_pieces_of_a_file_have_every_line_once(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], ended: bool, cuts: list[int]
) -> None:
    content = b"\n".join(parts) + (b"\n" if ended else b"")
    file = tmp_path_factory.mktemp("lines") / "a.txt"
    file.write_bytes(content)
    store = Store.open(file)
    places = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    found = [(line.offset, line.content) for span in pairwise(places) for line in lines(store, span)]
    assert found == [(line.offset, line.content) for line in lines(store)]
