"""VGG-16: as in blind adversarial pruning's published code, in the common CIFAR form, and in that of HYDRA and the survey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.models.conv import ConvKind, average_pool, conv_layer, max_pool
from bap_jax.models.layers import batch_norm, check_pictures, check_widths, flatten, glorot, normalize_pixels
from bap_jax.types import Array, Outputs

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
LAYERS = tuple(f"conv{number}_{layer}" for number, widths in enumerate(BLOCKS, 1) for layer in range(1, len(widths) + 1))


class VGG16(nn.Module):
    """Thirteen 3×3 convolutions in five blocks, each ending in a max-pool, then dense layers without activation, then fc-K.

    A map that is down to one row or column is not pooled again: 28×28 images pass four pools (the published code leaves one out
    by hand). :class:`VGG16BN` and :class:`SurveyVGG16` are other published forms.

    Taps: ``block1`` to ``block5`` (after ReLU, before pooling), and ``fc1``, ``fc2``, ... for the hidden dense layers.

    Args:
      num_classes: K.
      hidden: widths of the dense layers before the last one.
      hidden_relu: ReLU after each of these.
      batch_norm: normalise after every convolution.
      affine: BatchNorm, where there is one, with a scale and a bias to train; else they are 1 and 0.
      conv_bias: whether the convolutions have biases.
      average: None, or n: the last map is averaged to n×n instead of max-pooled.
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

    Raises:
      SettingError: an ``average`` below 1, or images that are no pictures.

    References:
      Simonyan and Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition"; Xie et al. 2021, "Blind
      Adversarial Pruning" (public code: Lixin-Qian/BAP).
    """

    num_classes: int
    hidden: Sequence[int] = (4096, 4096, 1024)
    hidden_relu: bool = False
    batch_norm: bool = False
    conv_bias: bool = True
    average: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    conv: ConvKind = "plain"
    axis_name: str | None = None
    dtype: Any = None
    affine: bool = True
    widths: Mapping[str, int] | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Outputs:
        if self.average is not None and self.average < 1:
            raise SettingError("average", self.average, "None or a whole number of at least 1")
        check_pictures(images)
        x = normalize_pixels(images, self.mean, self.std)
        taps, own = {}, check_widths(self.widths, (*LAYERS, *(f"fc{number}" for number in range(1, len(self.hidden) + 1))))
        for number, widths in enumerate(BLOCKS, 1):
            for layer, features in enumerate(widths, 1):
                place = f"{number}_{layer}"
                name = f"conv{place}"
                options = {"use_bias": self.conv_bias, "kernel_init": glorot, "dtype": self.dtype}
                x = conv_layer(own.get(name, features), 3, conv=self.conv, name=name, **options)(x)
                if self.batch_norm:
                    x = batch_norm(train, self.axis_name, self.dtype, f"bn{place}", affine=self.affine)(x)
                x = nn.relu(x)
            taps[f"block{number}"] = x
            if number == len(BLOCKS) and self.average is not None:
                x = average_pool(x, self.average)
            elif min(x.shape[1:3]) > 1:
                x = max_pool(x)
        x = flatten(x)
        for number, width in enumerate(self.hidden, 1):
            name = f"fc{number}"
            x = nn.Dense(own.get(name, width), kernel_init=glorot, dtype=self.dtype, name=name)(x)
            x = taps[name] = nn.relu(x) if self.hidden_relu else x
        logits = nn.Dense(self.num_classes, kernel_init=glorot, dtype=self.dtype, name="head")(x)
        return Outputs(logits.astype(jnp.float32), taps)


class VGG16BN(VGG16):
    """VGG-16-BN as common for CIFAR: BatchNorm after every convolution, one dense layer (14,728,266 parameters for 10 classes).

    Example:
      >>> VGG16BN(num_classes=10).batch_norm
      True

    References:
      The form of kuangliu/pytorch-cifar.
    """

    hidden: Sequence[int] = ()
    batch_norm: bool = True


class SurveyVGG16(VGG16):
    """The VGG-16 of the adversarial pruning survey, HYDRA's: convolutions without biases, BatchNorm, a last map averaged to 2×2,
    then dense layers of 256 and 256 with ReLU (15,309,450 parameters for RGB and 10 classes).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = SurveyVGG16(num_classes=10)
      >>> outputs, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((2, 32, 32, 3)))
      >>> variables["params"]["fc1"]["kernel"].shape
      (2048, 256)

    References:
      Piras et al. 2024, "Adversarial Pruning: A Survey and Benchmark of Pruning Methods for Adversarial Robustness" (public code:
      pralab/AdversarialPruningBenchmark); Sehwag et al. 2020, "HYDRA: Pruning Adversarially Robust Neural Networks".
    """

    hidden: Sequence[int] = (256, 256)
    hidden_relu: bool = True
    batch_norm: bool = True
    conv_bias: bool = False
    average: int | None = 2
