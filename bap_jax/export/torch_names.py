"""Which tensor of ours is which tensor of a file: names and axes, per architecture.

In the layout ``jax`` a tensor has our own path with dots, ``params.block1.conv1.kernel``, and our own axes. In the layout
``torch`` it has the name and the axes that the network commonly has in PyTorch; ``docs/weights.md`` lists them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import jax

from bap_jax.errors import SettingError
from bap_jax.export.axes import Arranged, arranged_shape
from bap_jax.mathematics.masks import leaf_paths
from bap_jax.types import ModelState, Params

LAYOUTS = ("torch", "jax")
_LEAVES = MappingProxyType({"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"})


class Entry(NamedTuple):
    """One tensor, here and in a file."""

    path: str  # here: params/block1/conv1/kernel
    name: str  # in the file: layer1.0.conv1.weight
    shape: tuple[int, ...]  # here
    file_shape: tuple[int, ...]
    arranged: Arranged


Modules = Mapping[str, tuple[int, ...]]  # the shape of each module's kernel, by the module's path


class Architecture(NamedTuple):
    """How an architecture is written in PyTorch.

    ``names(modules) -> {module: PyTorch's name}`` from the paths of all modules that hold a tensor, each with the shape of its
    kernel, () if it has none; ``first`` is a module that every such network has; ``flattens`` names the module that works on a
    flattened map (the first one there is), and ``pools`` gives that map's height and width from the image's. ``unused`` are
    beginnings of names of tensors that the published class registers and never uses: import passes them by.
    """

    names: Callable[[Modules], dict[str, str]]
    first: str
    flattens: tuple[str, ...] = ()
    pools: Callable[[int, int], tuple[int, int]] = lambda height, width: (height, width)
    unused: tuple[str, ...] = ()


def _own(pattern: str) -> Callable[[Modules], dict[str, str]]:
    """Names as they are here, of the modules that such a network has."""
    return lambda modules: {module: module for module in modules if re.fullmatch(pattern, module)}


def _stages(modules: Modules) -> list[tuple[str, int, int]]:
    """(block, its stage, its place in the stage), in order: a stage begins where a shortcut changes the shape."""
    blocks = sorted({int(found[1]) for found in (re.match(r"block(\d+)/", module) for module in modules) if found})
    found: list[tuple[str, int, int]] = []
    for number in blocks:
        _, stage, place = found[-1] if found else ("", 0, 0)
        begins = not found or f"block{number}/shortcut_conv" in modules
        found.append((f"block{number}", stage + 1, 0) if begins else (f"block{number}", stage, place + 1))
    return found


def _in_blocks(modules: Modules, block_name: str, inner: Mapping[str, str]) -> dict[str, str]:
    return {
        f"{block}/{ours}": f"{block_name.format(stage=stage, before=stage - 1, place=place)}.{theirs}"
        for block, stage, place in _stages(modules)
        for ours, theirs in inner.items()
    }


def _resnet(modules: Modules) -> dict[str, str]:
    """kuangliu/pytorch-cifar's names; torchvision's where the stem is that of ImageNet."""
    shortcut, head = ("downsample", "fc") if modules.get("stem_conv", ())[:1] == (7,) else ("shortcut", "linear")
    inner = {name: name for name in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")}
    inner |= {"shortcut_conv": f"{shortcut}.0", "shortcut_bn": f"{shortcut}.1"}
    outside = {"stem_conv": "conv1", "stem_bn": "bn1", "head": head}
    return outside | _in_blocks(modules, "layer{stage}.{place}", inner)


def _preact_resnet(modules: Modules) -> dict[str, str]:
    inner = {name: name for name in ("bn1", "conv1", "bn2", "conv2")} | {"shortcut_conv": "shortcut.0"}
    return {"stem_conv": "conv1", "bn": "bn", "head": "linear"} | _in_blocks(modules, "layer{stage}.{place}", inner)


def _wide_resnet(modules: Modules) -> dict[str, str]:
    inner = {name: name for name in ("bn1", "conv1", "bn2", "conv2")} | {"shortcut_conv": "convShortcut"}
    return {"conv1": "conv1", "bn": "bn1", "head": "fc"} | _in_blocks(modules, "block{stage}.layer.{place}", inner)


def _dm_wide_resnet(modules: Modules) -> dict[str, str]:
    """DeepMind's counts stages from 0."""
    inner = {"bn1": "batchnorm_0", "conv1": "conv_0", "bn2": "batchnorm_1", "conv2": "conv_1", "shortcut_conv": "shortcut"}
    outside = {"conv1": "init_conv", "bn": "batchnorm", "head": "logits"}
    return outside | _in_blocks(modules, "layer.{before}.block.{place}", inner)


def _vgg(modules: Modules, step: int = 1) -> dict[str, str]:
    """``features`` counts every convolution, BatchNorm, ReLU and pool, also a pool that a small map passes by.

    ``classifier`` counts its dense layers and, with a step of 2, a ReLU after each.
    """
    names, index = {}, 0
    for block in range(1, 6):
        layers = [f"{block}_{layer}" for layer in range(1, 5) if f"conv{block}_{layer}" in modules]
        for layer in layers:
            normalised = f"bn{layer}" in modules
            names[f"conv{layer}"] = f"features.{index}"
            if normalised:
                names[f"bn{layer}"] = f"features.{index + 1}"
            index += 3 if normalised else 2
        index += 1
    hidden = [module for module in (f"fc{number}" for number in range(1, 10)) if module in modules]
    if not hidden:
        return names | {"head": "classifier"}
    return names | {module: f"classifier.{step * number}" for number, module in enumerate([*hidden, "head"])}


def _halved(height: int, width: int, times: int, least: int = 0) -> tuple[int, int]:
    for _ in range(times):
        if min(height, width) > least:
            height, width = height // 2, width // 2
    return height, width


_RESNET = Architecture(_resnet, "stem_conv")
_VGG = Architecture(_vgg, "conv1_1", ("fc1", "head"), lambda height, width: _halved(height, width, 5, least=1))
ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "mlp": Architecture(_own(r"fc\d+|head"), "head", ("fc1", "head")),
        "lenet5": Architecture(_own(r"conv[12]|fc1|head"), "conv1", ("fc1",), lambda height, width: _halved(height, width, 2)),
        "merkle_cnn": Architecture(
            _own(r"conv[12]|fc[12]|head"), "conv1", ("fc1",), lambda height, width: _halved(height // 2 - 4, width // 2 - 4, 1)
        ),
        "fitnet4": Architecture(_own(r"conv\d_\d|fc1|head"), "conv1_1"),
        "vgg16": _VGG,
        "vgg16_bn": _VGG,
        "vgg16_survey": Architecture(partial(_vgg, step=2), "conv1_1", ("fc1",), lambda height, width: (2, 2)),
        "resnet8": _RESNET,
        "resnet18": _RESNET,
        "resnet34": _RESNET,
        "resnet50": _RESNET,
        "preactresnet18": Architecture(_preact_resnet, "stem_conv"),
        "wideresnet": Architecture(_wide_resnet, "conv1", unused=("sub_block1.",)),  # of TRADES
        "dm_wideresnet": Architecture(_dm_wide_resnet, "conv1"),
    }
)


