"""Decode the bytes of a file into a square RGB image, or refuse it with the reason.

The bytes come from anywhere, so what a file claims is checked before anything is decoded: its size, its
format, the pixels that its header promises, its colours. Knows nothing of where files lie.
"""

from __future__ import annotations

import io
import warnings
from contextlib import suppress

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from engine.corpus.image_addresses import MAX_BYTES
from engine.errors import UserError
from engine.refusals import Code, Refusal

Pixels = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
"""Formats that are tried. Pillow knows forty more, and each decoder is one more way in for a crafted file."""

MAX_PIXELS = 64_000_000

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_WHY_NOT = {"CMYK": "colours for print (CMYK), which have no one meaning in RGB"}

# Pillow warns from 89 million pixels on and refuses from 179 million: the limit here is below both.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class UnusableImageError(UserError):
    """A file that cannot be used as an image; raised with its :class:`~engine.refusals.Refusal`."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


def check(content: bytes) -> None:
    """Check all that can be known without decoding.

    Raises:
        UnusableImageError: empty, too large, not an image, too many pixels, animated, or in colours that are
            not taken (CMYK, 16 bits, floats).
    """
    _open(content)


def decode(content: bytes, side: int) -> Pixels:
    """Return an image squeezed to a square, uint8 [side, side, 3].

    The proportions are not kept: as in the paper (MESED, equation 3), every image fills the square. Bicubic
    with antialiasing; transparent parts are white; grey and palette become RGB; the orientation that EXIF
    names is applied.

    Args:
        content: the whole file.
        side: pixels.

    Raises:
        UnusableImageError: as :func:`check`, or what follows the header is truncated or broken.
    """
    image = _open(content)
    try:
        return _squared(image, side)
    except Exception as error:  # a decoder on hostile bytes raises whatever it likes
        kind = "truncated" if "truncated" in str(error) else "broken"
        raise UnusableImageError(Refusal(Code.IMAGE_BROKEN, f"{kind}: {error}")) from None


def _squared(image: Image.Image, side: int) -> Pixels:
    # A JPEG is decoded at a fraction of its size; twice the target leaves the filter enough to work with.
    image.draft(None, (2 * side, 2 * side))
    image.load()
    if image.has_transparency_data:
        small = _resized(image.convert("RGBA"), side)
        square = Image.new("RGBA", small.size, "white")
        square.alpha_composite(small)
    else:
        square = _resized(image if image.mode in ("L", "RGB") else image.convert("RGB"), side)
    # After the squeeze: to turn a square is the same, and cheaper than to turn the photograph.
    square.info = image.info
    with suppress(Exception):  # EXIF that cannot be read turns nothing
        ImageOps.exif_transpose(square, in_place=True)
    return np.asarray(square.convert("RGB"))


def _resized(image: Image.Image, side: int) -> Image.Image:
    return image.resize((side, side), Image.Resampling.BICUBIC)


def _open(content: bytes) -> Image.Image:
    """Return the image with its header read and checked, nothing decoded."""
    if not content:
        raise UnusableImageError(Refusal(Code.IMAGE_EMPTY, "the file is empty"))
    if len(content) > MAX_BYTES:
        raise UnusableImageError(Refusal(Code.IMAGE_TOO_LARGE, f"more than {MAX_BYTES >> 20} MiB"))
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        animated = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
    except Image.DecompressionBombError:
        raise UnusableImageError(Refusal(Code.IMAGE_TOO_LARGE, f"more than {MAX_PIXELS} pixels")) from None
    except Exception:  # a decoder on hostile bytes raises whatever it likes
        reason = f"not an image in a known format ({', '.join(FORMATS)})"
        raise UnusableImageError(Refusal(Code.IMAGE_FORMAT, reason)) from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        reason = f"{width} x {height} pixels, more than {MAX_PIXELS}"
        raise UnusableImageError(Refusal(Code.IMAGE_TOO_LARGE, reason))
    if animated:
        raise UnusableImageError(Refusal(Code.IMAGE_ANIMATED, "animated: several images in one"))
    if image.mode not in _MODES:
        reason = _WHY_NOT.get(image.mode, f"colours in mode {image.mode!r}, not 8 bits RGB")
        raise UnusableImageError(Refusal(Code.IMAGE_COLOURS, reason))
    return image
