"""Pictures in files to 8 bits per channel, whatever mode they are stored in."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "MPO", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "AVIF")  # no EPS: it would start another program
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF


def readable_suffixes() -> frozenset[str]:
    """The suffixes of files that are read as pictures here, as far as this Pillow can.

    Example:
      >>> sorted({".png", ".JPG", ".jpeg", ".webp", ".tiff", ".bmp", ".pdf", ".txt"} & readable_suffixes())
      ['.bmp', '.jpeg', '.png', '.tiff', '.webp']
    """
    from PIL import Image

    return frozenset(suffix for suffix, form in Image.registered_extensions().items() if form in open_formats())


def open_formats() -> tuple[str, ...]:
    """Those of :data:`FORMATS` that this Pillow can open."""
    from PIL import Image

    Image.init()
    return tuple(form for form in FORMATS if form in Image.OPEN)


def decode_image(encoded: bytes, channels: int, image_size: int | None = None) -> np.ndarray:
    """Decode a picture to uint8 ``[H, W, C]`` with 1, 3 or 4 channels.

    With ``image_size`` the shorter side is resized to it (bilinear) and the middle square is cut out.

    Example:
      >>> import io
      >>> from PIL import Image
      >>> buffer = io.BytesIO()
      >>> Image.new("L", (6, 4), 7).save(buffer, "PNG")
      >>> decode_image(buffer.getvalue(), 1).shape, decode_image(buffer.getvalue(), 3, image_size=2).tolist()[0][0]
      ((4, 6, 1), [7, 7, 7])
    """
    from PIL import Image

    with Image.open(io.BytesIO(encoded), formats=open_formats()) as picture:
        image = eight_bits(picture)
        image = image if image.mode == _MODES[channels] else image.convert(_MODES[channels])
        if image_size is not None:
            scale = image_size / min(image.size)
            width, height = (max(image_size, round(side * scale)) for side in image.size)
            left, top = (width - image_size) // 2, (height - image_size) // 2
            image = image.resize((width, height), Image.Resampling.BILINEAR)
            image = image.crop((left, top, left + image_size, top + image_size))
        pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def eight_bits(picture: Image.Image) -> Image.Image:
    """The picture in a mode of 8 bits that converts to L, RGB and RGBA as it looks.

    Grey values of 16 bits (of 12 in a TIFF) are scaled, 65535 to 255, where Pillow's own conversion cuts off all above 255. A
    palette is looked up, and CMYK becomes RGB. Transparent pixels show the colour that is stored under them, as in every common
    loader.

    Args:
      picture: an open picture.

    Returns:
      A picture of mode 1, L, LA, RGB or RGBA.

    Raises:
      ValueError: a mode whose values have no known white (F, 32-bit I, signed 16-bit), or LAB.

    Example:
      >>> from PIL import Image
      >>> ramp = Image.fromarray(np.linspace(0, 65535, 8).astype(np.uint16)[None])
      >>> np.asarray(eight_bits(ramp)).tolist()
      [[0, 36, 73, 109, 146, 182, 219, 255]]
    """
    mode = picture.mode
    if mode in ("1", "L", "LA", "RGB", "RGBA"):
        return picture
    if mode.startswith("I") or mode == "F":
        return _scaled(picture)
    if mode == "La":
        return picture.convert("LA")
    if mode == "LAB":
        raise ValueError("it holds LAB colours: save it as RGB")
    return picture.convert("RGBA" if mode in ("PA", "RGBa") or "transparency" in picture.info else "RGB")


def is_grey(picture: Image.Image) -> bool:
    """Whether one channel holds all of it.

    Example:
      >>> from PIL import Image
      >>> [is_grey(Image.new(mode, (1, 1))) for mode in ("1", "L", "LA", "I;16", "P", "RGB")]
      [True, True, True, True, False, False]
    """
    return picture.mode in ("1", "L", "LA", "La", "F") or picture.mode.startswith("I")


def is_transparent(picture: Image.Image) -> bool:
    """Whether any pixel of it lets something through.

    Example:
      >>> from PIL import Image
      >>> is_transparent(Image.new("RGBA", (1, 1), (9, 9, 9, 255))), is_transparent(Image.new("LA", (1, 1), (9, 0)))
      (False, True)
    """
    has_alpha = picture.mode in ("LA", "La", "PA", "RGBa", "RGBA") or "transparency" in picture.info
    if not has_alpha or picture.mode.startswith("I"):
        return False
    least, _ = picture.convert("LA" if picture.mode == "La" else "RGBA").getchannel("A").getextrema()
    return least < 255  # type: ignore[operator]  # of one channel: (least, most)


def png_bytes(picture: Image.Image) -> bytes:
    """The picture as a PNG file of 8 bits per channel."""
    buffer = io.BytesIO()
    eight_bits(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _scaled(picture: Image.Image) -> Image.Image:
    from PIL import Image

    tags = getattr(picture, "tag_v2", {}) if picture.format == "TIFF" else {}
    white = _white(picture, tags)
    values = np.asarray(picture).astype(np.int64)
    if np.any((values < 0) | (values > white)):
        raise ValueError(f"it holds values from {values.min()} to {values.max()}, where 0 is black and {white} white")
    grey = ((values * 255 + white // 2) // white).astype(np.uint8)  # rounded, exactly
    return Image.fromarray(255 - grey if tags.get(_PHOTOMETRIC) == 0 else grey)


def _white(picture: Image.Image, tags: Mapping[int, Any]) -> int:
    if picture.mode.startswith("I;16"):
        return 2 ** int(tags.get(_BITS_PER_SAMPLE, (16,))[0]) - 1
    if picture.mode == "I" and picture.format in ("PPM", "PNG"):  # 16 bits in a wider mode; Pillow scales a PGM to them
        return 65535
    raise ValueError(f"it holds values of mode {picture.mode}, whose white is not known: save it in 8 or 16 bits without a sign")
