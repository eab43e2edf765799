"""Residual networks in the form common for CIFAR: ResNet-8, ResNet-18 and wide pre-activation ResNets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.models.conv import ConvKind, conv_layer
from bap_jax.models.layers import batch_norm, check_pictures, check_widths, kaiming, normalize_pixels
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
    inner: int | None = None  # channels between the convolutions, default as many as come out
    projects: bool | None = None  # a convolution on the shortcut, default where the shape changes

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        conv = partial(conv_layer, conv=self.conv, use_bias=False, kernel_init=kaiming, dtype=self.dtype)
        inner, outer = self.features if self.inner is None else self.inner, self.features
        norm = partial(batch_norm, train, self.axis_name, self.dtype)
        x = nn.relu(norm("bn1")(conv(inner, 3, strides=self.strides, padding=_ONE, name="conv1")(images)))
        x = norm("bn2")(conv(outer, 3, padding=_ONE, name="conv2")(x))
        changes = self.strides != 1 or images.shape[-1] != outer
        if changes if self.projects is None else self.projects:
            images = norm("shortcut_bn")(conv(outer, 1, strides=self.strides, padding="VALID", name="shortcut_conv")(images))
        return nn.relu(x + images)


class ResNet(nn.Module):
    """3×3 stem, stages of residual blocks (every stage after the first halves the map), global average pool, fc-K.

    Taps: ``stem``, ``block1``, ``block2``, ... and ``pooled``, those that PwoA uses.

    Args:
      num_classes: K.
      blocks: residual blocks in each stage.
      widths: channels in each stage; the stem has the first. Or of every convolution by its name, as compaction leaves them:
        ``{"stem_conv": 12, "block1/conv1": 9, "block1/conv2": 12, ...}``, with ``"block2/shortcut_conv"`` where there is one.
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
    widths: Sequence[int] | Mapping[str, int] = (64, 128, 256, 512)
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    conv: ConvKind = "plain"
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Outputs:
        check_pictures(images)
        if isinstance(self.widths, Mapping):
            first, plan = _given("stem_conv", self.blocks, self.widths)
        else:
            first, plan = self.widths[0], _plan(self.blocks, self.widths)
        x = normalize_pixels(images, self.mean, self.std)
        stem = conv_layer(
            first,
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
        for sizes in plan:
            name = f"block{len(taps)}"
            settings = (self.conv, self.axis_name, self.dtype)
            block = ResidualBlock(sizes.features, sizes.strides, *settings, sizes.inner, sizes.projects, name=name)
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
    widths: Sequence[int] | Mapping[str, int] = (16, 32, 64)


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
    inner: int | None = None  # channels between the convolutions, default as many as come out
    projects: bool | None = None  # a convolution on the shortcut, default where the shape changes

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        conv = partial(conv_layer, conv=self.conv, use_bias=False, kernel_init=kaiming, dtype=self.dtype)
        inner, outer = self.features if self.inner is None else self.inner, self.features
        norm = partial(batch_norm, train, self.axis_name, self.dtype)
        active = nn.relu(norm("bn1")(images))
        x = nn.relu(norm("bn2")(conv(inner, 3, strides=self.strides, padding=_ONE, name="conv1")(active)))
        if self.dropout_rate:
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        x = conv(outer, 3, padding=_ONE, name="conv2")(x)
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
      mean: subtracted from each channel of the input, or None.
      std: each channel is then divided by it, or None.
      conv: ``"plain"`` or ``"fast"``, see :func:`bap_jax.models.conv.fast_conv`.
      axis_name: mapped axis over which BatchNorm takes its statistics, or None.
      dtype: of the computation, default that of the images; parameters, BatchNorm statistics and logits are float32.
      widths: of every convolution by its name, as compaction leaves them: ``{"conv1": 12, "block1/conv1": 9, "block1/conv2": 12,
        ...}``, with ``"block1/shortcut_conv"`` where there is one; default those of ``depth`` and ``width``.

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
    widths: Mapping[str, int] | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Outputs:
        if self.depth < 10 or (self.depth - 4) % 6:
            raise SettingError("depth", self.depth, "6n + 4 with n ≥ 1, as 10, 16, 28 or 34")
        check_pictures(images)
        x = normalize_pixels(images, self.mean, self.std)
        blocks = [(self.depth - 4) // 6] * 3
        first, plan = 16, _plan(blocks, [channels * self.width for channels in (16, 32, 64)])
        if self.widths is not None:
            first, plan = _given("conv1", blocks, self.widths)
        conv = partial(conv_layer, conv=self.conv, use_bias=False, kernel_init=kaiming, dtype=self.dtype)
        x = conv(first, 3, padding=_ONE, name="conv1")(x)
        taps = {"conv1": x}
        for sizes in plan:
            name = f"block{len(taps)}"
            settings = (self.dropout_rate, self.conv, self.axis_name, self.dtype)
            block = WideBlock(sizes.features, sizes.strides, *settings, sizes.inner, sizes.projects, name=name)
            x = taps[name] = block(x, train=train)
        x = nn.relu(batch_norm(train, self.axis_name, self.dtype, "bn")(x))
        x = taps["pooled"] = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x)
        return Outputs(logits.astype(jnp.float32), taps)


class _Sizes(NamedTuple):
    """Of one block; what is None the block decides itself."""

    features: int
    strides: int
    inner: int | None = None
    projects: bool | None = None


def _plan(blocks: Sequence[int], widths: Sequence[int]) -> list[_Sizes]:
    """Every block in turn, by the channels of its stage."""
    if len(blocks) != len(widths):
        raise SettingError("widths", tuple(widths), f"{len(blocks)} numbers, one for each stage")
    return [_Sizes(width, strides) for width, stage in zip(widths, _strides(blocks), strict=True) for strides in stage]


def _strides(blocks: Sequence[int]) -> list[list[int]]:
    """Of every stage's blocks: the first of every stage after the first halves the map."""
    return [[2 if stage and not block else 1 for block in range(count)] for stage, count in enumerate(blocks)]


def _given(stem: str, blocks: Sequence[int], widths: Mapping[str, int]) -> tuple[int, list[_Sizes]]:
    """The stem's channels, and every block in turn by the widths of its convolutions.

    Whether a shortcut has a convolution is told by its width being given: after compaction, shapes may agree by chance.
    """
    strides = [each for stage in _strides(blocks) for each in stage]
    names = [f"block{number}" for number in range(1, len(strides) + 1)]
    needed = [stem, *(f"{name}/{conv}" for name in names for conv in ("conv1", "conv2"))]
    own = check_widths(widths, [*needed, *(f"{name}/shortcut_conv" for name in names)])
    for layer in needed:
        if layer not in own:
            raise SettingError(f"widths[{layer!r}]", None, "a positive integer: the width of every convolution is needed")
    plan, before = [], own[stem]
    for name, each in zip(names, strides, strict=True):
        features, shortcut = own[f"{name}/conv2"], own.get(f"{name}/shortcut_conv")
        if features != (before if shortcut is None else shortcut):
            raise SettingError(f"widths['{name}/conv2']", features, "as many channels as its shortcut has")
        plan.append(_Sizes(features, each, own[f"{name}/conv1"], shortcut is not None))
        before = features
    return own[stem], plan
