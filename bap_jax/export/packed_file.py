"""A file of packed tensors: the zeros of a pruned network left out, and a reader that puts them back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from bap_jax.errors import SettingError
from bap_jax.export.files import KEY, write_tensors
from bap_jax.export.packing import pack, unpack

_FORMAT = "packed"


def write_packed(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> bytes:
    """Write tensors in the forms of :func:`bap_jax.export.packing.pack`, whole or not at all.

    The same tensors give the same bytes.

    Args:
      path: where to; its folder must exist.
      tensors: numpy arrays by name.
      about: JSON values to keep in the file, without an entry ``format``.

    Returns:
      The bytes of the file, one of safetensors.

    Raises:
      SettingError: a name that holds a ``#``, or ``format`` in ``about``.
    """
    for name in tensors:
        if "#" in name:
            raise SettingError("tensors", name, "names without a #, which marks the parts of a packed tensor")
    if "format" in about:
        raise SettingError("about", "format", "other entries: this one says that the file is packed")
    return write_tensors(path, pack(tensors), {**about, "format": _FORMAT})


def read_packed(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors of :func:`write_packed`, with their zeros, and what was kept with them.

    Args:
      path: the file.

    Returns:
      Numpy arrays by name, of equal values, shapes and dtypes (a negative zero is a zero), and ``about``.

    Raises:
      SettingError: there is no such file, it is not whole, or it is not packed.

    Example:
      >>> import tempfile
      >>> path = tempfile.mkdtemp() + "/model.packed.safetensors"
      >>> _ = write_packed(path, {"weight": np.eye(16, dtype=np.float32)}, {"seed": 0})
      >>> tensors, about = read_packed(path)
      >>> bool((tensors["weight"] == np.eye(16)).all()), about
      (True, {'seed': 0})
    """
    if not Path(path).is_file():
        raise SettingError("path", str(path), "a file of write_packed")
    try:
        with safetensors.safe_open(str(path), "numpy") as file:
            about = json.loads((file.metadata() or {}).get(KEY, "{}"))
            packed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except (safetensors.SafetensorError, ValueError) as error:
        raise SettingError("path", str(path), f"a whole safetensors file ({error})") from None
    if not isinstance(about, dict) or about.pop("format", None) != _FORMAT:
        raise SettingError("path", str(path), "a packed file; read_tensors reads the others")
    try:
        return unpack(packed), about
    except (KeyError, ValueError, IndexError) as error:
        raise SettingError("path", str(path), f"a packed file with all its parts ({error})") from None
