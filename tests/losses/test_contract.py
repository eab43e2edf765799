"""What every loss keeps to. A new one is covered by its row in ``LOSSES``."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loss_values import ATTACKED, CLEAN, INFO, LABELS, B, K, teach, value

from bap_jax import budgets, losses, models, pruners
from bap_jax.attacks import fgsm
from bap_jax.training import init_state, make_train_step
from bap_jax.types import Batch

LOSSES = {name: getattr(losses, name)() for name in ("clean", "mix", "madry", "mma", "trades", "mart")} | {
    "distill": losses.distill(teach),
    "distill_hsic": losses.distill_hsic(teach, lambda_x=0.1, lambda_y=0.2, sigma=1.0, epsilon=0.1),
}
MODEL = models.from_function(
    lambda key, x: {"w": jax.random.normal(key, (4, K))},
    lambda params, x: (x @ params["w"], {"features": jnp.tanh(x @ params["w"])}),
)
BATCH = Batch(jax.random.uniform(jax.random.key(0), (B, 4)), LABELS, jnp.arange(B), jnp.ones(B))

each = pytest.mark.parametrize("name", LOSSES)


def test_every_loss_is_in_the_list():
    made = [name for name in losses.__all__ if inspect.isfunction(found := getattr(losses, name)) and returns_one(found)]
    assert sorted(made) == sorted(LOSSES)


def returns_one(function):
    return inspect.signature(function).return_annotation == "Loss"


@each
def test_padding_changes_nothing_even_where_it_is_extreme(name):
    extreme = jnp.full((3, K), 50.0).at[:, 2].set(-50.0)
    padded = [jnp.concatenate([logits, extreme]) for logits in (CLEAN, ATTACKED)]
    weight = jnp.array([1.0] * B + [0.0] * 3)
    targets = jax.nn.one_hot(jnp.concatenate([LABELS, LABELS[:3]]), K)
    plain, metrics = value(LOSSES[name])
    found, padded_metrics = value(LOSSES[name], *padded, weight=weight, targets=targets)
    assert float(found) == pytest.approx(float(plain), rel=1e-5)
    for key, metric in metrics.items():
        assert float(padded_metrics[key]) == pytest.approx(float(metric), rel=1e-5), key
    gradient = jax.grad(lambda logits: value(LOSSES[name], *logits, weight=weight, targets=targets)[0])(tuple(padded))
    assert all(bool(jnp.all(part[B:] == 0)) for part in gradient)


@each
def test_certain_predictions_give_finite_losses_and_gradients(name):
    certain = 200 * jax.nn.one_hot(LABELS, K)
    wrong = 200 * jax.nn.one_hot((LABELS + 1) % K, K)
    for pair in ((certain, certain), (certain, wrong), (wrong, wrong)):
        found, gradient = jax.value_and_grad(lambda logits: value(LOSSES[name], *logits)[0])(pair)
        assert np.isfinite(found) and all(bool(jnp.all(jnp.isfinite(part))) for part in gradient)


@functools.cache
def program(name):
    """One program for all steps with a loss: a second trace, or a second forward pass, is an error."""
    traces, passes = [], []

    def apply(params, model_state, images, *, train, key=None):
        passes.extend([None] * train)
        return MODEL.apply(params, model_state, images, train=train, key=key)

    slots = optax.sgd(0.1), pruners.dense(), budgets.uniform(fgsm, 0.05), LOSSES[name]
    step = make_train_step(apply, *slots)

    def traced(state, batch):
        assert not traces, "a second compile"
        traces.append(None)
        result = step(state, batch)
        assert len(passes) == 1, "BatchNorm statistics would move more than once"
        return result

    start = init_state(MODEL, *slots, key=jax.random.key(0), images=BATCH.images, info=INFO)
    return jax.tree.map(np.array, start._replace(key=jax.random.key_data(start.key))), jax.jit(traced, donate_argnums=0)


def on_the_device(host):
    state = jax.tree.map(jnp.array, host)
    return state._replace(key=jax.random.wrap_key_data(state.key))


@each
def test_it_is_one_pass_and_one_program_and_keeps_the_form_of_its_state(name):
    start, step = program(name)
    state = on_the_device(start)
    kept = state.loss
    after, metrics = step(state, BATCH)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after.loss) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), jax.tree.map(jnp.asarray, start.loss)
    )
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(kept))
    assert all(metric.shape == () and metric.dtype == jnp.float32 and np.isfinite(metric) for metric in metrics.values())
    assert {"loss"} < set(metrics)
    # what the host saw goes on to the same bits
    host = jax.tree.map(np.array, after._replace(key=jax.random.key_data(after.key)))
    ends = [step(state, BATCH)[0] for state in (after, on_the_device(host))]
    jax.tree.map(np.testing.assert_array_equal, ends[0].trainable, ends[1].trainable)


@each
def test_what_its_state_holds_may_differ_between_copies(name):
    loss = LOSSES[name]
    state = loss.init({"w": jnp.ones((4, K))}, {}, INFO)
    if not jax.tree.leaves(state):
        return
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), state)
    axes = 0 if loss.axes is None else loss.axes(state)
    many = jax.vmap(lambda state: value(loss, state=state)[0], in_axes=(axes,))(both)
    for number in range(2):
        alone = value(loss, state=jax.tree.map(lambda leaf, number=number: leaf[number], both))[0]
        assert float(many[number]) == pytest.approx(float(alone), rel=1e-5)


@each
def test_it_says_whether_it_is_a_mean_over_examples(name):
    """Of such a loss, and of no other, the parts of a batch average to the whole by their share of the weight."""
    first, second = jnp.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.0]), jnp.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0])
    of_parts = sum(float(weight.sum()) * float(value(LOSSES[name], weight=weight)[0]) for weight in (first, second)) / B
    of_whole = float(value(LOSSES[name], weight=first + second)[0])
    assert LOSSES[name].per_example_mean == (of_parts == pytest.approx(of_whole, rel=1e-5))
