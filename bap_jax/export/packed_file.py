"""A file of packed tensors: the zeros of a pruned network left out, and a reader that puts them back."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from bap_jax.atomic import json_text
from bap_jax.errors import SettingError
from bap_jax.export.files import KEY, write_tensors
from bap_jax.export.packing import pack, unpack

_FORMAT, _DIGEST = "packed", "sha256"


def write_packed(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> bytes:
    """Write tensors in the forms of :func:`bap_jax.export.packing.pack`, whole or not at all.

    The same tensors give the same bytes.

    A digest of the packed tensors and of ``about`` stands in the file, so that one that was altered is not read.

    Args:
      path: where to; its folder must exist.
      tensors: numpy arrays by name.
      about: JSON values to keep in the file, without entries ``format`` and ``sha256``.

    Returns:
      The bytes of the file, one of safetensors.

    Raises:
      SettingError: a name that holds a ``#``, or an entry of the file's own in ``about``.
    """
    for name in tensors:
        if "#" in name:
            raise SettingError("tensors", name, "names without a #, which marks the parts of a packed tensor")
    for name in ("format", _DIGEST):
        if name in about:
            raise SettingError("about", name, "other entries: this one says that the file is packed, and whole")
    packed = pack(tensors)
    return write_tensors(path, packed, {**about, "format": _FORMAT, _DIGEST: _digest(packed, about)})


def is_packed(path: str | os.PathLike[str]) -> bool:
    """Whether a file says that :func:`write_packed` wrote it; it need not be whole.

    Example:
      >>> is_packed("no/such/file")
      False
    """
    try:
        with safetensors.safe_open(str(path), "numpy") as file:
            return json.loads((file.metadata() or {}).get(KEY, "{}")).get("format") == _FORMAT
    except (OSError, safetensors.SafetensorError, ValueError, AttributeError):
        return False


def read_packed(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors of :func:`write_packed`, with their zeros, and what was kept with them.

    Args:
      path: the file.

    Returns:
      Numpy arrays by name, of equal values, shapes and dtypes (a negative zero is a zero), and ``about``.

    Raises:
      SettingError: there is no such file, it is not whole, it was altered, or it is not packed.

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
    digest = about.pop(_DIGEST, None)
    if digest != _digest(packed, about):
        raise SettingError("path", str(path), "a packed file as it was written; this one was altered: its digest is another")
    try:
        return unpack(packed), about
    except (KeyError, ValueError, IndexError) as error:
        raise SettingError("path", str(path), f"a packed file with all its parts ({error})") from None


def _digest(packed: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> str:
    """SHA-256 of the tensors, with their names, types and shapes, and of what is said about them, as it reads from the file."""
    told = json.dumps(json.loads(json_text(about)), sort_keys=True, allow_nan=False)
    found = hashlib.sha256(told.encode())
    for name in sorted(packed):
        found.update(f"{name} {packed[name].dtype} {packed[name].shape} ".encode() + packed[name].tobytes())
    return found.hexdigest()