def entries(
    params: Params,
    model_state: ModelState,
    *,
    layout: str,
    architecture: str | None = None,
    image_shape: tuple[int, ...] = (),
) -> tuple[Entry, ...]:
    """All tensors of a network, in the order of its leaves: the parameters, then the model state.

    Args:
      params: arrays, or only their shapes (from ``jax.eval_shape``).
      model_state: likewise.
      layout: ``"torch"`` or ``"jax"``.
      architecture: for ``"torch"``, whose names: one of :data:`ARCHITECTURES`.
      image_shape: for ``"torch"``, (H, W, C): what a first dense layer's inputs are the flattening of.

    Raises:
      SettingError: an unknown layout or architecture; a network that is not of this architecture; an image shape that does not
        fit; two tensors of one name.

    Example:
      >>> import numpy as np
      >>> params = {"head": {"kernel": np.zeros((64, 10)), "bias": np.zeros(10)}}
      >>> [(entry.path, entry.name, entry.file_shape) for entry in entries(params, {}, layout="jax")]
      [('params/head/bias', 'params.head.bias', (10,)), ('params/head/kernel', 'params.head.kernel', (64, 10))]
      >>> entries(params, {}, layout="torch", architecture="mlp", image_shape=(8, 8, 1))[1].file_shape
      (10, 64)
    """
    if layout not in LAYOUTS:
        raise SettingError("layout", layout, " or ".join(LAYOUTS))
    tree = {"params": params, "model_state": model_state}
    leaves = sorted(zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True), key=lambda leaf: not leaf[0].startswith("params/"))
    shapes = {path: tuple(leaf.shape) for path, leaf in leaves}
    if layout == "jax":
        found = [Entry(path, path.replace("/", "."), shape, shape, Arranged()) for path, shape in shapes.items()]
    else:
        found = _torch_entries(shapes, architecture, image_shape)
    seen: dict[str, str] = {}
    for entry in found:
        if seen.setdefault(entry.name, entry.path) != entry.path:
            raise SettingError("params", entry.path, f"another name: {seen[entry.name]} is also written as {entry.name}")
    return tuple(found)


