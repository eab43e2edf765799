"""What filter pruning saves once it is cut: networks with half and three quarters of their coupled channels gone, compacted.

Command: ``python -m experiments.compaction``. For every network and share: the largest difference of a logit over the largest
logit, how many of 256 images have the same verdict under PGD-20 (8/255, each network attacked by itself), FLOPs, bytes and
memory of a batch of 128 after over before, and the measured latency at batch 1 and 128, interleaved, on the default device.
Latency asks for no trained weights: kernels are as they are initialised, biases, BatchNorm and its statistics are random, so
that nothing is zero by chance. The same share is pruned in every group (``ranking="local"``), by L1. Images are random
pixels of CIFAR-10's shape, unless ``--data-dir`` says where CIFAR-10 is; labels are what the pruned network says.
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
from rich.table import Table

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


def drawn(model: Model, seed: int) -> tuple[Any, Any]:
    """Parameters as they are initialised, their vectors and all statistics drawn anew: none is 0 or 1."""
    params, model_state = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, *SHAPE)))
    random = np.random.default_rng(seed)

    def vector(leaf: Any) -> Any:
        return jnp.asarray(random.uniform(0.5, 1.5, leaf.shape), jnp.float32) if leaf.ndim < 2 else leaf

    return jax.tree.map(vector, params), jax.tree.map(vector, model_state)


def pruned(model: Model, sparsity: float, seed: int) -> Network:
    """A network with this share of every family's groups gone."""
    params, model_state = drawn(model, seed)
    groups = groups_of(model, params, model_state, SHAPE)
    masks = jax.jit(lambda params: group_masks(params, sparsity, groups, scope="coupled"))(params)
    return Network(apply_masks(params, masks), masks, model_state)


def images_of(arguments: Arguments) -> Source:
    """CIFAR-10's test images, or random pixels with the labels of nothing."""
    if arguments.data_dir is not None:
        return data.load_split("cifar10", "test", data_dir=arguments.data_dir, limit=arguments.examples)
    random, count = np.random.default_rng(arguments.seed), max(arguments.examples, 1)
    images = random.uniform(size=(count, *SHAPE)).astype(np.float32)
    return data.Dataset(images, np.arange(count, dtype=np.int32) % CLASSES, CLASSES, name="random pixels", split="test")


def measure(name: str, sparsity: float, arguments: Arguments, source: Source) -> dict[str, Any]:
    """One network, before and after."""
    model = models.build(name, num_classes=CLASSES)
    network = pruned(model, sparsity, arguments.seed)
    small, widths, report = compact(models.build(name, num_classes=CLASSES, conv="plain"), network, SHAPE)
    before = Deployed(model, network, SHAPE)
    after = Deployed(models.build(name, num_classes=CLASSES, widths=widths), small, SHAPE)
    found = {"network": name, "sparsity": sparsity, **compression(network, report), "measured_on": measured_on()}
    found |= footprints({"before": before, "after": after}, rounds=arguments.rounds)
    if arguments.examples:
        labelled = labelled_by(before, source)
        found["compared"] = compare(before, after, labelled, examples=arguments.examples, epsilon=arguments.epsilon, norm="linf")
    return found


def labelled_by(net: Deployed, source: Source) -> Source:
    """The images with what a network says to them: random weights would be right by chance only."""
    images, _ = source.read(np.arange(len(source)))
    pixels = np.asarray(images, np.float32) / (255 if images.dtype == np.uint8 else 1)
    said = np.concatenate([np.asarray(net(pixels[start : start + 128])).argmax(-1) for start in range(0, len(pixels), 128)])
    return data.Dataset(pixels, said.astype(np.int32), CLASSES, name=source.name, split="test")


def table(found: list[dict[str, Any]]) -> Table:
    """The figures as a table."""
    shown = Table(title="compaction", title_justify="left")
    columns = (
        "network",
        "pruned",
        "|Δlogit|",
        "same verdicts",
        "FLOPs",
        "parameters",
        "memory, 128",
        "latency, 1",
        "latency, 128",
    )
    for column in columns:
        shown.add_column(column, justify="left" if column == "network" else "right")
    for one in found:
        shown.add_row(*line(one))
    return shown


def line(one: Mapping[str, Any]) -> Iterator[str]:
    """A line of it: after over before."""
    before, after, compared = one["before"], one["after"], one.get("compared")
    yield one["network"]
    yield f"{100 * one['sparsity']:g} %"
    yield "" if compared is None else f"{compared['logits']:.0e}"
    yield "" if compared is None else f"{compared['attacked']} of {compared['examples']}, {compared['fooled']} fooled"
    for name in ("flops_dense", "num_parameters"):
        yield f"{after[name] / before[name]:.3f}"
    yield f"{after['memory']['128'] / before['memory']['128']:.3f}"
    for batch in ("1", "128"):
        ratio = after["ratio"].get(batch)
        yield "" if ratio is None else f"{ratio['median']:.3f} ({ratio['low']:.2f}–{ratio['high']:.2f})"


def main(arguments: Arguments) -> None:
    """Measures every network and prints the table."""
    set_up_process(None)
    screen, source = console(), images_of(arguments)
    found: list[dict[str, Any]] = []
    for name in arguments.networks:
        for sparsity in arguments.sparsities:
            found.append(measure(name, sparsity, arguments, source))
            screen.print(" | ".join(line(found[-1])), highlight=False)
            if arguments.out is not None:
                write_atomic(arguments.out, json_text(found, indent=1) + "\n")
    there = found[-1]["measured_on"]
    screen.print(table(found))
    screen.print(f"{there['device']}, {there['cores']} cores, load {there['load']:.1f}, jax {there['jax']}", highlight=False)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
