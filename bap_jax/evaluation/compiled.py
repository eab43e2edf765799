"""The compiled programs of an evaluation: look at clean images, attack them, judge what comes back.

Each is compiled once per ``predict`` and attack; weights, budgets and the number of an attempt are traced.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bap_jax.attacks import bisection
from bap_jax.evaluation import truncated
from bap_jax.inputs import require_logits
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.mathematics.objectives import cross_entropy, margin, successful
from bap_jax.mathematics.projections import clip_to_bounds
from bap_jax.types import NORMS, Array, AttackResult, Batch, Bounds, LogitsFn, Params

Predict = Callable[..., Array]  # (params, images [B, ...]) -> logits [B, K]; of a random network (params, images, keys=None)


@partial(jax.jit, static_argnums=0)
def look(predict: Predict, params: Params, batch: Batch, boxes: tuple[Bounds, ...]) -> dict[str, Array]:
    """The clean images: predictions, and what the checks on the model want to know."""

    def loss(images: Array) -> tuple[Array, Array]:
        logits = _logits(predict, params, images)
        return jnp.sum(cross_entropy(logits, batch.labels)), logits

    gradient, logits = jax.grad(loss, has_aux=True)(batch.images)
    margin_gradient = jax.grad(lambda images: jnp.sum(margin(predict(params, images), batch.labels)))(batch.images)
    flat = batch.images.reshape(batch.images.shape[0], -1)
    return {
        "index": batch.index,
        "label": batch.labels,
        "weight": batch.weight,
        "logits": logits,
        "prediction": jnp.argmax(logits, axis=1),
        "finite": jnp.all(jnp.isfinite(logits), axis=1),
        "probabilities": jnp.all(logits >= 0, axis=1) & (jnp.abs(jnp.sum(logits, axis=1) - 1) < 1e-3),
        "gradient": per_example_norm(gradient, "linf"),
        "margin_gradient": per_example_norm(margin_gradient, "linf"),
        "finite_image": jnp.all(jnp.isfinite(flat), axis=1),
        "boxed": jnp.stack([_boxed(batch.images, bounds) for bounds in boxes], axis=1) if boxes else flat[:, :0] == 0,
    }


@partial(jax.jit, static_argnums=(0, 1))
def attack(predict: Predict, function: Callable, params: Params, key: Array, batch: Batch, epsilon: Array, attempt: Array):
    """``function(logits_fn, keys, images, labels, epsilon, attempt)``, with the keys of the rows' positions in the data set."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch.index)
    return function(_logits_fn(predict, params), keys, batch.images, batch.labels, epsilon, attempt)


@partial(jax.jit, static_argnums=0)
def judge(predict: Predict, params: Params, batch: Batch, images: Array, bounds: Bounds) -> dict[str, Array]:
    """Attacked images, measured and predicted by a program that knows nothing of the attack."""
    logits = _logits(predict, params, images)
    wide = _wide(images)
    delta = images.astype(wide) - batch.images.astype(wide)  # half precision would round a point out of its ball
    return {
        "logits": logits,
        "label": batch.labels,
        "prediction": jnp.argmax(logits, axis=1),
        **{norm: per_example_norm(delta, norm) for norm in NORMS},
        "boxed": _boxed(images, bounds),
        "finite": jnp.all(jnp.isfinite(images.reshape(images.shape[0], -1)), axis=1),
        "answered": jnp.all(jnp.isfinite(logits), axis=1),
        "fooled": successful(logits, batch.labels),
        "right": successful(logits, batch.labels, targeted=True),
    }


@partial(jax.jit, static_argnums=(0, 1))
def shrink(predict: Predict, norm: Any, params: Params, batch: Batch, images: Array, bounds: Bounds) -> AttackResult:
    """Adversarial images drawn towards the clean ones as far as they stay adversarial."""
    return bisection(
        _logits_fn(predict, params), None, batch.images, batch.labels, adversarial=images, norm=norm, bounds=bounds, num_steps=12
    )


@partial(jax.jit, static_argnums=0)
def cut(norm: Any, images: Array, attacked: Array, epsilon: Array, bounds: Bounds) -> Array:
    """Perturbations cut to a budget."""
    return truncated.cut(images, attacked, epsilon, norm, bounds)


@jax.jit
def movement(losses: Array) -> tuple[Array, Array]:
    """How much the objective rose over all steps, and over the last quarter of them (at most ten)."""
    steps = losses.shape[0]
    window = max(1, min(10, steps // 4))
    return losses[-1] - losses[0], losses[-1] - losses[max(0, steps - 1 - window)]


def _logits(predict: Predict, params: Params, images: Array) -> Array:
    """What the network says, in float32 or wider; refused while tracing unless it is one array of logits."""
    logits = predict(params, images)
    require_logits(logits, images.shape[0], "predict")
    return jnp.asarray(logits, _wide(logits))


def _wide(values: Array) -> Any:
    return jnp.promote_types(values.dtype, jnp.float32)


def _logits_fn(predict: Predict, params: Params) -> LogitsFn:
    return lambda images, *keys: predict(params, images, *keys)  # keys: where an attack wants draws of a random network


def _boxed(images: Array, bounds: Bounds) -> Array:
    points = images.astype(_wide(images))
    distance = jnp.abs(points - clip_to_bounds(points, bounds))
    slack: Any = 1e-6
    if points.dtype != images.dtype:  # a wall that half precision does not hold
        sides = jnp.maximum(*(jnp.where(jnp.isfinite(side), jnp.abs(side), 0) for side in map(jnp.asarray, bounds)))
        slack = slack + float(jnp.finfo(images.dtype).eps) * jnp.max(sides)
    return jnp.max(distance.reshape(images.shape[0], -1), axis=1) <= slack
