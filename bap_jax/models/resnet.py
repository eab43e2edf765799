"""Residual networks in the form common for CIFAR: ResNet-8, ResNet-18 and wide pre-activation ResNets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.models.conv import ConvKind, conv_layer
from bap_jax.models.layers import batch_norm, check_pictures, kaiming, normalize_pixels
from bap_jax.types import Array, Outputs

_ONE = ((1, 1), (1, 1))  # torch pads a 3×3 kernel by one on both sides, also at stride 2, where "SAME" would pad one side only


class ResidualBlock(nn.Module):
    """conv3×3, BN, ReLU, conv3×3, BN, plus the input (1×1 convolution and BN where the shape changes), ReLU.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> block = ResidualBlock(features=4, strides=2)
      >>> jax.eval_shape(block.init_with_output, jax.random.key(0), jnp.ones((2, 8, 8, 3)))[0].shape
      (2, 4, 4, 4)
    """

    features: int
    strides: int = 1
    conv: ConvKind = "plain"
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        conv = partial(conv_layer, self.features, conv=self.conv, use_bias=False, kernel_init=kaiming, dtype=self.dtype)
        norm = partial(batch_norm, train, self.axis_name, self.dtype)
        x = nn.relu(norm("bn1")(conv(3, strides=self.strides, padding=_ONE, name="conv1")(images)))
        x = norm("bn2")(conv(3, padding=_ONE, name="conv2")(x))
        if self.strides != 1 or images.shape[-1] != self.features:
            images = norm("shortcut_bn")(conv(1, strides=self.strides, padding="VALID", name="shortcut_conv")(images))
        return nn.relu(x + images)


class ResNet(nn.Module):
    """3×3 stem, stages of residual blocks (every stage after the first halves the map), global average pool, fc-K.

    Taps: ``stem``, ``block1``, ``block2``, ... and ``pooled``, those that PwoA uses.

    Args:
      num_classes: K.
      blocks: residual blocks in each stage.
      widths: channels in each stage; the stem has the first.
      mean: subtracted from each channel of the input, or None.
      std: each channel is then divided by it, or None.
      conv: ``"plain"`` or ``"fast"``, see :func:`bap_jax.models.conv.fast_conv`.
      axis_name: mapped axis over which BatchNorm takes its statistics, or None.
      dtype: of the computation, default that of the images; parameters, BatchNorm statistics and logits are float32.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = ResNet(num_classes=10, blocks=(1, 1), widths=(4, 8))
      >>> outputs, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((2, 8, 8, 3)))
      >>> sorted(outputs.taps), outputs.taps["pooled"].shape
      (['block1', 'block2', 'pooled', 'stem'], (2, 8))

    References:
      He et al. 2016, "Deep Residual Learning for Image Recognition"; the CIFAR form of kuangliu/pytorch-cifar.
    """

    batch_norm: ClassVar[bool] = True
    num_classes: int
    blocks: Sequence[int] = (2, 2, 2, 2)
    widths: Sequence[int] = (64, 128, 256, 512)
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    conv: ConvKind = "plain"
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Outputs:
        if len(self.blocks) != len(self.widths):
            raise SettingError("widths", tuple(self.widths), f"{len(self.blocks)} numbers, one for each stage")
        check_pictures(images)
        x = normalize_pixels(images, self.mean, self.std)
        stem = conv_layer(
            self.widths[0],
            3,
            conv=self.conv,
            padding=_ONE,
            use_bias=False,
            kernel_init=kaiming,
            dtype=self.dtype,
            name="stem_conv",
        )
        x = nn.relu(batch_norm(train, self.axis_name, self.dtype, "stem_bn")(stem(x)))
        taps = {"stem": x}
        for features, strides in _plan(self.blocks, self.widths):
            name = f"block{len(taps)}"
            block = ResidualBlock(features, strides, self.conv, self.axis_name, self.dtype, name=name)
            x = taps[name] = block(x, train=train)
        x = taps["pooled"] = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x)
        return Outputs(logits.astype(jnp.float32), taps)


class ResNet8(ResNet):
    """The thin residual network: stages of 16, 32 and 64 channels, one block each (78,042 parameters for RGB and 10 classes).

    Example:
      >>> ResNet8(num_classes=10).widths
      (16, 32, 64)
    """

    blocks: Sequence[int] = (1, 1, 1)
    widths: Sequence[int] = (16, 32, 64)


class ResNet18(ResNet):
    """ResNet-18 with a 3×3 stem and no pooling before the stages (11,173,962 parameters for RGB and 10 classes).

    Example:
      >>> ResNet18(num_classes=10).blocks
      (2, 2, 2, 2)
    """


class WideBlock(nn.Module):
    """BN, ReLU, conv3×3, BN, ReLU, dropout, conv3×3, plus the input (or a 1×1 convolution of its first BN, ReLU).

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

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        conv = partial(conv_layer, self.features, conv=self.conv, use_bias=False, kernel_init=kaiming, dtype=self.dtype)
        norm = partial(batch_norm, train, self.axis_name, self.dtype)
        active = nn.relu(norm("bn1")(images))
        x = nn.relu(norm("bn2")(conv(3, strides=self.strides, padding=_ONE, name="conv1")(active)))
        if self.dropout_rate:
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        x = conv(3, padding=_ONE, name="conv2")(x)
        if images.shape[-1] != self.features:
            images = conv(1, strides=self.strides, padding="VALID", name="shortcut_conv")(active)
        return x + images


