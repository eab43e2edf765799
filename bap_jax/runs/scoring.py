"""Masks before the first step: what the pruners find that look once, under attack, at the batches of their phase."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import apply_masks, fitted_masks, leaf_paths
from bap_jax.plugins import import_object
from bap_jax.pruners.saliency import adversarial_saliency, saliency_masks
from bap_jax.pruners.sensitivity import even_rates, filter_damage, filter_masks
from bap_jax.runs import options
from bap_jax.runs.factories import PRUNABLE, filled
from bap_jax.runs.settings import Settings
from bap_jax.structure import groups_of
from bap_jax.types import Array, Batch, Model, Network, PyTree, RunInfo


@dataclasses.dataclass(frozen=True)
class Scoring:
    """The score of a phase that settings describe, as :class:`bap_jax.types.Phase` has it."""

    settings: Settings

    def __call__(self, info: RunInfo, network: Network, batches: Iterable[Batch], key: Array) -> PyTree:
        masks = fitted_masks(network.params, network.masks)
        network = network._replace(params=apply_masks(network.params, masks), masks=masks)
        return import_object("--pruner", self.settings.row("pruner").score)(self.settings, info, network, batches, key)


def scoring_of(settings: Settings) -> Scoring | None:
    """The score of the settings' pruner; None of one that finds its masks while it trains."""
    return Scoring(settings) if settings.knows("pruner") and settings.row("pruner").score else None


def mad(settings: Settings, info: RunInfo, network: Network, batches: Iterable[Batch], key: Array) -> PyTree:
    """Adversarial saliency, averaged over batches: an epoch, unless they are counted."""
    own = settings.pruner_options
    assert isinstance(own, options.MAD)
    prunable = PRUNABLE[own.prunable]
    how: dict[str, Any] = {"num_steps": own.mask_steps, "rate": own.mask_rate, "curvature": own.curvature, "prunable": prunable}
    score = jax.jit(functools.partial(adversarial_saliency, info.apply, **how))
    total: PyTree = None
    for attacked in attacked_batches(settings, info, network, batches, key, own.batches or max(1, info.steps_per_epoch)):
        found = score(network, *attacked)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    return jax.jit(lambda scores: saliency_masks(scores, settings.final_sparsity, prunable=prunable, within=network.masks))(total)


def sensitive_filters(settings: Settings, info: RunInfo, network: Network, batches: Iterable[Batch], key: Array) -> PyTree:
    """The rates at which all layers are harmed alike, and of each layer the filters of largest norm."""
    own = settings.pruner_options
    assert isinstance(own, options.SensitiveFilters)
    prunable, leaves = PRUNABLE[own.prunable], dict(zip(leaf_paths(network.params), jax.tree.leaves(network.params), strict=True))
    groups = groups_of(Model(_no_init, info.apply), network.params, network.model_state, info.image_shape)
    layers = [
        layer.path
        for layer in groups.layers
        if layer.free_outputs and layer.output_axis == leaves[layer.path].ndim - 1 and prunable(layer.path, leaves[layer.path])
    ]
    shares = [place / own.levels for place in range(1, own.levels + 1)]
    measure = jax.jit(functools.partial(filter_damage, info.apply, layers=layers, shares=shares))
    seen = attacked_batches(settings, info, network, batches, key, own.batches)
    damage = np.mean([np.asarray(measure(network, *attacked), np.float64) for attacked in seen], axis=0)
    rates = even_rates(damage, shares, [leaves[layer].shape[-1] for layer in layers], settings.final_sparsity)
    return filter_masks(network.params, dict(zip(layers, rates.tolist(), strict=True)), within=network.masks)


def attacked_batches(
    settings: Settings, info: RunInfo, network: Network, batches: Iterable[Batch], key: Array, count: int
) -> Iterator[tuple[Array, Array, Array]]:
    """The examples that the phase's budget makes of its first batches, against the network as it begins.

    Args:
      settings, info: of the phase.
      network: what is attacked.
      batches: of the phase; not augmented.
      key: typed PRNG key.
      count: how many batches.

    Yields:
      Images [B, ...], labels [B] and weights [B].
    """
    budget = filled("budget", settings, info)

    @jax.jit
    def perturbed(network: Network, batch: Batch, state: PyTree, step: Array) -> tuple[Array, PyTree]:
        def logits_fn(images: Array) -> Array:
            return info.apply(network.params, network.model_state, images, train=False)[0].logits

        rows = jnp.arange(batch.labels.shape[0])
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.fold_in(key, step), rows)
        adversarial, state = budget.perturb(keys, logits_fn, batch, state, step=jnp.int32(0), gather=lambda x: x)
        return adversarial.images, state

    state = budget.init(info)
    for step, batch in enumerate(itertools.islice(batches, count)):
        images, state = perturbed(network, batch, state, jnp.int32(step))
        yield images, batch.labels, batch.weight


def _no_init(key: Array, images: Array):
    raise SettingError("init", None, "nobody to ask for new weights here")
