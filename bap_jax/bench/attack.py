"""What an attack costs: PGD by convolutions of either form, by `bap.fast`, and against a forward pass."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from bap_jax.attacks import pgd
from bap_jax.bench.arms import Measured, Pair, Told, measured, timed
from bap_jax.bench.step import first_batch, network, read_data
from bap_jax.mathematics.fast import fast
from bap_jax.runs.settings import Settings
from bap_jax.types import Array, Model

FORWARD, FAST, PLAIN, REPLACED = "forward pass", "PGD", "PGD, plain convolutions", "PGD, plain convolutions in bap.fast"


def time_attacks(settings: Settings, *, rounds: int, progress: Told) -> Measured:
    """Times PGD on a new network.

    Args:
      settings: of the network, the data and the attack; checked.
      rounds: how often each arm is timed.
      progress: told of the rounds done.

    Raises:
      SettingError: a batch larger than the training data.
    """
    source = read_data(settings)
    batch = first_batch(settings, source)
    steps = settings.value("attack.num_steps")
    models = {kind: network(settings, source, conv=kind) for kind in ("fast", "plain")}
    weights = models["fast"].init(jax.random.key(settings.seed), batch.images[:1])
    keys = jax.random.split(jax.random.key(1), len(batch.labels))

    def logits(apply: Any, weights: Any, images: Array) -> Array:
        return apply(*weights, images, train=False)[0].logits

    def attack(model: Model, change: Any = lambda function: function) -> Any:
        def run(weights: Any, keys: Array, images: Array, labels: Array) -> Array:
            predict = change(functools.partial(logits, model.apply))
            logits_fn = lambda images: predict(weights, images)  # noqa: E731
            return pgd(logits_fn, keys, images, labels, epsilon=0.1, norm="linf", num_steps=steps, bounds=source.bounds).images

        return timed(functools.partial(jax.jit(run), weights, keys, batch.images, batch.labels))

    forward = jax.jit(functools.partial(logits, models["fast"].apply))
    arms = {FAST: attack(models["fast"]), FORWARD: timed(lambda: forward(weights, batch.images))}
    pairs = [Pair(f"PGD-{steps} / a forward pass", FAST, FORWARD)]
    if any(jnp.ndim(leaf) == 4 for leaf in jax.tree.leaves(weights)):
        arms |= {PLAIN: attack(models["plain"]), REPLACED: attack(models["plain"], fast)}
        pairs += [Pair("fast / plain convolutions", FAST, PLAIN), Pair("bap.fast / plain convolutions", REPLACED, PLAIN)]
        pairs += [Pair("bap.fast / fast convolutions", REPLACED, FAST)]
    return measured("attack", settings, arms, pairs, rounds=rounds, progress=progress, images=settings.batch_size)
