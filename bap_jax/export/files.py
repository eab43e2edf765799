"""Named tensors in a file: safetensors to and from, PyTorch state dicts from."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from bap_jax.atomic import json_text, write_atomic
from bap_jax.errors import SettingError

SUFFIX = ".safetensors"
KEY = "bap_jax"  # of the metadata in a file; a single key, as several would come in no fixed order
_DTYPES = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16, "BOOL": np.bool_},
    **{"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8},
    **{"U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8},
}
_NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
_PREFIXES = ("module.", "model.", "_orig_mod.", "net.", "network.")


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


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors of a file by name, and what else this package wrote into it.

    A ``.safetensors`` file needs nothing else; any other is taken for a PyTorch state dict and read by ``torch.load`` with
    ``weights_only=True``, so that nothing in it is run. There a surrounding ``{"state_dict": ...}`` and prefixes that all names
    share (``module.``, ``model.``, ``_orig_mod.``) fall away.

    Args:
      path: the file.

    Returns:
      ({name: numpy array}, {} or the ``about`` of :func:`write_tensors`).

    Raises:
      SettingError: there is no such file, it is not whole, it holds something else, or PyTorch is needed and not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise SettingError("FILE", str(path), "a file with weights: .safetensors, or a PyTorch state dict (.pt, .pth)")
    if path.suffix == SUFFIX:
        tensors, about = _read_safetensors(path)
    else:
        tensors, about = _read_torch(path), {}
    return _without_prefixes(tensors), about


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    content = path.read_bytes()
    try:
        stored = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise SettingError("FILE", str(path), f"a whole safetensors file ({error})") from None
    tensors = {}
    for name, tensor in stored:
        if tensor["dtype"] not in _DTYPES:
            raise SettingError("FILE", str(path), f"tensors of a plain type; {name} is {tensor['dtype']}")
        tensors[name] = np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    try:
        about = json.loads(header.get("__metadata__", {}).get(KEY, "{}"))
    except ValueError:
        about = {}
    return tensors, about if isinstance(about, dict) else {}


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        torch = importlib.import_module("torch")  # optional: read only where there is one
    except ImportError:
        expected = "a .safetensors file, or PyTorch beside this package, which reads any other (pip install torch)"
        raise SettingError("FILE", str(path), expected) from None
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, ... for what is no state dict
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SettingError(
            "FILE", str(path), f"a PyTorch state dict that torch.load(weights_only=True) reads ({reason})"
        ) from None
    while isinstance(stored, Mapping) and not any(map(torch.is_tensor, stored.values())):
        inner = next((stored[name] for name in _NESTED if isinstance(stored.get(name), Mapping)), None)
        if inner is None:
            break
        stored = inner
    if not isinstance(stored, Mapping) or not stored:
        raise SettingError("FILE", str(path), f"a dict of tensors by name, not a {type(stored).__name__}")
    tensors = {}
    for name, tensor in stored.items():
        if not torch.is_tensor(tensor):
            raise SettingError("FILE", str(path), f"a dict of tensors by name; {name!r} is a {type(tensor).__name__}")
        tensors[str(name)] = _to_numpy(torch, tensor)
    return tensors


def _to_numpy(torch: Any, tensor: Any) -> np.ndarray:
    tensor = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
    if tensor.dtype == torch.bfloat16:  # numpy has no such type; through float32, which holds every value of it
        return np.array(tensor.float().numpy()).astype(jnp.bfloat16)
    return np.array(tensor.numpy())


def _without_prefixes(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names without what wrappers (DataParallel, Lightning, torch.compile) put before all of them.

    >>> list(_without_prefixes({"module.model.conv1.weight": np.ones(1), "module.model.linear.bias": np.ones(1)}))
    ['conv1.weight', 'linear.bias']
    """
    while tensors:
        common = next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in tensors)), None)
        if common is None:
            break
        tensors = {name.removeprefix(common): tensor for name, tensor in tensors.items()}
    return tensors
