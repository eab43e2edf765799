"""What masks of a whole network cost: the k-th largest magnitude by bisection, against sorting."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.bench.arms import Measured, Pair, Told, measured, timed
from bap_jax.bench.step import network, read_data
from bap_jax.mathematics.masks import leaf_paths, magnitude_masks
from bap_jax.mathematics.sparsity import kept_count
from bap_jax.models import count_parameters
from bap_jax.runs.settings import Settings
from bap_jax.types import Params, PyTree

BISECTION, SORT, PARTITION = "global masks", "global masks, jnp.sort", "global masks, numpy.partition on the host"


def time_masks(settings: Settings, *, rounds: int, progress: Told) -> Measured:
    """Times global magnitude masks of a new network, and checks that all ways find the same.

    Args:
      settings: the network, the data and the sparsity; checked.
      rounds: how often each way is timed.
      progress: told of the rounds done.

    Raises:
      RuntimeError: they do not.
    """
    source = read_data(settings)
    images = jnp.zeros((1, *source.image_shape), jnp.float32)
    params, _ = network(settings, source).init(jax.random.key(settings.seed), images)
    names = leaf_paths(params)
    chosen = [jnp.ndim(leaf) >= 2 for leaf in jax.tree.leaves(params)]
    total = sum(leaf.size for leaf, yes in zip(jax.tree.leaves(params), chosen, strict=True) if yes)
    kept = int(kept_count(total, settings.final_sparsity))

    def threshold(params: Params, least) -> PyTree:
        leaves, tree = jax.tree.flatten(params)
        return jax.tree.unflatten(
            tree, [abs(leaf) >= least if yes else np.True_ for leaf, yes in zip(leaves, chosen, strict=True)]
        )

    def magnitudes(params: Params, library) -> list:
        return [abs(library.asarray(leaf)).ravel() for leaf, yes in zip(jax.tree.leaves(params), chosen, strict=True) if yes]

    @jax.jit
    def by_sort(params: Params) -> PyTree:
        return threshold(params, jnp.sort(jnp.concatenate(magnitudes(params, jnp)))[-kept])

    def by_partition(params: Params) -> PyTree:
        every = np.concatenate(magnitudes(params, np))
        return threshold(jax.tree.map(np.asarray, params), np.partition(every, len(every) - kept)[-kept])

    ours = jax.jit(lambda params: magnitude_masks(params, settings.final_sparsity, scope="global"))
    ways: dict[str, Callable[[Params], PyTree]] = {BISECTION: ours, SORT: by_sort, PARTITION: by_partition}
    masks = {name: jax.tree.leaves(jax.device_get(way(params))) for name, way in ways.items()}
    for name, found in masks.items():
        for path, mask, mine in zip(names, found, masks[BISECTION], strict=True):
            if not np.array_equal(mask, mine):
                raise RuntimeError(f"{name} finds another mask of {path}")
    arms = {name: timed(lambda way=way: way(params)) for name, way in ways.items()}  # type: ignore[misc]
    pairs = [Pair(f"bisection / {name.partition(', ')[2]}", BISECTION, name) for name in (SORT, PARTITION)]
    return measured(
        "mask", settings, arms, pairs, rounds=rounds, progress=progress, parameters=count_parameters(params), kept=kept
    )


def _sparsity(settings: Settings) -> float:
    return settings.final_sparsity