class WideResNet(nn.Module):
    """WRN-depth-width: 3×3 stem of 16, three stages of (depth − 4)/6 pre-activation blocks, BN, ReLU, average pool, fc-K.

    Taps: ``conv1``, ``block1``, ``block2``, ... and ``pooled``, those that PwoA uses.

    Args:
      num_classes: K.
      depth: 6n + 4.
      width: the stages have 16, 32 and 64 times this many channels.
      dropout_rate: between a block's convolutions while training; needs a key.
      mean: subtracted from each channel of the input, or None.
      std: each channel is then divided by it, or None.
      conv: ``"plain"`` or ``"fast"``, see :func:`bap_jax.models.conv.fast_conv`.
      axis_name: mapped axis over which BatchNorm takes its statistics, or None.
      dtype: of the computation, default that of the images; parameters, BatchNorm statistics and logits are float32.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = WideResNet(num_classes=10, depth=10, width=1)
      >>> outputs, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((2, 8, 8, 3)))
      >>> sorted(outputs.taps)
      ['block1', 'block2', 'block3', 'conv1', 'pooled']

    References:
      Zagoruyko and Komodakis 2016, "Wide Residual Networks"; the form of yaodongyu/TRADES and of the CIFAR robustness benchmarks.
    """

    batch_norm: ClassVar[bool] = True
    num_classes: int
    depth: int = 28
    width: int = 10
    dropout_rate: float = 0.0
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    conv: ConvKind = "plain"
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Outputs:
        if self.depth < 10 or (self.depth - 4) % 6:
            raise SettingError("depth", self.depth, "6n + 4 with n ≥ 1, as 10, 16, 28 or 34")
        check_pictures(images)
        x = normalize_pixels(images, self.mean, self.std)
        x = conv_layer(16, 3, conv=self.conv, padding=_ONE, use_bias=False, kernel_init=kaiming, dtype=self.dtype, name="conv1")(
            x
        )
        taps = {"conv1": x}
        widths = [channels * self.width for channels in (16, 32, 64)]
        for features, strides in _plan([(self.depth - 4) // 6] * 3, widths):
            name = f"block{len(taps)}"
            block = WideBlock(features, strides, self.dropout_rate, self.conv, self.axis_name, self.dtype, name=name)
            x = taps[name] = block(x, train=train)
        x = nn.relu(batch_norm(train, self.axis_name, self.dtype, "bn")(x))
        x = taps["pooled"] = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x)
        return Outputs(logits.astype(jnp.float32), taps)


def _plan(blocks: Sequence[int], widths: Sequence[int]) -> list[tuple[int, int]]:
    """(channels, strides) of every block in turn."""
    first = [1] + [2] * (len(blocks) - 1)
    return [
        (width, strides if block == 0 else 1)
        for count, width, strides in zip(blocks, widths, first, strict=True)
        for block in range(count)
    ]
