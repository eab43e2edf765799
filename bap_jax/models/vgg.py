"""VGG-16, as in blind adversarial pruning's published code, and in the common CIFAR form by its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from bap_jax.models.conv import ConvKind, conv_layer, max_pool
from bap_jax.models.layers import batch_norm, check_pictures, check_widths, flatten, glorot, normalize_pixels
from bap_jax.types import Array, Outputs

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
LAYERS = tuple(f"conv{number}_{layer}" for number, widths in enumerate(BLOCKS, 1) for layer in range(1, len(widths) + 1))


class VGG16(nn.Module):
    """Thirteen 3×3 convolutions in five blocks, each ending in a max-pool, then dense layers without activation, then fc-K.

    A map that is down to one row or column is not pooled again: 28×28 images pass four pools (the published code leaves one out
    by hand). With ``batch_norm=True, hidden=()`` this is the VGG-16-BN that is common for CIFAR.

    Taps: ``block1`` to ``block5`` (after ReLU, before pooling), and ``fc1``, ``fc2``, ... for the hidden dense layers.

    Args:
      num_classes: K.
      hidden: widths of the dense layers before the last one.
      batch_norm: normalise after every convolution.
      mean: subtracted from each channel of the input, or None.
      std: each channel is then divided by it, or None.
      conv: ``"plain"`` or ``"fast"``, see :func:`bap_jax.models.conv.fast_conv`.
      axis_name: mapped axis over which BatchNorm takes its statistics, or None.
      dtype: of the computation, default that of the images; parameters and logits are float32.
      widths: of single layers by name, as compaction leaves them (``{"conv1_1": 12, "fc1": 100}``); the others keep theirs.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = VGG16(num_classes=10)
      >>> outputs, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((2, 32, 32, 3)))
      >>> outputs.logits.shape, outputs.taps["block5"].shape
      ((2, 10), (2, 2, 2, 512))

    References:
      Simonyan and Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition"; Xie et al. 2021, "Blind
      Adversarial Pruning" (public code: Lixin-Qian/BAP).
    """

    num_classes: int
    hidden: Sequence[int] = (4096, 4096, 1024)
    batch_norm: bool = False
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
        taps, own = {}, check_widths(self.widths, (*LAYERS, *(f"fc{number}" for number in range(1, len(self.hidden) + 1))))
        for number, widths in enumerate(BLOCKS, 1):
            for layer, features in enumerate(widths, 1):
                place = f"{number}_{layer}"
                name = f"conv{place}"
                conv = conv_layer(own.get(name, features), 3, conv=self.conv, kernel_init=glorot, dtype=self.dtype, name=name)
                x = conv(x)
                if self.batch_norm:
                    x = batch_norm(train, self.axis_name, self.dtype, f"bn{place}")(x)
                x = nn.relu(x)
            taps[f"block{number}"] = x
            x = max_pool(x) if min(x.shape[1:3]) > 1 else x
        x = flatten(x)
        for number, width in enumerate(self.hidden, 1):
            name = f"fc{number}"
            x = taps[name] = nn.Dense(own.get(name, width), kernel_init=glorot, dtype=self.dtype, name=name)(x)
        logits = nn.Dense(self.num_classes, kernel_init=glorot, dtype=self.dtype, name="head")(x)
        return Outputs(logits.astype(jnp.float32), taps)
