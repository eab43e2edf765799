"""The networks of this package in torch, from the arrays that ours.py wrote; LeNet-5, the residual ones of CIFAR and the MLP."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class TorchNetwork(nn.Module):
    """Images [B, C, H, W] to logits [B, K], built from ``params/...`` and ``state/...`` arrays in Flax's names and layouts.

    ``share_ties``: the gradient of a maximum goes to all that are equal, as in this package, and not to the first alone. For
    times, leave it out: torch's own pooling is the faster.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], share_ties: bool = True) -> None:
        super().__init__()
        self._pool = _pool if share_ties else lambda x: functional.max_pool2d(x, 2)
        self._names: dict[str, str] = {}
        for name, array in arrays.items():
            if not name.startswith(("params/", "state/")):
                continue
            values = torch.from_numpy(np.array(array, np.float32))
            if name.endswith("/kernel"):
                values = values.permute(3, 2, 0, 1) if values.ndim == 4 else values.T
            self._names[name] = name.replace("/", "_")
            self.register_parameter(self._names[name], nn.Parameter(values.contiguous(), requires_grad=False))
        layers = {name.split("/")[1] for name in self._names if name.startswith("params/")}
        if "stem_conv" in layers:
            self._run = self._residual
        elif {"conv1", "conv2", "fc1"} <= layers and len(layers) == 4:
            self._run = self._lenet
        elif layers and all(layer == "head" or layer.startswith("fc") for layer in layers):
            self._run = self._mlp
        else:
            raise ValueError(f"no torch form of a network with the layers {sorted(layers)}")

    def forward(self, images: Tensor) -> Tensor:
        return self._run(images)

    def _get(self, name: str) -> Tensor | None:
        return getattr(self, self._names[name]) if name in self._names else None

    def _conv(self, x: Tensor, name: str, padding: int, stride: int = 1) -> Tensor:
        return functional.conv2d(x, self._need(f"params/{name}/kernel"), self._get(f"params/{name}/bias"), stride, padding)

    def _dense(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(x, self._need(f"params/{name}/kernel"), self._get(f"params/{name}/bias"))

    def _need(self, name: str) -> Tensor:
        found = self._get(name)
        if found is None:
            raise ValueError(f"the network has no {name}")
        return found

    def _norm(self, x: Tensor, name: str) -> Tensor:
        mean, var = self._need(f"state/batch_stats/{name}/mean"), self._need(f"state/batch_stats/{name}/var")
        return functional.batch_norm(x, mean, var, self._get(f"params/{name}/scale"), self._get(f"params/{name}/bias"), eps=1e-5)

    def _mlp(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1).flatten(1)
        for number in range(1, len({name.split("/")[1] for name in self._names})):
            x = functional.relu(self._dense(x, f"fc{number}"))
        return self._dense(x, "head")

    def _lenet(self, x: Tensor) -> Tensor:
        for name in ("conv1", "conv2"):
            x = self._pool(functional.relu(self._conv(x, name, 2)))
        x = functional.relu(self._dense(x.permute(0, 2, 3, 1).flatten(1), "fc1"))
        return self._dense(x, "head")

    def _residual(self, x: Tensor) -> Tensor:
        x = functional.relu(self._norm(self._conv(x, "stem_conv", 1), "stem_bn"))
        block = 1
        while f"params/block{block}/conv1/kernel" in self._names:
            name = f"block{block}"
            # Every stage but the first begins with stride 2, where the number of channels grows.
            stride = 2 if self._need(f"params/{name}/conv1/kernel").shape[0] != x.shape[1] else 1
            y = functional.relu(self._norm(self._conv(x, f"{name}/conv1", 1, stride), f"{name}/bn1"))
            y = self._norm(self._conv(y, f"{name}/conv2", 1), f"{name}/bn2")
            if f"params/{name}/shortcut_conv/kernel" in self._names:
                x = self._norm(self._conv(x, f"{name}/shortcut_conv", 0, stride), f"{name}/shortcut_bn")
            x = functional.relu(x + y)
            block += 1
        return self._dense(x.mean(dim=(2, 3)), "head")


def _pool(x: Tensor) -> Tensor:
    """The maximum of every 2×2 block. As in this package, equal maxima share the gradient; ``max_pool2d`` gives it to the
    first, which on the even background of MNIST is another gradient.
    """
    batch, channels, height, width = x.shape
    blocks = x[:, :, : height // 2 * 2, : width // 2 * 2].reshape(batch, channels, height // 2, 2, width // 2, 2)
    return blocks.amax(dim=(3, 5))
