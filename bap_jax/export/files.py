"""Named tensors in a file: safetensors to and from, PyTorch state dicts from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from bap_jax.atomic import json_text, write_atomic
from bap_jax.errors import SettingError
from bap_jax.export.torch_file import TENSORS, Unreadable, open_torch

SUFFIX = ".safetensors"
KEY = "bap_jax"  # of the metadata in a file; a single key, as several would come in no fixed order
PREFIXES = (
    "module.",
    "model.",
    "_orig_mod.",
    "net.",
    "network.",
    "0.",
    "1.",
)  # of DataParallel, wrappers, nn.Sequential(mean, net)
_DTYPES = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16, "BOOL": np.bool_},
    **{"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8},
    **{"U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8},
}
_WEIGHTS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")  # where others keep the weights
_DEPTH = 6  # of dicts in dicts that are looked through
_SHOWN = 12  # names in one message
_KINDS: tuple[tuple[tuple[bytes, ...], str], ...] = (  # how other files begin
    ((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body"), "a web page: download the file that it shows, not the page"),
    ((b"version https://git-lfs",), "a pointer of Git LFS: fetch the file with git lfs pull"),
    ((b"\x1f\x8b", b"bzh", b"\xfd7zxz", b"7z\xbc\xaf"), "compressed: unpack it first"),
    ((b"\x89hdf",), "an HDF5 file"),
    ((b"\x93numpy",), "a numpy array"),
)


class Stored(NamedTuple):
    """What a file holds."""

    tensors: dict[str, np.ndarray]  # by name
    about: dict[str, Any]  # of :func:`write_tensors`, or {}
    key: str  # where in a PyTorch checkpoint they stood, "model.state_dict"; "" for the whole of it
    others: tuple[str, ...]  # where else there are tensors by name


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> bytes:
    """Write a safetensors file, whole or not at all; the same tensors give the same bytes.

    Args:
      path: where to; its folder must exist.
      tensors: numpy arrays by name.
      about: JSON values to keep in the file.

    Returns:
      The bytes of the file.

    Example:
      >>> import tempfile
      >>> path = tempfile.mkdtemp() + "/model.safetensors"
      >>> _ = write_tensors(path, {"weight": np.ones((2, 2), np.float32)}, {"layout": "jax"})
      >>> tensors, about = read_tensors(path)
      >>> tensors["weight"].tolist(), about
      ([[1.0, 1.0], [1.0, 1.0]], {'layout': 'jax'})
    """
    content = safetensors.numpy.save(
        {name: np.array(tensor, order="C") for name, tensor in tensors.items()}, metadata={KEY: json_text(about)}
    )
    write_atomic(Path(path), content)
    return content


def read_tensors(path: str | os.PathLike[str], key: str | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors of a file by name, and what else this package wrote into it: the first two of :func:`read_stored`."""
    return read_stored(path, key)[:2]


def read_stored(path: str | os.PathLike[str], key: str | None = None) -> Stored:
    """The tensors of a file by name, and what is known about them.

    The file is of safetensors, or what ``torch.save`` wrote; neither needs PyTorch, and nothing in it is run. In a checkpoint
    (``{"epoch": ..., "state_dict": ..., "optimizer": ...}``) the weights are found: the only dict of tensors by name, or the one
    under a usual key (``state_dict``, ``model``, ``net``, ...). Prefixes of wrappers that all names share
    (``module.``, ``model.``, ``0.``, ...) fall away.

    Args:
      path: the file.
      key: which dict of tensors to take, e.g. ``"model_ema"`` or ``"model.state_dict"``.

    Returns:
      A :class:`Stored`.

    Raises:
      SettingError: there is no such file, it is not whole, it holds something else, or several dicts of tensors and no usual key.
    """
    path = Path(path)
    if not path.is_file():
        raise SettingError("FILE", str(path), "a file with weights: .safetensors, or a PyTorch state dict (.pt, .pth)")
    try:
        if _is_safetensors(path):
            if key is not None:
                raise SettingError("--key", key, f"none: {path} is of safetensors, which holds one set of tensors")
            tensors, about = _read_safetensors(path)
            stored = Stored(tensors, about, "", ())
        else:
            stored = _read_torch(path, key)
        for name in stored.tensors:
            if not name.isprintable():
                raise Unreadable(f"names that can be printed; a tensor is called {name!r}")
    except Unreadable as error:
        raise SettingError("FILE", str(path), str(error)) from None
    return stored._replace(tensors=_without_prefixes(stored.tensors))


