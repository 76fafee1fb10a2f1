"""Images of contexts in tables: addresses that can be opened, bytes that are written once."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.corpus.image_addresses import address_in, fault_of_address
from engine.corpus.importing import images as pictures
from engine.corpus.importing.images import kind_of
from engine.corpus.readers.base import Sentence
from engine.corpus.readers.table_files import find_tables
from engine.corpus.readers.tables import TableReader
from engine.errors import FormatError, StorageError
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from tests.support.corpora import Imported, jsonl, parquet, run_import

PNG, JPG = b"\x89PNG\r\n\x1a\n one", b"\xff\xd8\xff two"
IRON = {"entity": "iron", "sentence": "Iron is heavy."}


def named(content: bytes, kind: str) -> str:
    return f"corpus/images/{hashlib.sha256(content).hexdigest()}.{kind}"


def imported(tmp_path: Path, *rows: object) -> Imported:
    return run_import(tmp_path / "w", jsonl(tmp_path / "raw/sentences.jsonl", list(rows)), "jsonl")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (PNG, "png"),
        (JPG, "jpg"),
        (b"GIF87a", "gif"),
        (b"GIF89a", "gif"),
        (b"RIFF\0\0\0\0WEBP", "webp"),
        (b"RIFF\0\0\0\0WAVE", "bin"),
        (b"BM", "bmp"),
        (b"II*\0", "tif"),
        (b"MM\0*", "tif"),
        (b"<svg>", "bin"),
        (b"", "bin"),
    ],
)
def test_the_kind_is_told_by_the_first_bytes(content: bytes, kind: str) -> None:
    assert kind_of(content) == kind


@pytest.mark.parametrize(
    ("image", "address"),
    [
        ("a.jpg", "/data/raw/a.jpg"),
        ("./deep/../a b.jpg", "/data/raw/a b.jpg"),
        ("../a.jpg", "/data/a.jpg"),
        ("/x/a.jpg", "/x/a.jpg"),
        ("file:///x/a.jpg", "/x/a.jpg"),
        ("s3://bucket/a.jpg", "s3://bucket/a.jpg"),
    ],
)
def test_a_relative_path_lies_below_the_folder_that_names_it(image: str, address: str) -> None:
    local = Store.open("/data/raw")
    assert address_in(local, image) == address
    assert fault_of_address(address) is None
    bucket = Store(local.fs, "bucket/raw", False)  # no bucket is asked
    assert address_in(bucket, "image/a.jpg") == "s3://bucket/raw/image/a.jpg"


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("http://example.org/a.jpg", "'http://example.org/a.jpg' is no path and no s3:// address"),
        ("a\0b", "holds a control character, U+0000"),
        ("a\tb", "holds a tab or a line break"),
        ("x" * 5000, "longer than 4096 characters"),
    ],
)
def test_an_image_that_cannot_be_named_is_a_refused_detail(tmp_path: Path, image: str, reason: str) -> None:
    got = imported(tmp_path, {**IRON, "image": image}, {"entity": "iron", "image": image})
    assert [(m["sentence"], m["image"]) for m in got.mentions] == [("Iron is heavy.", None)]
    assert got.reasons == [("line 1, byte 0", f"image {reason}"), (got.reasons[1][0], f"image {reason}")]
    assert (got.manifest.counts.details_refused, got.manifest.counts.refused) == (1, 1)


def test_bytes_are_written_once_and_published_with_the_corpus(tmp_path: Path) -> None:
    png, jpg = (base64.b64encode(content).decode() for content in (PNG, JPG))
    got = imported(
        tmp_path,
        {**IRON, "image_bytes": png},
        {"entity": "gold", "image_bytes": f"{png[:5]}\n{png[5:]}"},
        {**IRON, "image_bytes": jpg},
        {**IRON, "image_bytes": png},
        {**IRON, "image_bytes": ""},
    )
    png_at, jpg_at = named(PNG, "png"), named(JPG, "jpg")
    assert [tuple(m.values()) for m in got.mentions] == [
        (0, "Iron is heavy.", 0, 4, png_at),
        (1, "", 0, 0, png_at),
        (0, "Iron is heavy.", 0, 4, jpg_at),
        (0, "Iron is heavy.", 0, 4, None),
    ]
    workspace = Workspace.open(tmp_path / "w")
    assert {f.name for f in (workspace.corpus / "images").files()} == {Path(p).name for p in (png_at, jpg_at)}
    assert workspace.image(png_at).read_bytes() == PNG
    assert [r for _, r in got.reasons] == ["duplicate sentence"]
    assert got.manifest.counts.images == 3
    assert got.manifest.found["an image alone"] == 1


def test_bytes_in_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_BYTES", 20)
    parquet(
        tmp_path / "raw/sentences.parquet",
        entity=["iron"] * 20,
        image_bytes=pa.array([*[PNG + bytes([i]) for i in range(18)], PNG + bytes(20), None], pa.binary()),
        sentence=[*[None] * 17, "Iron.", "Iron two.", None],
    )
    got = run_import(tmp_path / "w", tmp_path / "raw", "parquet")
    assert [m["image"] for m in got.mentions[:18]] == [named(PNG + bytes([i]), "png") for i in range(18)]
    assert tuple(got.mentions[18].values()) == (0, "Iron two.", 0, 4, None)
    assert got.reasons[0][0] == "row 18"
    assert got.reasons[0][1].startswith("image_bytes are more than")
    assert got.reasons[1] == ("row 19", "neither a sentence nor an image")


@pytest.mark.parametrize("layout", [{"row_group_size": 16}, {"write_batch_size": 8}])
def test_a_table_of_pictures_is_never_in_memory_whole(tmp_path: Path, layout: dict[str, int]) -> None:
    """32 MiB of pictures in many row groups, and in many pages of a single one."""
    content = [bytes([i]) * (128 << 10) for i in range(256)]
    columns = {"entity": ["iron"] * 256, "image_bytes": pa.array(content, pa.binary())}
    path = tmp_path / "s.parquet"
    pq.write_table(pa.table(columns), path, compression=None, use_dictionary=False, **layout)
    del columns
    before, most = pa.total_allocated_bytes(), 0
    found = TableReader(find_tables(str(path))).sentences()
    for one, expected in zip(found, content, strict=True):
        assert isinstance(one, Sentence)
        assert one.image_bytes == expected
        most = max(most, pa.total_allocated_bytes() - before)
    assert 0 < most < 16 << 20


def test_a_table_of_images_alone_needs_no_sentences(tmp_path: Path) -> None:
    parquet(tmp_path / "raw/sentences.parquet", entity=["iron"], image=["a.jpg"])
    got = run_import(tmp_path / "w", tmp_path / "raw", "parquet")
    assert [tuple(m.values()) for m in got.mentions] == [(0, "", 0, 0, f"{tmp_path}/raw/a.jpg")]
    parquet(tmp_path / "other/sentences.parquet", entity=["iron"])
    with pytest.raises(FormatError, match=r"no column sentence \(found: entity\)"):
        run_import(tmp_path / "v", tmp_path / "other", "parquet")


def test_base64_that_is_broken_leaves_the_sentence(tmp_path: Path) -> None:
    got = imported(tmp_path, {**IRON, "image_bytes": "é!"}, {**IRON, "image_bytes": "QQ"})
    assert [m["image"] for m in got.mentions] == [None]
    assert [r.split(" (")[0] for _, r in got.reasons] == [
        "image_bytes are not base64",
        "image_bytes are not base64",
        "duplicate sentence",
    ]
    assert [q["record"] for q in got.quarantine][:2] == ["é!", "QQ"]
    assert not (tmp_path / "w/corpus/images").exists()


def test_an_address_is_opened_below_the_workspace_or_where_it_says(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    assert workspace.image("corpus/images/a.png").path == f"{tmp_path}/corpus/images/a.png"
    assert workspace.image("/x/a.png").path == "/x/a.png"
    with pytest.raises(StorageError, match="only local paths and s3://"):
        workspace.image("http://example.org/a.png")
