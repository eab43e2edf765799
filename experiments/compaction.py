"""What filter pruning saves once it is cut: networks with half and three quarters of their coupled channels gone, compacted.

Command: ``python -m experiments.compaction``. For every network and share: the largest difference of a logit over the largest
logit, how many of 256 images have the same verdict under PGD-20 (8/255, each network attacked by itself), FLOPs, bytes and
memory of a batch of 128 after over before, and the measured latency at batch 1 and 128, interleaved, on the default device.
Latency asks for no trained weights: they are as they are initialised, vectors with some noise, so that nothing is zero by
chance, and BatchNorm's statistics are those of 32 images. The same share is pruned in every group (``ranking="local"``), by L1.
Images are random pixels of CIFAR-10's shape, unless ``--data-dir`` says where CIFAR-10 is; labels are what the pruned network
says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from bap_jax import data, models
from bap_jax.atomic import json_text, write_atomic
from bap_jax.cli.process import set_up_process
from bap_jax.cli.screen import console
from bap_jax.data import Source
from bap_jax.mathematics.group_masks import group_masks
from bap_jax.mathematics.masks import apply_masks
from bap_jax.runs.compaction import compare, compression
from bap_jax.runs.deployed import Deployed
from bap_jax.runs.footprint import footprints, measured_on
from bap_jax.structure import compact, groups_of
from bap_jax.types import Model, Network

SHAPE, CLASSES = (32, 32, 3), 10
PASSES, SETTLING = 20, 32  # in training mode, for BatchNorm's statistics, on so many images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Which networks, and how they are measured."""

    networks: Annotated[tuple[str, ...], tyro.conf.Positional] = ("resnet8", "resnet18", "vgg16")
    """Networks that take the width of every layer."""
    sparsities: tuple[float, ...] = (0.5, 0.75)
    """Shares of the coupled channels."""
    examples: int = 256
    """Images to compare both networks on; 0 compares nothing."""
    epsilon: float = 8 / 255
    """Radius of PGD-20 on them, L∞."""
    rounds: int = 7
    """Samples of each latency."""
    data_dir: str | None = None
    """Folder with prepared TFDS data sets, to take the images from CIFAR-10."""
    seed: int = 0
    """Of weights and images."""
    out: Path | None = None
    """Write the figures as JSON, network by network."""


def pruned(model: Model, sparsity: float, images: np.ndarray, seed: int) -> Network:
    """A network with this share of every family's groups gone, its statistics those of images."""
    params, model_state = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, *SHAPE)))
    groups, random = groups_of(model, params, model_state, SHAPE), np.random.default_rng(seed)
    shifted = jax.tree.map(lambda leaf: leaf + 0.1 * random.normal(size=leaf.shape) if leaf.ndim < 2 else leaf, params)

    @jax.jit
    def masked(params: Any) -> Any:
        masks = group_masks(params, sparsity, groups, scope="coupled")
        return apply_masks(params, masks), masks

    params, masks = masked(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), shifted))
    settle = jax.jit(
        lambda params, state: model.apply(params, state, jnp.asarray(images), train=True, key=jax.random.key(seed))[1]
    )
    for _ in range(PASSES if jax.tree.leaves(model_state) else 0):
        model_state = settle(params, model_state)
    return Network(params, masks, model_state)


def images_of(arguments: Arguments) -> Source:
    """CIFAR-10's test images, or random pixels with the labels of nothing."""
    count = max(arguments.examples, SETTLING)
    if arguments.data_dir is not None:
        return data.load_split("cifar10", "test", data_dir=arguments.data_dir, limit=count)
    random = np.random.default_rng(arguments.seed)
    images = random.uniform(size=(count, *SHAPE)).astype(np.float32)
    return data.Dataset(images, np.arange(count, dtype=np.int32) % CLASSES, CLASSES, name="random pixels", split="test")


def measure(name: str, sparsity: float, arguments: Arguments, source: Source) -> dict[str, Any]:
    """One network, before and after."""
    model = models.build(name, num_classes=CLASSES)
    network = pruned(model, sparsity, pixels_of(source)[:SETTLING], arguments.seed)
    small, widths, report = compact(models.build(name, num_classes=CLASSES, conv="plain"), network, SHAPE)
    before = Deployed(model, network, SHAPE)
    after = Deployed(models.build(name, num_classes=CLASSES, widths=widths), small, SHAPE)
    found = {"network": name, "sparsity": sparsity, **compression(network, report), "measured_on": measured_on()}
    found |= footprints({"before": before, "after": after}, rounds=arguments.rounds)
    if arguments.examples:
        labelled = labelled_by(before, source)
        found["compared"] = compare(before, after, labelled, examples=arguments.examples, epsilon=arguments.epsilon, norm="linf")
    return found


def pixels_of(source: Source) -> np.ndarray:
    """All images of a source, float32."""
    images, _ = source.read(np.arange(len(source)))
    return np.asarray(images, np.float32) / (255 if images.dtype == np.uint8 else 1)


def labelled_by(net: Deployed, source: Source) -> Source:
    """The images with what a network says to them: random weights would be right by chance only."""
    pixels = pixels_of(source)
    said = np.concatenate([np.asarray(net(pixels[start : start + 128])).argmax(-1) for start in range(0, len(pixels), 128)])
    return data.Dataset(pixels, said.astype(np.int32), CLASSES, name=source.name, split="test")


COLUMNS = (
    "network",
    "pruned",
    "|Δlogit|",
    "same verdicts",
    "FLOPs",
    "parameters",
    "memory, 128",
    "latency, 1",
    "latency, 128",
    "processor time, 128",
)


def line(one: Mapping[str, Any]) -> Iterator[str]:
    """One network as a line of the table: after over before."""
    before, after, compared = one["before"], one["after"], one.get("compared")
    yield one["network"]
    yield f"{100 * one['sparsity']:g} %"
    yield "" if compared is None else f"{compared['logits']:.0e}"
    yield "" if compared is None else f"{compared['attacked']} of {compared['examples']} ({compared['fooled']} fooled)"
    for name in ("flops_dense", "num_parameters"):
        yield f"{after[name] / before[name]:.3f}"
    yield f"{after['memory']['128'] / before['memory']['128']:.3f}"
    for column, batch in (("ratio", "1"), ("ratio", "128"), ("processor", "128")):
        ratio = after[column].get(batch)
        yield "" if ratio is None else f"{ratio['median']:.3f} ({ratio['low']:.2f}–{ratio['high']:.2f})"


def main(arguments: Arguments) -> None:
    """Measures every network and prints the table."""
    set_up_process(None)
    screen, source = console(), images_of(arguments)
    for row in (COLUMNS, ["---"] * len(COLUMNS)):
        screen.print(f"| {' | '.join(row)} |", highlight=False, soft_wrap=True)
    found: list[dict[str, Any]] = []
    for name in arguments.networks:
        for sparsity in arguments.sparsities:
            found.append(measure(name, sparsity, arguments, source))
            screen.print(f"| {' | '.join(line(found[-1]))} |", highlight=False, soft_wrap=True)
            if arguments.out is not None:
                write_atomic(arguments.out, json_text(found, indent=1) + "\n")
    there = found[-1]["measured_on"]
    screen.print(f"{there['device']}, {there['cores']} cores, load {there['load']:.1f}, jax {there['jax']}", highlight=False)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
