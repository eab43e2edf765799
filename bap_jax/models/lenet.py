"""LeNet-5 in the variant of blind adversarial pruning's published code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from bap_jax.models.conv import ConvKind, conv_layer, max_pool
from bap_jax.models.layers import check_pictures, check_widths, flatten, glorot, normalize_pixels
from bap_jax.types import Array, Outputs


class LeNet5(nn.Module):
    """conv5×5-32, pool, conv5×5-64, pool, fc, fc-K; ReLU after all but the last.

    Taps: ``conv1``, ``conv2`` (after ReLU, before pooling) and ``fc1``, those that PwoA uses.

    Args:
      num_classes: K.
      hidden: width of the dense hidden layer: 84 here, 1024 in PwoA's LeNet.
      mean: subtracted from each channel of the input, or None.
      std: each channel is then divided by it, or None.
      conv: ``"plain"`` or ``"fast"``, see :func:`bap_jax.models.conv.fast_conv`.
      axis_name: accepted so that all networks have the same settings; there is no BatchNorm here.
      dtype: of the computation, default that of the images; parameters and logits are float32.
      widths: of single layers by name, as compaction leaves them (``{"conv1": 12}``); the others keep theirs.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> images = jnp.ones((2, 28, 28, 1))
      >>> model = LeNet5(num_classes=10)
      >>> outputs, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
      >>> outputs.logits.shape, outputs.taps["conv2"].shape
      ((2, 10), (2, 14, 14, 64))

    References:
      Xie et al. 2021, "Blind Adversarial Pruning" (public code: Lixin-Qian/BAP); the taps: Jian et al. 2022,
      "Pruning Adversarially Robust Neural Networks without Adversarial Examples" (neu-spiral/PwoA).
    """

    num_classes: int
    hidden: int = 84
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
        taps, own = {}, check_widths(self.widths, ("conv1", "conv2", "fc1"))
        for name, features in (("conv1", 32), ("conv2", 64)):
            x = conv_layer(own.get(name, features), 5, conv=self.conv, kernel_init=glorot, dtype=self.dtype, name=name)(x)
            x = taps[name] = nn.relu(x)
            x = max_pool(x)
        x = nn.Dense(own.get("fc1", self.hidden), kernel_init=glorot, dtype=self.dtype, name="fc1")(flatten(x))
        x = taps["fc1"] = nn.relu(x)
        logits = nn.Dense(self.num_classes, kernel_init=glorot, dtype=self.dtype, name="head")(x)
        return Outputs(logits.astype(jnp.float32), taps)
