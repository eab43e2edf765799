"""Files as ``torch.save`` writes them, made without PyTorch; what it really writes is in ``tests/export/recorded/``."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

STORAGES = {"float64": "Double", "float32": "Float", "float16": "Half", "int64": "Long", "uint8": "Byte", "bool": "Bool"}
STORAGES |= {"complex64": "ComplexFloat", "int8": "Char"}


class Named(NamedTuple):
    """A function or a class that a pickle names."""

    module: str
    name: str


class Call(NamedTuple):
    """What a function that a pickle names returns."""

    function: Named
    arguments: tuple


class Storage(NamedTuple):
    """The bytes of a tensor, by what a pickle says of them."""

    reference: tuple


class _Pickler(pickle._Pickler):  # type: ignore[name-defined]  # the one whose output can be chosen
    def __init__(self, file, storages):
        super().__init__(file, protocol=2)
        self.storages = storages

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Named):
            self.write(b"c" + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Call):
            self.save(value.function)
            self.save(tuple(value.arguments))
            self.write(b"R")
        elif isinstance(value, Storage):
            self.save(tuple(value.reference))
            self.write(b"Q")
        elif isinstance(value, np.ndarray):
            self.save(self.tensor(value))
        else:
            super().save(value, save_persistent_id)

    def tensor(self, array):
        key = str(len(self.storages))
        self.storages[key] = array.tobytes()
        kind = Named("torch", f"{STORAGES[array.dtype.name]}Storage")
        strides = tuple(stride // array.itemsize for stride in np.empty(array.shape, array.dtype).strides)
        storage = Storage(("storage", kind, key, "cpu", array.size))
        hooks = Call(Named("collections", "OrderedDict"), ())
        return Call(Named("torch._utils", "_rebuild_tensor_v2"), (storage, 0, array.shape, strides, False, hooks))


def torch_save(content: Any, path: Path) -> Path:
    """Writes containers of numpy arrays, :class:`Named` and :class:`Call`."""
    storages: dict[str, bytes] = {}
    pickled = io.BytesIO()
    _Pickler(pickled, storages).dump(content)
    members = {"data.pkl": pickled.getvalue(), "byteorder": b"little", "version": b"3\n"}
    members |= {f"data/{key}": raw for key, raw in storages.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in members.items():
            archive.writestr(f"archive/{name}", raw)
    return path


def checkpoint(key: str, weights: dict[str, np.ndarray]) -> dict[str, Any]:
    """What a training script saves: the weights beside an accuracy, which is a tensor, and an optimiser."""
    optimizer = {"state": {0: {"momentum_buffer": np.ones(2, np.float32)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    accuracy = np.array(93.1, np.float32)
    return {"epoch": 3, "arch": "resnet18", key: weights, "best_acc1": accuracy, "optimizer": optimizer}
