"""Tensors with many zeros, packed: what a pruned network takes on disk."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import safetensors.numpy

_BITS, _GAPS, _VALUES, _SHAPE = "#bits", "#gaps", "#values", "#shape"


def pack(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same tensors with their zeros left out, each in whichever of three forms is the smallest.

    As it is; a bit per element that says whether it is zero, with the values that are not; or, for very sparse ones, the gaps
    between these values (in the narrowest of uint8, uint16 and uint32 that holds them all), with the values.

    Args:
      tensors: numpy arrays by name; no name may hold a ``#``.

    Returns:
      Arrays by name: ``NAME`` as it is, or ``NAME#bits`` or ``NAME#gaps``, ``NAME#shape`` and, but for bools, ``NAME#values``.
      Of one dtype and no compression, so that the same tensors give the same bytes everywhere.

    Example:
      >>> sorted(pack({"w": np.eye(16, dtype=np.float32)}))
      ['w#gaps', 'w#shape', 'w#values']

    References:
      The gaps: Han et al. 2016, "Deep Compression", section 2.
    """
    packed: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        flat = np.array(tensor, order="C").reshape(-1)
        places = np.flatnonzero(flat)
        values = {f"{name}{_SHAPE}": np.asarray(tensor.shape, np.uint32)}
        if flat.dtype != bool:  # of which all that are not zero are True
            values[f"{name}{_VALUES}"] = flat[places]
        forms: tuple[dict[str, np.ndarray], ...] = (
            {name: np.array(tensor, order="C")},
            {f"{name}{_BITS}": np.packbits(flat != 0), **values},
            {f"{name}{_GAPS}": _narrow(np.diff(places, prepend=-1) - 1), **values},
        )
        smallest = min(range(len(forms)), key=lambda form: sum(array.nbytes for array in forms[form].values()))
        packed |= forms[smallest]
    return packed


def unpack(packed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of :func:`pack`: equal values, a negative zero as zero.

    Example:
      >>> tensors = {"w": np.eye(16, dtype=np.float32), "b": np.ones(2)}
      >>> all((unpack(pack(tensors))[name] == tensor).all() for name, tensor in tensors.items())
      True
    """
    tensors: dict[str, np.ndarray] = {}
    for part, array in packed.items():
        name, mark, form = part.partition("#")
        if not mark:
            tensors[name] = array
        elif mark + form in (_BITS, _GAPS):
            shape, values = tuple(packed[name + _SHAPE].tolist()), packed.get(name + _VALUES, np.bool_(True))
            flat = np.zeros(int(np.prod(shape, dtype=np.int64)), values.dtype)
            if mark + form == _BITS:
                flat[np.unpackbits(array, count=flat.size).astype(bool)] = values
            else:
                flat[np.cumsum(array.astype(np.int64) + 1) - 1] = values
            tensors[name] = flat.reshape(shape)
    return tensors


def file_bytes(tensors: Mapping[str, np.ndarray]) -> int:
    """How many bytes the safetensors file of these tensors has, its header included; the file is made, in memory.

    Example:
      >>> file_bytes({"w": np.zeros(100, np.float32)}) - 400 < 100
      True
    """
    return len(safetensors.numpy.save({name: np.array(tensor, order="C") for name, tensor in tensors.items()}))


def _narrow(numbers: np.ndarray) -> np.ndarray:
    largest = int(numbers.max(initial=0))
    return numbers.astype(next(kind for kind in (np.uint8, np.uint16, np.uint32, np.uint64) if largest <= np.iinfo(kind).max))
