"""The small CNN of "Pruning in the Face of Adversaries": LeCun's LeNet-5 with average pooling, ReLU and tanh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from bap_jax.models.conv import ConvKind, conv_layer, mean_pool
from bap_jax.models.layers import check_pictures, check_widths, flatten, glorot, normalize_pixels
from bap_jax.types import Array, Outputs


class MerkleCNN(nn.Module):
    """conv5×5-6 SAME, ReLU, average pool, conv5×5-16 VALID, ReLU, average pool, fc-120 tanh, fc-84 tanh, fc-K.

    On MNIST 61,470 weights beside the biases. Taps: ``conv1``, ``conv2`` (after ReLU, before pooling), ``fc1`` and ``fc2``.

    Args:
      num_classes: K.
      mean: subtracted from each channel of the input, or None.
      std: each channel is then divided by it, or None.
      conv: ``"plain"`` or ``"fast"``, see :func:`bap_jax.models.conv.fast_conv`.
      axis_name: accepted so that all networks have the same settings; there is no BatchNorm here.
      dtype: of the computation, default that of the images; parameters and logits are float32.
      widths: of single layers by name, as compaction leaves them (``{"conv1": 3}``); the others keep theirs.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = MerkleCNN(num_classes=10)
      >>> outputs, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((2, 28, 28, 1)))
      >>> outputs.logits.shape, outputs.taps["conv2"].shape
      ((2, 10), (2, 10, 10, 16))

    References:
      Merkle, Samsinger and Schöttle 2022, "Pruning in the Face of Adversaries" (public code:
      FlorianMerkle/network-pruning-and-robustness).
    """

    num_classes: int
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    conv: ConvKind = "plain"
    axis_name: str | None = None
    dtype: Any = None
    widths: Mapping[str, int] | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Outputs:
        check_pictures(images)
        x = normalize_pixels(images, self.mean, self.std)
        taps, own = {}, check_widths(self.widths, ("conv1", "conv2", "fc1", "fc2"))
        made: dict[str, Any] = {"kernel_init": glorot, "dtype": self.dtype}
        for name, features, padding in (("conv1", 6, "SAME"), ("conv2", 16, "VALID")):
            x = conv_layer(own.get(name, features), 5, conv=self.conv, padding=padding, name=name, **made)(x)
            x = taps[name] = nn.relu(x)
            x = mean_pool(x)
        x = flatten(x)
        for name, features in (("fc1", 120), ("fc2", 84)):
            x = taps[name] = nn.tanh(nn.Dense(own.get(name, features), name=name, **made)(x))
        logits = nn.Dense(self.num_classes, name="head", **made)(x)
        return Outputs(logits.astype(jnp.float32), taps)
