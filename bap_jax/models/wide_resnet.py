"""Wide residual networks, in the form of TRADES and HYDRA, and in DeepMind's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.models._blocks import ONE, given, plan
from bap_jax.models.conv import ConvKind, Padding, conv_layer
from bap_jax.models.layers import batch_norm, check_pictures, kaiming, normalize_pixels
from bap_jax.types import Array, Outputs

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": nn.relu, "silu": nn.silu}
_PADDINGS: dict[str, Padding] = {"both": ONE, "end": ((0, 1), (0, 1))}  # of a 3×3 kernel of stride 2


class WideBlock(nn.Module):
    """BN, ReLU, conv3×3, BN, ReLU, dropout, conv3×3, plus the input (or a 1×1 convolution of its first BN, ReLU).

    ``activation`` stands in place of both ReLUs; ``padding`` is that of the first convolution.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> block = WideBlock(features=4, strides=2)
      >>> jax.eval_shape(block.init_with_output, jax.random.key(0), jnp.ones((2, 8, 8, 3)))[0].shape
      (2, 4, 4, 4)
    """

    features: int
    strides: int = 1
    dropout_rate: float = 0.0
    conv: ConvKind = "plain"
    axis_name: str | None = None
    dtype: Any = None
    affine: bool = True
    activation: Callable[[Array], Array] = nn.relu
    padding: Padding = ONE
    inner: int | None = None  # channels between the convolutions, default as many as come out
    projects: bool | None = None  # a convolution on the shortcut, default where the shape changes

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        conv = partial(conv_layer, conv=self.conv, use_bias=False, kernel_init=kaiming, dtype=self.dtype)
        inner, outer = self.features if self.inner is None else self.inner, self.features
        norm = partial(batch_norm, train, self.axis_name, self.dtype, affine=self.affine)
        active = self.activation(norm("bn1")(images))
        x = conv(inner, 3, strides=self.strides, padding=self.padding, name="conv1")(active)
        x = self.activation(norm("bn2")(x))
        if self.dropout_rate:
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        x = conv(outer, 3, padding=ONE, name="conv2")(x)
        if images.shape[-1] != outer if self.projects is None else self.projects:
            images = conv(outer, 1, strides=self.strides, padding="VALID", name="shortcut_conv")(active)
        return x + images


class WideResNet(nn.Module):
    """WRN-depth-width: 3×3 stem of 16, three stages of (depth − 4)/6 pre-activation blocks, BN, ReLU, average pool, fc-K.

    Taps: ``conv1``, ``block1``, ``block2``, ... and ``pooled``, those that PwoA uses.

    Args:
      num_classes: K.
      depth: 6n + 4.
      width: the stages have 16, 32 and 64 times this many channels.
      dropout_rate: between a block's convolutions while training; needs a key.
      activation: ``"relu"``, or ``"silu"``: x·sigmoid(x), also called Swish.
      padding: of the 3×3 convolutions of stride 2: ``"both"`` sides, as PyTorch; or ``"end"``, below and on the right, as
        TensorFlow's and JAX's "SAME" does for an even height and width.
      mean: subtracted from each channel of the input, or None.
      std: each channel is then divided by it, or None.
      conv: ``"plain"`` or ``"fast"``, see :func:`bap_jax.models.conv.fast_conv`.
      axis_name: mapped axis over which BatchNorm takes its statistics, or None.
      dtype: of the computation, default that of the images; parameters, BatchNorm statistics and logits are float32.
      affine: BatchNorm with a scale and a bias to train; else they are 1 and 0.
      widths: of every convolution by its name, as compaction leaves them: ``{"conv1": 12, "block1/conv1": 9, "block1/conv2": 12,
        ...}``, with ``"block1/shortcut_conv"`` where there is one; default those of ``depth`` and ``width``.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = WideResNet(num_classes=10, depth=10, width=1)
      >>> outputs, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((2, 8, 8, 3)))
      >>> sorted(outputs.taps)
      ['block1', 'block2', 'block3', 'conv1', 'pooled']

    Raises:
      SettingError: a depth that is none, an unknown activation or padding, or images that are no pictures.

    References:
      Zagoruyko and Komodakis 2016, "Wide Residual Networks"; the form of yaodongyu/TRADES and of the CIFAR robustness benchmarks.
    """

    batch_norm: ClassVar[bool] = True
    num_classes: int
    depth: int = 28
    width: int = 10
    dropout_rate: float = 0.0
    activation: Literal["relu", "silu"] = "relu"
    padding: Literal["both", "end"] = "both"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    conv: ConvKind = "plain"
    axis_name: str | None = None
    dtype: Any = None
    affine: bool = True
    widths: Mapping[str, int] | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Outputs:
        if self.depth < 10 or (self.depth - 4) % 6:
            raise SettingError("depth", self.depth, "6n + 4 with n ≥ 1, as 10, 16, 28 or 34")
        if self.activation not in _ACTIVATIONS:
            raise SettingError("activation", self.activation, " or ".join(map(repr, _ACTIVATIONS)))
        if self.padding not in _PADDINGS:
            raise SettingError("padding", self.padding, " or ".join(map(repr, _PADDINGS)))
        activation = _ACTIVATIONS[self.activation]
        check_pictures(images)
        x = normalize_pixels(images, self.mean, self.std)
        counts = [(self.depth - 4) // 6] * 3
        first, blocks = 16, plan(counts, [channels * self.width for channels in (16, 32, 64)])
        if self.widths is not None:
            first, blocks = given("conv1", counts, self.widths)
        conv = partial(conv_layer, conv=self.conv, use_bias=False, kernel_init=kaiming, dtype=self.dtype)
        x = conv(first, 3, padding=ONE, name="conv1")(x)
        taps = {"conv1": x}
        for sizes in blocks:
            name = f"block{len(taps)}"
            padding = ONE if sizes.strides == 1 else _PADDINGS[self.padding]
            settings = (self.dropout_rate, self.conv, self.axis_name, self.dtype, self.affine, activation, padding)
            block = WideBlock(sizes.features, sizes.strides, *settings, sizes.inner, sizes.projects, name=name)
            x = taps[name] = block(x, train=train)
        x = activation(batch_norm(train, self.axis_name, self.dtype, "bn", affine=self.affine)(x))
        x = taps["pooled"] = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x)
        return Outputs(logits.astype(jnp.float32), taps)


class DMWideResNet(WideResNet):
    """DeepMind's form, WRN-28-10 by default: SiLU in place of ReLU, padding at the end where a map is halved.

    Theirs first subtract CIFAR's mean (0.4914, 0.4822, 0.4465) and divide by its std (0.2471, 0.2435, 0.2616): give these.
    Some of theirs have ReLU, ``activation="relu"``; the weights do not tell.

    Example:
      >>> DMWideResNet(num_classes=10).activation
      'silu'

    References:
      Gowal et al. 2020, "Uncovering the Limits of Adversarial Training against Norm-Bounded Adversarial Examples" (public code:
      google-deepmind/deepmind-research, adversarial_robustness).
    """

    activation: Literal["relu", "silu"] = "silu"
    padding: Literal["both", "end"] = "end"
