"""Images that a bundle names: served if they are images, and nothing else of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from engine.catalogue import Catalogue, MentionSentence
from engine.storage.store import Store
from serve.http import explanations as explained
from serve.http.explanations import images_of, read_image
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


def test_each_image_has_an_address_once(catalogue: MakeCatalogue) -> None:
    held = catalogue(None, "a.png", "b.png", "a.png", "c.png").sentences([3], 8)[3]
    assert images_of(3, held) == ["/v1/images/3/0", "/v1/images/3/1", "/v1/images/3/2"]
    assert images_of(3, held[:2]) == ["/v1/images/3/0"], "the first are those of the first sentences"


def test_images_are_found_by_path_and_below_the_workspace(catalogue: MakeCatalogue, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "one.png").write_bytes(PNG)
    (tmp_path / "two").write_bytes(WEBP)
    known = catalogue("pictures/one.png", f"{tmp_path}/two", f"file://{tmp_path}/two")
    found = [read_image(known, str(tmp_path), 3, n) for n in range(3)]
    assert found == [(PNG, "image/png"), (WEBP, "image/webp"), (WEBP, "image/webp")]


def test_images_are_found_in_a_bucket(catalogue: MakeCatalogue, s3: str, tmp_path: Path) -> None:
    (Store.open(s3) / "one.png").write_bytes(PNG)
    assert read_image(catalogue(f"{s3}/one.png"), str(tmp_path), 3, 0) == (PNG, "image/png")
    assert read_image(catalogue("one.png"), s3, 3, 0) == (PNG, "image/png")
    assert read_image(catalogue(f"{s3}/two.png"), str(tmp_path), 3, 0) is None


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
    monkeypatch.setattr(explained, "MAX_IMAGE_BYTES", 100)
    (tmp_path / "page.html").write_bytes(b"<script>alert(1)</script>")
    (tmp_path / "large.png").write_bytes(PNG + bytes(100))
    assert read_image(catalogue(address), str(tmp_path), 3, 0) is None
    assert read_image(catalogue(address), str(tmp_path), 3, 1) is None
    assert read_image(catalogue(address), str(tmp_path), 4, 0) is None


def test_an_image_comes_with_its_type(
    catalogue: MakeCatalogue, make_service: MakeService, tmp_path: Path
) -> None:
    (tmp_path / "one.png").write_bytes(PNG)
    catalogue(str(tmp_path / "one.png"))
    client = TestClient(create_app(make_service()))
    assert client.get("/v1/entities/3").json()["images"] == ["/v1/images/3/0"]
    image = client.get("/v1/images/3/0")
    assert (image.content, image.headers["content-type"]) == (PNG, "image/png")
    assert image.headers["x-content-type-options"] == "nosniff"


def test_an_image_without_a_sentence_is_shown_and_no_empty_sentence(
    monkeypatch: pytest.MonkeyPatch, make_service: MakeService, tmp_path: Path
) -> None:
    (tmp_path / "one.png").write_bytes(PNG)
    held = [MentionSentence("", 0, 0, str(tmp_path / "one.png")), MentionSentence("A fact.", 0, 1, None)]
    monkeypatch.setattr(Catalogue, "sentences", lambda self, ids, n: {3: held[:n]} if 3 in ids else {})
    client = TestClient(create_app(make_service()))
    about = client.get("/v1/entities/3", params={"sentences": 1}).json()
    assert about["sentences"] == [{"text": "A fact.", "start": 0, "end": 1}]
    assert about["images"] == ["/v1/images/3/0"]
    assert client.get("/v1/images/3/0").content == PNG
