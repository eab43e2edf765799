"""A multi-layer perceptron: the smallest network that adversarial training teaches anything about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from bap_jax.models.conv import ConvKind
from bap_jax.models.layers import check_widths, flatten, normalize_pixels
from bap_jax.types import Array, Outputs


class MLP(nn.Module):
    """Dense layers with ReLU between them, on the flattened image.

    Taps: ``hidden1``, ``hidden2``, ...: the hidden layers after their activation.

    Args:
      num_classes: K.
      hidden: widths of the hidden layers.
      mean: subtracted from each channel of the input, or None.
      std: each channel is then divided by it, or None.
      conv: accepted so that all networks have the same settings; there is no convolution here.
      axis_name: likewise; there is no BatchNorm here.
      dtype: of the computation, default that of the images; parameters and logits are float32.
      widths: of single layers by name, as compaction leaves them (``{"fc1": 40}``); the others keep theirs.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> images = jnp.ones((2, 8, 8, 1))
      >>> model = MLP(num_classes=10)
      >>> outputs = model.apply(model.init(jax.random.key(0), images), images)
      >>> outputs.logits.shape, outputs.taps["hidden2"].shape
      ((2, 10), (2, 128))
    """

    num_classes: int
    hidden: Sequence[int] = (256, 128)
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    conv: ConvKind = "plain"
    axis_name: str | None = None
    dtype: Any = None
    widths: Mapping[str, int] | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Outputs:
        x = flatten(normalize_pixels(images, self.mean, self.std))
        own = check_widths(self.widths, [f"fc{number}" for number in range(1, len(self.hidden) + 1)])
        taps = {}
        for number, width in enumerate(self.hidden, 1):
            name = f"fc{number}"
            x = taps[f"hidden{number}"] = nn.relu(nn.Dense(own.get(name, width), dtype=self.dtype, name=name)(x))
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x)
        return Outputs(logits.astype(jnp.float32), taps)