def _is_safetensors(path: Path) -> bool:
    """Tells by the first bytes; what is no file of weights is refused as what it is."""
    with open(path, "rb") as file:
        head = file.read(512)
    if not head and path.suffix != SUFFIX:
        raise Unreadable("a file with weights; this one is empty")
    start = head.lstrip()[:40].lower()
    for beginnings, what in _KINDS:
        if start.startswith(beginnings):
            raise Unreadable(f"a file with weights; this is {what}")
    if head[257:262] == b"ustar":
        raise Unreadable("a file with weights; this is a tar archive: unpack it first, or save it anew with torch.save")
    if head.startswith((b"PK", b"\x80")) and head[8:9] != b"{":
        return False
    if path.suffix == SUFFIX or head[8:9] == b"{":
        return True
    raise Unreadable("a file with weights: neither safetensors nor what torch.save writes begins like this one")


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    content = path.read_bytes()
    try:
        stored = safetensors.deserialize(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise Unreadable(f"a whole safetensors file ({error})") from None
    tensors = {}
    for name, tensor in stored:
        if tensor["dtype"] not in _DTYPES:
            raise Unreadable(f"tensors of a plain type; {name!r} is {tensor['dtype']}")
        tensors[name] = np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
    try:
        about = json.loads((header.get("__metadata__") or {}).get(KEY, "{}"))
    except (ValueError, RecursionError):
        about = {}
    return tensors, about if isinstance(about, dict) else {}


def _read_torch(path: Path, key: str | None) -> Stored:
    file = open_torch(path)
    found = _state_dicts(file.content)
    chosen = _chosen(file.content, found, key)
    tensors = {}
    for name, tensor in found[chosen].items():
        if not isinstance(tensor, TENSORS):
            raise Unreadable(f"a dict of tensors by name; {name!r} is a {_kind(tensor)}")
        tensors[name] = file.read(tensor, name)
    return Stored(tensors, {}, chosen, tuple(other for other in found if other != chosen))


def _state_dicts(content: Any) -> dict[str, Mapping[str, Any]]:
    """Every dict of tensors by name, by its place; not those of optimisers, which are by number or under a telling key."""
    found: dict[str, Mapping[str, Any]] = {}
    seen: set[int] = set()

    def look(value: Any, place: tuple[str, ...]) -> None:
        if not isinstance(value, Mapping) or id(value) in seen or len(place) > _DEPTH:
            return
        seen.add(id(value))
        if not all(isinstance(name, str) for name in value):
            return
        tensors = [name for name, part in value.items() if isinstance(part, TENSORS)]
        if tensors and (len(tensors) == len(value) or any("." in name for name in tensors)):
            found[".".join(place)] = value
            return
        for name, part in value.items():
            if not name.lower().startswith("optim"):
                look(part, (*place, name))

    look(content, ())
    return found


def _chosen(content: Any, found: Mapping[str, Mapping[str, Any]], key: str | None) -> str:
    if not isinstance(content, Mapping) or not content:
        raise Unreadable(f"a dict of tensors by name, not a {_kind(content)}")
    if key is not None:
        if key not in found:
            there = f"one of {_listed(found)}" if found else "none: the file holds no dict of tensors"
            raise SettingError("--key", key, there)
        return key
    if not found:
        other = next(((name, part) for name, part in content.items() if not isinstance(part, TENSORS)), None)
        if other is not None and any(isinstance(part, TENSORS) for part in content.values()):
            raise Unreadable(f"a dict of tensors by name; {other[0]!r} is a {_kind(other[1])}")
        raise Unreadable(f"a dict of tensors by name; its keys are {', '.join(repr(name) for name in list(content)[:_SHOWN])}")
    usual = [place for place in found if place.split(".")[0] in _WEIGHTS and len(found) > 1]
    if len(found) == 1 or len(usual) == 1:
        return (usual or list(found))[0]
    raise Unreadable(f"one dict of tensors by name, or --key to choose; it holds {_listed(found)}")


def _listed(found: Mapping[str, Mapping[str, Any]]) -> str:
    shown = [f"{place!r} ({len(tensors)} tensors)" for place, tensors in list(found.items())[:_SHOWN]]
    return ", ".join(shown) + (", ..." if len(found) > _SHOWN else "")


def _kind(value: Any) -> str:
    if isinstance(value, TENSORS):
        return "tensor"
    return "dict" if isinstance(value, Mapping) else type(value).__name__


def _without_prefixes(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names without what wrappers (DataParallel, Lightning, torch.compile) put before all of them.

    Example:
      >>> list(_without_prefixes({"module.model.conv1.weight": np.ones(1), "module.model.linear.bias": np.ones(1)}))
      ['conv1.weight', 'linear.bias']
    """
    while tensors:
        common = next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in tensors)), None)
        if common is None:
            break
        tensors = {name.removeprefix(common): tensor for name, tensor in tensors.items()}
    return tensors
