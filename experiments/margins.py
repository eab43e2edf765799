"""Whether the blind budget sees margins: those of its search beside the distances that a minimal-norm attack finds.

Command: ``python -m experiments.margins RUN [RUN ...] --data-dir DIR``. For every run folder and every way to search (path and
halving) the median of margin / distance over the images that are right, and its 10 and 90 % quantiles. The distances: FMN of
100 steps in L-infinity and L1, DDN of 100 steps in L2, over the root of D in RMS. In L2 and L1 ``--epsilon-max`` says how far the
search goes. On a linear network the way through the balls has the ratio 1 up to the resolution of halving, so what is above is
curvature, resolution and, on the ray, the walls of the box.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.table import Table

from bap_jax.attacks import ddn, fmn
from bap_jax.cli.process import set_up_process
from bap_jax.cli.screen import console
from bap_jax.data import evaluation_batches
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.runs.datasets import split_of
from bap_jax.runs.margins import margins_of, ratios_of
from bap_jax.runs.restore import stored_network

WAYS: tuple[dict[str, Any], ...] = (
    {"path": "ball", "halving": "log", "num_bisections": 6},
    {"path": "ball", "halving": "linear", "num_bisections": 6},
    {"path": "ray", "halving": "log", "num_bisections": 6},
    {"path": "ray", "halving": "linear", "num_bisections": 6},
    {"path": "ball", "halving": "log", "num_bisections": 10},
    {"path": "ray", "halving": "linear", "num_bisections": 12},
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Which networks, and on what."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""
    norm: Literal["linf", "l2", "l1", "rms"] = "linf"
    """The norm of margins and distances."""
    epsilon_max: float | None = None
    """The radius of the search; by default the width of the box."""
    limit: int = 256
    """On so many test images, the first ones."""
    steps: int = 100
    """Steps of FMN or DDN."""
    data_dir: str | None = None
    """Folder with prepared TFDS data sets; else where the run found them."""


def main() -> int:
    given = tyro.cli(Arguments, description=__doc__)
    set_up_process(None)
    for run in given.runs:
        measure(run, given)
    return 0


def measure(run: Path, given: Arguments) -> None:
    """Prints the table of one run."""
    stored = stored_network(run)
    settings = stored.settings.changed(budget="cutoff-scale", norm=given.norm, search="pgd")
    settings = settings.changed(epsilon_max=given.epsilon_max, search_steps=None)
    test = split_of(settings, "test", given.data_dir)
    net = stored.on(test)
    step, predict, weights = stored.step, net.predict, net.weights
    batch = next(iter(evaluation_batches(test, min(given.limit, len(test)), limit=given.limit)))
    images, labels = jnp.asarray(batch.images), jnp.asarray(batch.labels)
    keys = jax.random.split(jax.random.key(0), len(labels))

    @jax.jit
    def distances(weights, keys):
        logits_fn = lambda points: predict(weights, points)  # noqa: E731
        if given.norm == "l2" or given.norm == "rms":
            found = ddn(logits_fn, keys, images, labels, num_steps=given.steps, bounds=test.bounds)
        else:
            found = fmn(logits_fn, keys, images, labels, norm=given.norm, num_steps=given.steps, bounds=test.bounds)
        return jnp.where(found.found, per_example_norm(found.images - images, given.norm), jnp.inf), logits_fn(images)

    nearest, logits = (np.asarray(one) for one in distances(weights, keys))
    right = np.argmax(logits, axis=1) == np.asarray(labels)
    known = nearest[right & np.isfinite(nearest)]
    title = f"{run}, step {step}: {right.mean():.0%} right, distance {given.norm} {quantiles(known, 4)}"
    table = Table(title=title, title_justify="left")
    for column in ("path", "halving", "bisections", "margin / distance", "not found"):
        table.add_column(column, justify="left" if column in ("path", "halving") else "right")
    for way in WAYS:
        margins = margins_of(settings.changed(**way), predict, weights, batch, test.bounds)
        widest = given.epsilon_max or float(np.max(np.asarray(test.bounds.upper) - np.asarray(test.bounds.lower)))
        told = quantiles(ratios_of(np.where(right, margins, 0.0), nearest), 2)
        table.add_row(*map(str, way.values()), told, str(int((margins[right] >= widest).sum())))
    console().print(table)


def quantiles(values: np.ndarray, digits: int) -> str:
    """The median and, in brackets, the 10 and 90 % quantiles.

    Example:
      >>> quantiles(np.arange(11.0), 1)
      '5.0 (1.0 to 9.0)'
    """
    low, median, high = np.quantile(values, (0.1, 0.5, 0.9)) if values.size else (math.nan,) * 3
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
