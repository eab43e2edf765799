"""Writes the files of this folder with PyTorch: ``python record.py``; ``test_torch_file.py`` reads them without."""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def plain(torch):
    """Every type that is read, and every way in which a tensor lies in its storage."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    kinds = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "uint16", "uint32")
    found = {f"type.{kind}": torch.tensor([1, 0, 3]).to(getattr(torch, kind)) for kind in kinds}
    found |= {"view.rows": base[1:3], "view.columns": base[:, ::2], "view.transposed": base.T, "view.last": base[3, 5]}
    found |= {"view.expanded": base[0, 1].expand(2, 3), "view.empty": base[:0], "scalar": torch.tensor(7)}
    parameter = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    attribute = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    attribute.note = "kept by its owner"
    found |= {"parameter": parameter, "parameter.attribute": attribute, "buffer": torch.nn.Buffer(torch.tensor([5.0]))}
    found |= {"sparse": torch.sparse_coo_tensor([[0, 2, 2], [1, 0, 0]], [5.0, 6.0, 7.0], (3, 2))}
    found |= {"negative": torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64).conj().imag}
    return found


def special(torch):
    """One of each kind that is not read."""
    ones = torch.ones(2)
    scales = torch.tensor([0.1, 0.2]), torch.tensor([0, 0])
    return {
        "float8": ones.to(torch.float8_e4m3fn),
        "complex": ones.to(torch.complex64),
        "quantised": torch.quantize_per_tensor(ones, 0.1, 0, torch.qint8),
        "quantised.channels": torch.quantize_per_channel(torch.ones(2, 2), *scales, 0, torch.qint8),
        "csr": torch.eye(2).to_sparse_csr(),
        "meta": torch.ones(2, device="meta"),
    }


def checkpoint(torch):
    """What a training script saves."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.rand(4, 3)).square().sum().backward()
    optimizer.step()
    rest = {"epoch": 3, "best_acc1": torch.tensor(93.1), "optimizer": optimizer.state_dict(), "size": torch.Size([2, 3])}
    rest |= {"milestones": Counter([1, 2]), "device": torch.device("cpu"), "dtype": torch.float32, "raw": b"\xff", "seen": {1, 2}}
    return {"state_dict": network.state_dict(), **rest}


def record(torch):
    """Writes all files."""
    torch.save(plain(torch), HERE / "plain.pt")
    old = {name: tensor for name, tensor in plain(torch).items() if name not in ("type.uint16", "type.uint32")}
    torch.save(old, HERE / "plain_old.pt", _use_new_zipfile_serialization=False)
    torch.save(special(torch), HERE / "special.pt")
    torch.save(checkpoint(torch), HERE / "checkpoint.pt")
    torch.save(checkpoint(torch), HERE / "checkpoint_old.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": {"a.b": torch.ones(1)}, "best": np.float64(93.1)}, HERE / "numpy_scalar.pt")
    torch.save({"state_dict": {"a.b": torch.ones(1)}, "args": argparse.Namespace(lr=0.1)}, HERE / "namespace.pt")
    torch.save(torch.nn.Linear(3, 2), HERE / "module.pt")


if __name__ == "__main__":
    import torch  # here: pytest looks into every module, with PyTorch or without

    record(torch)
