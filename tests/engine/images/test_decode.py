import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from engine.images import decode as decoding
from engine.images.decode import UnusableImageError, check, decode


def scene(width: int, height: int) -> Image.Image:
    """A smooth picture whose four corners differ: red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 90)], axis=2).astype(np.uint8))


def saved(picture: Image.Image, form: str, **settings: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **settings)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and holds none."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (body, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


FRAMES: dict[str, Any] = {"save_all": True, "append_images": [Image.new("RGB", (8, 8), "blue")]}
RED = Image.new("RGB", (8, 8), "red")
REFUSED = {
    "the file is empty": b"",
    "not an image in a known format": b"<svg>no picture</svg>",
    "9000 x 9000 pixels, more than 64000000": png_header(9000, 9000),
    "more than 64000000 pixels": png_header(60000, 60000),
    "more than 32 MiB": b"\xff\xd8" + bytes(32 << 20),
    "animated: several images in one": saved(RED, "GIF", **FRAMES),
    "animated": saved(RED, "WEBP", **FRAMES),
    "animated: several": saved(RED, "PNG", **FRAMES),
    "colours for print": saved(RED.convert("CMYK"), "JPEG"),
    "colours in mode 'I;16'": saved(Image.new("I;16", (8, 8)), "PNG"),
    "not an image in a known format (JPEG": saved(Image.new("F", (8, 8)), "TIFF"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_refused_by_its_header(reason: str) -> None:
    for step in (check, lambda content: decode(content, 8)):
        with pytest.raises(UnusableImageError) as refusal:
            step(REFUSED[reason])
        assert str(refusal.value).startswith(reason)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP"])
def test_a_truncated_file_passes_by_its_header_and_is_refused_when_decoded(form: str) -> None:
    whole = saved(scene(200, 150), form)
    half = whole[: len(whole) // 2]
    check(half)
    with pytest.raises(UnusableImageError, match=r"truncated|broken"):
        decode(half, 32)


def test_a_bomb_allocates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    for content in (png_header(9000, 9000), png_header(60000, 60000)):
        with pytest.raises(UnusableImageError):
            decode(content, 8)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_every_plain_mode_becomes_rgb(mode: str) -> None:
    picture = Image.new("RGB", (20, 10), "white").convert(mode)
    found = decode(saved(picture, "PNG"), 8)
    assert found.shape == (8, 8, 3)
    assert found.dtype == np.uint8
    assert (found == 255).all()


def test_the_resize_is_pillows_antialiased_bicubic() -> None:
    picture = scene(97, 61)
    expected = np.asarray(picture.resize((16, 16), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(decode(saved(picture, "PNG"), 16), expected)


def test_transparency_goes_on_white() -> None:
    clear = Image.new("RGBA", (10, 10), (255, 0, 0, 0))
    assert (decode(saved(clear, "PNG"), 4) == 255).all()
    half = Image.new("RGBA", (10, 10), (255, 0, 0, 128))
    np.testing.assert_allclose(decode(saved(half, "WEBP", lossless=True), 4)[0, 0], [255, 127, 127], atol=1)
    palette = Image.new("P", (10, 10), 3)
    assert (decode(saved(palette, "GIF", transparency=3), 4) == 255).all()
    grey = Image.new("LA", (10, 10), (0, 0))
    assert (decode(saved(grey, "PNG"), 4) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_exif_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(scene(40, 24), "PNG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    expected = np.asarray(upright.resize((8, 8), Image.Resampling.BICUBIC)).astype(int)
    np.testing.assert_allclose(decode(content, 8), expected, atol=1)


@pytest.mark.parametrize(
    ("form", "mode"), [("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA"), ("WEBP", "RGB"), ("WEBP", "RGBA")]
)
def test_a_photograph_is_turned_with_its_transparent_parts(form: str, mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: what is stored left is up
    content = saved(scene(40, 24).convert(mode), form, exif=exif, quality=95)
    plain = decode(saved(scene(40, 24).convert(mode), form, quality=95), 8)
    np.testing.assert_array_equal(decode(content, 8), np.rot90(plain, k=-1))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0nothing of a TIFF",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",  # its directory lies beyond the end
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\x01\0\0\0",  # it ends within an entry
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",  # orientation 99
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\0a\0\0\0\0\0\0\0",  # it is a letter
    ],
)
def test_exif_that_is_broken_does_not_lose_the_image(form: str, exif: bytes) -> None:
    found = decode(saved(scene(40, 24), form, exif=exif, quality=95), 8)
    np.testing.assert_array_equal(found, decode(saved(scene(40, 24), form, quality=95), 8))


def test_what_the_library_says_of_broken_exif_does_not_lose_the_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = decode(saved(RED, "PNG"), 8)

    def broken(*args: object, **settings: object) -> None:
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(ImageOps, "exif_transpose", broken)
    np.testing.assert_array_equal(decode(saved(RED, "PNG"), 8), plain)


def test_a_large_photograph_is_decoded_small(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(scene(1600, 1200), "JPEG", quality=95)
    sizes = []
    resize = Image.Image.resize

    def noted(self: Image.Image, *given: Any, **named: Any) -> Image.Image:
        sizes.append(self.size)
        return resize(self, *given, **named)

    monkeypatch.setattr(Image.Image, "resize", noted)
    found = decode(content, 64)
    assert sizes == [(200, 150)]
    expected = np.asarray(resize(scene(1600, 1200), (64, 64), Image.Resampling.BICUBIC)).astype(int)
    np.testing.assert_allclose(found, expected, atol=4)


def test_a_photograph_with_a_preview_in_it_is_one_picture() -> None:
    """Cameras write JPEGs with a second picture inside (MPO)."""
    content = saved(scene(40, 30), "MPO", save_all=True, append_images=[RED])
    assert abs(decode(content, 8)[0, -1].astype(int) - [239, 16, 90]).max() < 16


def test_the_limit_of_bytes_is_checked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_BYTES", 10)
    with pytest.raises(UnusableImageError, match="more than"):
        check(saved(RED, "PNG"))
