"""FitNet-4 in the variant of blind adversarial pruning's published code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from bap_jax.models.conv import ConvKind, conv_layer, max_pool
from bap_jax.models.layers import check_pictures, check_widths, glorot, normalize_pixels
from bap_jax.types import Array, Outputs

STAGES = ((32, 32, 32, 48, 48), (80,) * 5, (128,) * 5)
LAYERS = (*(f"conv{number}_{layer}" for number, widths in enumerate(STAGES, 1) for layer in range(1, len(widths) + 1)), "fc1")


class FitNet4(nn.Module):
    """Fifteen 3×3 convolutions in three stages (32×3, 48×2 | 80×5 | 128×5), global max-pool, fc500 without activation, fc-K.

    Taps: ``stage1``, ``stage2``, ``stage3`` (after ReLU, before pooling), ``pooled`` and ``fc1``.

    Args:
      num_classes: K.
      mean: subtracted from each channel of the input, or None.
      std: each channel is then divided by it, or None.
      conv: ``"plain"`` or ``"fast"``, see :func:`bap_jax.models.conv.fast_conv`.
      axis_name: accepted so that all networks have the same settings; there is no BatchNorm here.
      dtype: of the computation, default that of the images; parameters and logits are float32.
      widths: of single layers by name, as compaction leaves them (``{"conv1_1": 12}``); the others keep theirs.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = FitNet4(num_classes=10)
      >>> outputs, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((2, 32, 32, 3)))
      >>> outputs.logits.shape, outputs.taps["pooled"].shape
      ((2, 10), (2, 128))

    References:
      Romero et al. 2015, "FitNets"; Xie et al. 2021, "Blind Adversarial Pruning" (public code: Lixin-Qian/BAP).
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
        taps, own = {}, check_widths(self.widths, LAYERS)
        for number, widths in enumerate(STAGES, 1):
            for layer, features in enumerate(widths, 1):
                name = f"conv{number}_{layer}"
                conv = conv_layer(own.get(name, features), 3, conv=self.conv, kernel_init=glorot, dtype=self.dtype, name=name)
                x = nn.relu(conv(x))
            taps[f"stage{number}"] = x
            x = max_pool(x) if number < len(STAGES) else jnp.max(x, axis=(1, 2))
        taps["pooled"] = x
        x = taps["fc1"] = nn.Dense(own.get("fc1", 500), kernel_init=glorot, dtype=self.dtype, name="fc1")(x)
        logits = nn.Dense(self.num_classes, kernel_init=glorot, dtype=self.dtype, name="head")(x)
        return Outputs(logits.astype(jnp.float32), taps)
