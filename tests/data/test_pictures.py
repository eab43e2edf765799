"""Pictures of every mode come as they look, in 8 bits, or are refused by what they are."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from bap_jax.data.pictures import decode_image, eight_bits, is_grey, is_transparent

RAMP = np.linspace(0, 65535, 8).astype(np.uint16).reshape(2, 4)
EIGHT = np.array([0, 36, 73, 109, 146, 182, 219, 255]).reshape(2, 4)


def encoded(picture, form, **options) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_of_grey_are_scaled(form):
    file = encoded(RAMP, form)
    assert Image.open(io.BytesIO(file)).mode in ("I;16", "I")
    np.testing.assert_array_equal(decode_image(file, 1)[..., 0], EIGHT)
    np.testing.assert_array_equal(decode_image(file, 3), np.repeat(EIGHT[..., None], 3, -1))
    assert decode_image(file, 1, image_size=2).shape == (2, 2, 1)


def test_every_value_of_sixteen_bits_is_rounded():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.floor(values * (255 / 65535) + 0.5)
    np.testing.assert_array_equal(np.asarray(eight_bits(Image.fromarray(values))), expected)


def tiff(values: np.ndarray, bits: int, photometric: int = 1) -> bytes:
    """A grey TIFF of any bit depth; Pillow itself writes no 12 bits and no white at zero."""
    flat = values.ravel()
    if bits == 12:
        pairs = flat.reshape(-1, 2).astype(int)
        raw = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], -1).astype(np.uint8)
        content = raw.tobytes()
    else:
        content = flat.astype("<u2").tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(content)}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\x00" + struct.pack("<I", 8 + len(content)) + content + struct.pack("<H", len(tags)) + directory + bytes(4)


def test_twelve_bits_and_white_at_zero_in_tiff():
    twelve = np.linspace(0, 4095, 8).astype(np.uint16).reshape(2, 4)
    np.testing.assert_array_equal(decode_image(tiff(twelve, 12), 1)[..., 0], EIGHT)
    np.testing.assert_array_equal(decode_image(tiff(RAMP, 16), 1)[..., 0], EIGHT)
    np.testing.assert_array_equal(decode_image(tiff(RAMP, 16, photometric=0), 1)[..., 0], 255 - EIGHT)


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (Image.fromarray(np.ones((2, 2), np.float32)), "mode F, whose white is not known: save it in 8 or 16 bits"),
        (Image.fromarray(np.ones((2, 2), np.int32)), "mode I, whose white is not known"),
        (Image.new("LAB", (2, 2)), "LAB colours: save it as RGB"),
    ],
)
def test_values_without_a_known_white_are_refused(picture, told):
    with pytest.raises(ValueError, match=told):
        decode_image(encoded(picture, "TIFF"), 1)


def palette(transparency) -> bytes:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putdata([0, 1])
    return encoded(picture, "PNG", transparency=transparency)


COLOURS = np.array([[[10, 20, 30], [200, 100, 50]]], np.uint8)


@pytest.mark.parametrize("transparency", [b"\x00\x80", 1])
def test_a_palette_is_looked_up_and_its_transparency_seen(transparency):
    """Pillow warns of palettes with several degrees of transparency; a warning is an error here."""
    file = palette(transparency)
    np.testing.assert_array_equal(decode_image(file, 3), COLOURS)
    assert decode_image(file, 1).tobytes() == Image.fromarray(COLOURS).convert("L").tobytes()
    assert is_transparent(Image.open(io.BytesIO(file))) and not is_grey(Image.open(io.BytesIO(file)))


def test_the_other_modes():
    grey = np.array([[0, 100], [200, 255]], np.uint8)
    with_alpha = np.stack([grey, np.full_like(grey, 255)], -1)
    np.testing.assert_array_equal(decode_image(encoded(with_alpha, "PNG"), 1)[..., 0], grey)  # LA
    np.testing.assert_array_equal(decode_image(encoded(grey > 100, "PNG"), 1)[..., 0], np.where(grey > 100, 255, 0))  # 1
    inks = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert decode_image(encoded(inks, "TIFF"), 3)[0, 0].tolist() == [255, 0, 0]
    np.testing.assert_allclose(decode_image(encoded(inks, "JPEG", quality=100), 3)[0, 0], [254, 0, 0], atol=3)
    for mode in ("La", "PA", "RGBa", "RGBX", "YCbCr", "HSV"):  # no file here has them, but eight_bits takes any picture
        made = eight_bits(Image.new(mode, (1, 1)))
        assert made.mode in ("LA", "RGB", "RGBA") and made.convert("L").mode == "L"


def test_opaque_pictures_are_not_transparent():
    colour = np.zeros((2, 2, 4), np.uint8)
    colour[..., 3] = 255
    assert not is_transparent(Image.fromarray(colour))
    colour[0, 0, 3] = 254
    assert is_transparent(Image.fromarray(colour))
    assert not is_transparent(Image.new("P", (1, 1))) and not is_transparent(Image.fromarray(RAMP))
    np.testing.assert_array_equal(decode_image(encoded(colour, "PNG"), 3), colour[..., :3])
    np.testing.assert_array_equal(decode_image(encoded(colour, "PNG"), 4), colour)