def _torch_entries(shapes: Mapping[str, tuple[int, ...]], architecture: str | None, image_shape: tuple[int, ...]) -> list[Entry]:
    if architecture is None or architecture not in ARCHITECTURES:
        expected = f"one of {', '.join(ARCHITECTURES)}; the layout jax holds any network"
        raise SettingError("architecture", architecture, expected)
    if len(image_shape) != 3:
        raise SettingError("image_shape", image_shape, "(H, W, C): the torch layout is that of networks for pictures")
    known = ARCHITECTURES[architecture]
    split = {path: _split(path) for path in shapes}
    modules: dict[str, tuple[int, ...]] = {module: () for module, _ in split.values()}
    modules |= {module: shapes[path] for path, (module, leaf) in split.items() if leaf == "kernel"}
    if known.first not in modules:
        raise SettingError(
            "architecture", architecture, f"that of this network: it has no {known.first}, which a {architecture} has"
        )
    names = known.names(modules)
    flattens = next((module for module in known.flattens if module in modules), None)
    found = []
    for path, (module, leaf) in split.items():
        if module not in names or leaf not in _LEAVES:
            raise SettingError("architecture", architecture, f"that of this network: {path} is no tensor of a {architecture}")
        shape = shapes[path]
        arranged = _arranged(shape, leaf)
        if leaf == "kernel" and module == flattens:
            maps = [kernel for _, kernel in sorted(shapes.items()) if len(kernel) == 4]
            channels = maps[-1][-1] if maps else image_shape[-1]
            arranged = Arranged("flattened", _map_shape(known, path, shape[0], channels, image_shape))
        found.append(Entry(path, f"{names[module]}.{_LEAVES[leaf]}", shape, arranged_shape(shape, arranged), arranged))
    return found


def _split(path: str) -> tuple[str, str]:
    """params/block1/conv1/kernel -> block1/conv1, kernel; model_state/batch_stats/bn/mean -> bn, mean."""
    parts = path.removeprefix("params/").removeprefix("model_state/").removeprefix("batch_stats/").split("/")
    return "/".join(parts[:-1]), parts[-1]


def _arranged(shape: tuple[int, ...], leaf: str) -> Arranged:
    if leaf != "kernel":
        return Arranged()
    return Arranged("conv") if len(shape) == 4 else Arranged("dense")


def _map_shape(
    architecture: Architecture, path: str, inputs: int, channels: int, image_shape: tuple[int, ...]
) -> tuple[int, ...]:
    """(H, W, C) of the map that a dense layer with so many inputs sees flattened."""
    height, width = architecture.pools(*image_shape[:2])
    if height * width * channels != inputs:
        raise SettingError("image_shape", image_shape, f"that of this network's images: {path} has {inputs} inputs")
    return height, width, channels


def layout_of(names: Sequence[str]) -> str:
    """The layout of a file by the names in it.

    Example:
      >>> layout_of(["params.head.kernel"]), layout_of(["linear.weight"])
      ('jax', 'torch')
    """
    return "jax" if any(name.startswith("params.") for name in names) else "torch"
