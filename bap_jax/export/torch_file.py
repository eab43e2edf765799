"""What ``torch.save`` wrote, read without PyTorch, and without running anything that stands in it.

Such a file is a pickle (``data.pkl``) and the bytes of each tensor's storage, in a zip; before PyTorch 1.6, one after the other.
A pickle names the functions that rebuild its objects. Here each name stands for one of ours, which does nothing but note a
tensor's type, place and shape; a name that has none (a numpy scalar, a Namespace, a module, ``os.system``) is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C  # of PyTorch's older format, as its first pickle
_DTYPES: Mapping[str, Any] = MappingProxyType(
    {
        **{"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": jnp.bfloat16, "bool": np.bool_},
        **{name: np.dtype(name) for name in ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")},
    }
)
_STORAGES = MappingProxyType(
    {
        **{"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Bool": "bool", "Long": "int64"},
        **{"Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Untyped": "untyped"},
        **{"ComplexDouble": "complex128", "ComplexFloat": "complex64", "QInt8": "qint8", "QUInt8": "quint8", "QInt32": "qint32"},
        **{"QUInt4x2": "quint4x2", "QUInt2x4": "quint2x4"},
    }
)
_OTHER_SIZES = MappingProxyType({"complex128": 16, "complex64": 8, "qint32": 4})  # bytes of what is no numpy type here; else 1
_EXPANDED = 1 << 24  # elements that a small storage may be spread over
_RESAVE = 'state = model.state_dict(); torch.save(state, "weights.pth")'


class Unreadable(Exception):
    """A file is no state dict, or not whole; the text says what would be right, as the end of "expected ..."."""


class Storage(NamedTuple):
    """The bytes that tensors share."""

    kind: str  # of its elements
    key: str
    size: int  # elements
    start: int = 0


class Tensor(NamedTuple):
    """A tensor in a file, not read yet."""

    kind: str  # the dtype, as PyTorch calls it
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    negative: bool = False


class Sparse(NamedTuple):
    """A sparse tensor in a file."""

    kind: str  # its layout
    indices: Any
    values: Any
    shape: tuple[int, ...]


class Special(NamedTuple):
    """A tensor of a kind that is not read."""

    kind: str


TENSORS = (Tensor, Sparse, Special)


class TorchFile(NamedTuple):
    """An object as ``torch.save`` was given it, with :data:`TENSORS` in it, and what reads one of them."""

    content: Any
    read: Callable[[Any, str], np.ndarray]  # (tensor, its name) -> numpy array; raises Unreadable


def open_torch(path: Path) -> TorchFile:
    """What a file of ``torch.save`` holds; nothing in it is run.

    Args:
      path: the file, a zip or of the older format.

    Returns:
      A :class:`TorchFile`.

    Raises:
      Unreadable: it is cut off, damaged, no such file, or holds something else than tensors in containers.
    """
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) == b"PK"
        return _open_zip(path) if zipped else _open_old(path)
    except Unreadable:
        raise
    except (MemoryError, RecursionError, OSError) as error:
        raise Unreadable(f"a file that can be read ({type(error).__name__}: {error})") from error
    except Exception as error:  # the bytes decide what breaks: pickle raises whatever it meets
        raise Unreadable(f"a whole file: this one is cut off or damaged ({type(error).__name__}); get it again") from error


def _open_zip(path: Path) -> TorchFile:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in members if name.split("/")[1:] == ["data.pkl"] or name == "data.pkl"]
    if not pickles:
        what = (
            "a numpy archive" if members and all(name.endswith(".npy") for name in members) else "a zip archive of something else"
        )
        raise Unreadable(f"what torch.save writes, or a .safetensors file; this is {what}")
    root = pickles[0].removesuffix("data.pkl")
    if any(name.startswith(f"{root}code/") or name == f"{root}constants.pkl" for name in members):
        raise Unreadable(f"weights alone, not a TorchScript program: with it in `model`, {_RESAVE}")

    def member(name: str) -> bytes:
        info = members.get(root + name)
        if info is None:
            raise Unreadable(f"a whole file: {root + name!r} is missing in this one; get it again")
        if info.compress_type != zipfile.ZIP_STORED:
            raise Unreadable("a file as torch.save writes it, not compressed")
        with zipfile.ZipFile(path) as archive:
            return archive.read(info)  # compares checksums

    big = f"{root}byteorder" in members and member("byteorder").strip() == b"big"
    content = _unpickle(io.BytesIO(member("data.pkl")))
    return TorchFile(content, _reader(lambda storage: member(f"data/{storage.key}"), big))


def _open_old(path: Path) -> TorchFile:
    with open(path, "rb") as file:
        first = _unpickle(file)
        if first != _MAGIC:
            kind = "" if isinstance(first, Mapping) else f", a {type(first).__name__}"
            raise Unreadable(f"what torch.save writes, or a .safetensors file; this is a pickle of something else{kind}")
        _unpickle(file)  # the version
        system = _unpickle(file)
        big = isinstance(system, Mapping) and system.get("little_endian") is False
        found: dict[str, Storage] = {}
        content = _unpickle(file, found)
        keys, raw = _unpickle(file), {}
        for key in keys:
            count = int.from_bytes(file.read(8), "big" if big else "little")
            kind = found[key].kind
            size = count * (np.dtype(_DTYPES[kind]).itemsize if kind in _DTYPES else _OTHER_SIZES.get(kind, 1))
            raw[key] = file.read(min(size, path.stat().st_size))
            if len(raw[key]) != size:
                raise Unreadable("a whole file: this one is cut off; get it again")
    return TorchFile(content, _reader(lambda storage: raw[storage.key], big))


def _reader(bytes_of: Callable[[Storage], bytes], big: bool) -> Callable[[Any, str], np.ndarray]:
    def read(tensor: Any, name: str) -> np.ndarray:
        if isinstance(tensor, Sparse) and tensor.kind == "torch.sparse_coo":
            return _dense(tensor, read(tensor.indices, name), read(tensor.values, name), name)
        if not isinstance(tensor, Tensor) or tensor.kind not in _DTYPES:
            raise Unreadable(f"tensors of a plain type; {name!r} is {tensor.kind}")
        dtype = np.dtype(_DTYPES[tensor.kind])
        try:
            content = bytes_of(tensor.storage)
        except Unreadable:
            raise
        except Exception as error:  # BadZipFile, KeyError, EOFError, ...
            raise Unreadable(f"a whole file: tensor {name!r} is damaged in this one ({error}); get it again") from error
        if len(content) % dtype.itemsize:
            raise Unreadable(f"a whole file: tensor {name!r} is cut off in this one; get it again")
        stored = np.frombuffer(content, np.uint16 if dtype.name == "bfloat16" else dtype)
        stored = (stored.byteswap() if big else stored).view(dtype)
        return _strided(tensor, stored, name)

    return read


def _strided(tensor: Tensor, stored: np.ndarray, name: str) -> np.ndarray:
    elements = math.prod(tensor.shape)
    start = tensor.storage.start + tensor.offset
    last = start + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if elements and (last >= len(stored) or elements > max(len(stored), _EXPANDED)):
        raise Unreadable(f"a whole file: tensor {name!r} is larger than its part of this one; get it again")
    if not elements:
        return np.zeros(tensor.shape, stored.dtype)
    strides = [stride * stored.itemsize for stride in tensor.strides]
    array = np.array(np.lib.stride_tricks.as_strided(stored[start:], tensor.shape, strides, writeable=False), order="C")
    return -array if tensor.negative else array


def _dense(tensor: Sparse, indices: np.ndarray, values: np.ndarray, name: str) -> np.ndarray:
    size, most = tensor.shape, np.array(tensor.shape)
    fits = indices.ndim == 2 and indices.shape == (len(size), len(values)) and values.ndim == 1
    if not fits or math.prod(size) > max(_EXPANDED, values.size) or np.any(indices < 0) or np.any(most <= indices.T):
        raise Unreadable(f"tensors of a plain kind; {name!r} is {tensor.kind} {list(size)}")
    array = np.zeros(size, values.dtype)
    np.add.at(array, tuple(indices), values)  # a place that is named twice counts twice
    return array


# ------------------------------------------------------------------------------------------------------- what a pickle may name


class _Names(dict):
    """An OrderedDict or a Counter, without the attributes that a pickle would set on it (``_metadata``)."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Maker:
    """A function that a pickle may call, and nothing else: no attribute of it can be set."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]):
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise Unreadable("a whole file: this one is damaged; get it again")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any, kind: str | None = None) -> Tensor:
    metadata = next((value for value in rest[2:] if isinstance(value, Mapping) and "neg" in value), {})
    shape, strides = tuple(shape), tuple(strides)
    plain = isinstance(storage, Storage) and len(shape) == len(strides)
    if not plain or not all(type(number) is int and number >= 0 for number in (offset, *shape, *strides)):
        raise ValueError("no tensor")
    return Tensor(kind or storage.kind, storage, offset, shape, strides, bool(metadata.get("neg")))


def _typed_tensor(storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any) -> Tensor:
    return _tensor(storage, offset, shape, strides, grad, hooks, *rest, kind=str(dtype))


def _sparse(layout: Any, data: Any) -> Sparse:
    if str(layout) != "torch.sparse_coo":
        return Sparse(str(layout), None, None, ())
    return Sparse(str(layout), data[0], data[1], tuple(int(size) for size in data[2]))


def _by_function(function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    """A tensor with attributes of its own, which are left out."""
    if not isinstance(function, _Maker):
        raise ValueError("no function")
    return function(*arguments)


_BUILTINS = ("builtins", "__builtin__")  # in Python 3 and in the pickles of protocol 2
_FIRST = _Maker(lambda data, *_: data)
_QUANTISED = _Maker(lambda storage, *_: Special(storage.kind))
_KNOWN: Mapping[str, Any] = MappingProxyType(
    {
        **{f"collections.{name}": _Maker(_Names) for name in ("OrderedDict", "Counter")},
        "torch._utils._rebuild_tensor": _Maker(_tensor),
        "torch._utils._rebuild_tensor_v2": _Maker(_tensor),
        "torch._utils._rebuild_tensor_v3": _Maker(_typed_tensor),
        "torch._utils._rebuild_parameter": _FIRST,
        "torch._utils._rebuild_parameter_with_state": _FIRST,
        "torch._utils._rebuild_qtensor": _QUANTISED,
        "torch._utils._rebuild_sparse_tensor": _Maker(_sparse),
        "torch._utils._rebuild_meta_tensor_no_storage": _Maker(lambda *_: Special("meta: it has no values")),
        "torch._tensor._rebuild_from_type": _Maker(_by_function),
        "torch._tensor._rebuild_from_type_v2": _Maker(_by_function),
        "torch.Size": _Maker(lambda sizes=(): tuple(sizes)),
        "torch.device": _Maker(lambda *name: "device"),
        "torch.serialization._get_layout": _Maker(str),
        "_codecs.encode": _Maker(lambda text, *_: text.encode("latin1")),
        **{f"{module}.{name}": _Maker(lambda *_: "a value") for module in _BUILTINS for name in ("set", "bytearray", "complex")},
        **{f"torch.{name}": "a type" for name in ("Tensor", "nn.parameter.Parameter", "nn.parameter.Buffer")},
        **{f"torch.{axes}_{form}": "a scheme" for axes in ("per_tensor", "per_channel") for form in ("affine", "symmetric")},
        "torch.per_channel_affine_float_qparams": "a scheme",
        **{f"torch.{place}{name}Storage": kind for place in ("", "cuda.", "storage.") for name, kind in _STORAGES.items()},
        **{f"torch.{kind}": kind for kind in (*_DTYPES, *_STORAGES.values()) if kind != "untyped"},
        **{f"torch.float8_{form}": f"float8_{form}" for form in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz", "e8m0fnu")},
        **{f"torch.{kind}": kind for kind in ("complex32", "float4_e2m1fn_x2", "bits8", "bits16")},
        **{f"torch.{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)},
    }
)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, found: dict[str, Storage]):
        super().__init__(file, encoding="utf-8", errors="replace")
        self._found = found

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get(f"{module}.{name}")
        if known is None:
            raise Unreadable(
                f"tensors in a dict and nothing else; it holds the object {module}.{name}, which is not read, "
                f"as that can run any program. Where it comes from, with the network in `model`, save the weights only: {_RESAVE}"
            )
        return known

    def persistent_load(self, reference: Any) -> Storage:
        what, kind, key, _, count, *view = reference
        if what != "storage" or kind not in _STORAGES.values() or type(count) is not int:
            raise ValueError("no storage")
        self._found[key] = Storage(kind, key, count)
        start = view[0][1] if view and view[0] is not None else 0
        return Storage(kind, key, count, int(start))


def _unpickle(file: BinaryIO, found: dict[str, Storage] | None = None) -> Any:
    """The next object of a file, which stands behind it afterwards."""
    start, largest = file.tell(), 0
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            largest = max(largest, int(argument or 0))
    end = file.tell()
    if largest > end - start:  # a place far off would make Python allocate all before it
        raise ValueError("memo")
    file.seek(start)
    content = _Unpickler(file, {} if found is None else found).load()
    file.seek(end)
    return content
