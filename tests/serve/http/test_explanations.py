"""Images that a bundle names: served if they are images, and nothing else of this machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from engine.catalogue.entities import Catalogue
from engine.catalogue.sentences import MentionSentence
from engine.storage.bundle import Bundle
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from serve.http import images as module
from serve.http.images import ImageAddresses, read_image
from serve.http.routes import create_app
from tests.support.services import MakeService

PNG = b"\x89PNG\r\n\x1a\n rest"
WEBP = b"RIFF\0\0\0\0WEBP rest"

MakeCatalogue = Callable[..., Catalogue]


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> MakeCatalogue:
    """Returns a catalogue in which entity 3 has sentences with the given images."""

    def make(*images: str | None) -> Catalogue:
        held = [MentionSentence(f"Sentence {n}.", 0, 1, image) for n, image in enumerate(images)]
        monkeypatch.setattr(Catalogue, "sentences", lambda self, ids, n: {3: held[:n]} if 3 in ids else {})
        return Catalogue.__new__(Catalogue)

    return make


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read(catalogue: Catalogue, workspace: object, entity: int, n: int) -> tuple[bytes, str] | None:
    found = read_image(catalogue, Workspace.open(str(workspace)), entity, n)
    if found is None:
        return None
    assert found.sha256 == sha256(found.content)
    return found.content, found.media_type


def test_each_image_has_an_address_once_with_the_digest_of_its_content(
    catalogue: MakeCatalogue, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.png").write_bytes(WEBP)
    stored = f"corpus/images/{sha256(b'x')}.png"
    held = catalogue(None, "a.png", "b.png", "a.png", stored, "no.png").sentences([3], 8)[3]
    addresses = ImageAddresses(Workspace.open(tmp_path), "B")
    expected = [
        f"/v1/images/3/0?sha256={sha256(PNG)}",
        f"/v1/images/3/1?sha256={sha256(WEBP)}",
        f"/v1/images/3/2?sha256={sha256(b'x')}",
        "/v1/images/3/3?bundle=B",
    ]
    assert addresses.of(3, held) == expected
    assert addresses.of(3, held[:2]) == expected[:1], "the first are those of the first sentences"
    (tmp_path / "a.png").write_bytes(WEBP)
    os.utime(tmp_path / "a.png", ns=(1, 1))
    assert addresses.of(3, held)[0] == f"/v1/images/3/0?sha256={sha256(WEBP)}", (
        "another content, another address"
    )


def test_digests_do_not_read_without_end(
    catalogue: MakeCatalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(PNG + name.encode())
    monkeypatch.setattr(module, "HASHED_BYTES", 2 * len(PNG) + 2)
    held = catalogue("a", "b", "c").sentences([3], 8)[3]
    addresses = ImageAddresses(Workspace.open(tmp_path), "B").of(3, held)
    assert [one.partition("?")[2].partition("=")[0] for one in addresses] == ["sha256", "sha256", "bundle"]


def test_images_are_found_by_path_and_below_the_workspace(catalogue: MakeCatalogue, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "one.png").write_bytes(PNG)
    (tmp_path / "two").write_bytes(WEBP)
    known = catalogue("pictures/one.png", f"{tmp_path}/two", f"file://{tmp_path}/two")
    found = [read(known, tmp_path, 3, n) for n in range(3)]
    assert found == [(PNG, "image/png"), (WEBP, "image/webp"), (WEBP, "image/webp")]


def test_images_are_found_in_a_bucket(catalogue: MakeCatalogue, s3: str, tmp_path: Path) -> None:
    (Store.open(s3) / "one.png").write_bytes(PNG)
    known = catalogue(f"{s3}/one.png")
    assert read(known, tmp_path, 3, 0) == (PNG, "image/png")
    addresses = ImageAddresses(Workspace.open(tmp_path), "B").of(3, known.sentences([3], 8)[3])
    assert addresses == ["/v1/images/3/0?bundle=B"], "a digest would take reading it"
    assert read(catalogue("one.png"), s3, 3, 0) == (PNG, "image/png")
    assert read(catalogue(f"{s3}/two.png"), tmp_path, 3, 0) is None


@pytest.mark.parametrize(
    "address",
    [
        "/etc/passwd",
        "missing.png",
        ".",
        "page.html",
        "http://example.org/a.png",
        "s3://",
        "large.png",
        "a\0b",
    ],
)
def test_what_is_no_image_is_not_served(
    catalogue: MakeCatalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(module, "MAX_IMAGE_BYTES", 100)
    (tmp_path / "page.html").write_bytes(b"<script>alert(1)</script>")
    (tmp_path / "large.png").write_bytes(PNG + bytes(100))
    assert read(catalogue(address), tmp_path, 3, 0) is None
    assert read(catalogue(address), tmp_path, 3, 1) is None
    assert read(catalogue(address), tmp_path, 4, 0) is None


def test_an_image_comes_with_its_type_and_what_is_kept_of_it_is_always_right(
    catalogue: MakeCatalogue, make_service: MakeService, tmp_path: Path, bundle: Bundle
) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(PNG)
    catalogue(str(path))
    client = TestClient(create_app(make_service()))
    (address,) = client.get("/v1/entities/entity 3").json()["images"]
    assert address == f"/v1/images/3/0?sha256={sha256(PNG)}"
    image = client.get(address)
    assert (image.content, image.headers["content-type"]) == (PNG, "image/png")
    assert image.headers["x-content-type-options"] == "nosniff"
    assert "immutable" in image.headers["cache-control"]

    plain = client.get("/v1/images/3/0", params={"bundle": bundle.id})
    assert (plain.content, plain.headers["cache-control"]) == (PNG, "private, no-cache")
    known = {"if-none-match": plain.headers["etag"]}
    assert client.get("/v1/images/3/0", headers=known).status_code == 304

    path.write_bytes(WEBP)
    assert client.get("/v1/images/3/0", headers=known).content == WEBP
    changed = client.get(address)
    assert (changed.status_code, changed.json()["error"]["field"]) == (404, "sha256")
    other = client.get("/v1/images/3/0", params={"bundle": "0123456789abcdef"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "other_bundle")
    for wrong in ("sha256=x", f"sha256={sha256(PNG).upper()}", "bundle="):
        assert client.get(f"/v1/images/3/0?{wrong}").status_code == 422


def test_an_image_without_a_sentence_is_shown_and_no_empty_sentence(
    monkeypatch: pytest.MonkeyPatch, make_service: MakeService, tmp_path: Path
) -> None:
    (tmp_path / "one.png").write_bytes(PNG)
    held = [MentionSentence("", 0, 0, str(tmp_path / "one.png")), MentionSentence("A fact.", 0, 1, None)]
    monkeypatch.setattr(Catalogue, "sentences", lambda self, ids, n: {3: held[:n]} if 3 in ids else {})
    client = TestClient(create_app(make_service()))
    about = client.get("/v1/entities/entity 3", params={"sentences": 1}).json()
    assert about["sentences"] == [{"text": "A fact.", "start": 0, "end": 1}]
    (address,) = about["images"]
    assert client.get(address).content == PNG
