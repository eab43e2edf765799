"""Where alone an attack may change images, as the command line says it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bap_jax.errors import SettingError

if TYPE_CHECKING:
    import numpy as np

_EXPECTED = "patch:TOP,LEFT,HEIGHT,WIDTH or frame:WIDTH in whole pixels, or a .npy file with a mask of bools"


def check_region(region: str) -> tuple[str, tuple[int, ...]]:
    """What kind of region it is, and its numbers; a file has none.

    Raises:
      SettingError: it is none.

    Example:
      >>> check_region("patch:2,3,4,5"), check_region("frame:1")
      (('patch', (2, 3, 4, 5)), ('frame', (1,)))
    """
    kind, colon, told = region.partition(":")
    lengths = {"patch": 4, "frame": 1}
    if region.endswith(".npy"):
        if not Path(region).is_file():
            raise SettingError("--region", region, "a file that is there")
        return "file", ()
    numbers = told.split(",")
    if not colon or kind not in lengths or len(numbers) != lengths[kind] or not all(one.strip().isdigit() for one in numbers):
        raise SettingError("--region", region, _EXPECTED)
    return kind, tuple(int(one) for one in numbers)


def region_name(region: str) -> str:
    """A region as a part of an attack's name.

    Example:
      >>> region_name("patch:2,3,4,5"), region_name("masks/face.npy")
      ('patch.2.3.4.5', 'region.face')
    """
    return f"region.{Path(region).stem}" if region.endswith(".npy") else region.replace(":", ".").replace(",", ".")


def region_mask(region: str, image_shape: tuple[int, ...]) -> np.ndarray:
    """The mask, True where images may change.

    Args:
      region: as :func:`check_region` takes it.
      image_shape: of one image, [H, W, C].

    Returns:
      bool [1, H, W, 1], or [1, H, W, C] of a file that tells channels apart.

    Raises:
      SettingError: a region that does not lie within the image or is empty, a file that holds no such mask, or images that are no
        pictures.

    Example:
      >>> region_mask("patch:0,1,2,1", (2, 3, 1))[0, ..., 0].astype(int).tolist()
      [[0, 1, 0], [0, 1, 0]]
      >>> int(region_mask("frame:1", (4, 4, 3)).sum())
      12
    """
    import numpy as np

    kind, numbers = check_region(region)
    if len(image_shape) != 3:
        raise SettingError("--region", region, f"none: images of shape {list(image_shape)} have no rows and columns")
    height, width, channels = image_shape
    mask = np.zeros((height, width, 1), bool)
    if kind == "file":
        try:
            stored = np.load(region, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise SettingError("--region", region, f"a .npy file with a mask of bools ({error})") from None
        if stored.dtype != bool or stored.shape not in ((height, width), (height, width, 1), (height, width, channels)):
            told = f"{stored.dtype}{list(stored.shape)}"
            raise SettingError("--region", f"{region}: {told}", f"bool[{height}, {width}] or bool[{height}, {width}, {channels}]")
        mask = stored.reshape(height, width, -1)
    elif kind == "patch":
        top, left, rows, columns = numbers
        if top + rows > height or left + columns > width:
            raise SettingError("--region", region, f"a patch within images of {height} rows and {width} columns")
        mask[top : top + rows, left : left + columns] = True
    else:
        inner = slice(numbers[0], height - numbers[0]), slice(numbers[0], width - numbers[0])
        mask[:] = True
        mask[inner] = False
    if not mask.any():
        raise SettingError("--region", region, "a region with at least one pixel")
    return mask[None]
