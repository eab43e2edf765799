"""What a step over several devices tells: the same few messages on two devices and on eight, none of them in an attack."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
import pytest
from told import told

from bap_jax import budgets, losses, models, pruners
from bap_jax.attacks import pgd
from bap_jax.mathematics.schedules import Ramp
from bap_jax.parallel import batch_sharding, data_mesh, jit_step, replicated
from bap_jax.parallel.collectives import collectives
from bap_jax.training import init_state, make_train_step
from bap_jax.types import Batch

B, D, K = 32, 12, 4
MODEL = models.from_function(
    lambda key, x: {"a": jax.random.normal(key, (D, 16)), "b": jax.random.normal(key, (16, K))},
    lambda params, x: jnp.tanh(x @ params["a"]) @ params["b"],
)
WEIGHTS = 4 * (D * 16 + 16 * K)  # bytes


def told_in(devices, cutoff, **chunks):
    attack = partial(pgd, norm="linf", num_steps=2)
    budget = budgets.cutoff_scale(budgets.pgd_search(), attack, cutoff=budgets.parse_cutoff(cutoff))
    slots = optax.sgd(0.1, momentum=0.9), pruners.magnitude(Ramp(0.0, 0.5, 0, 4, 2)), budget, losses.mix()
    mesh = data_mesh(devices)
    state = jax.eval_shape(lambda: init_state(MODEL, *slots, key=jax.random.key(0), images=jnp.zeros((1, D)), info=told(B)))
    placed = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # noqa: E731
    batch = jax.eval_shape(lambda: Batch(jnp.zeros((B, D)), jnp.zeros(B, int), jnp.zeros(B, int), jnp.ones(B)))
    step = jit_step(make_train_step(MODEL.apply, *slots, **chunks), mesh)
    arguments = [
        jax.tree.map(partial(placed, sharding=to(mesh)), tree) for tree, to in ((state, replicated), (batch, batch_sharding))
    ]
    return collectives(step.lower(*arguments).compile().as_text())


@pytest.mark.parametrize(("cutoff", "gathers"), [("mean", 1), ("quantile:0.5", 2)])
def test_one_message_has_the_gradient_of_all_weights(cutoff, gathers):
    """Besides, scalars: the cutoff and the weights of means; and a gather for each quantile: of the metrics, of the cutoff."""
    eight = told_in(8, cutoff)
    if cutoff == "mean":
        assert told_in(2, cutoff) == eight
    assert not [one for one in eight if one.in_loop]
    large = [one for one in eight if one.kind == "all-reduce" and one.bytes > 64]
    assert len(large) == 1 and WEIGHTS <= large[0].bytes < WEIGHTS + 64  # the metrics travel with it
    assert [one.bytes for one in eight if one.kind != "all-reduce"] == [4 * B] * gathers
    assert len(eight) <= 4 + gathers


def test_a_collective_in_a_loop_is_told_from_others():
    text = """
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %s = f32[] add(%a, %b)
}
%inner (p: bf16[4]) -> bf16[8] {
  ROOT %g = bf16[8]{0} all-gather-start(bf16[4]{0} %p), dimensions={0}
}
%body (p: f32[4]) -> f32[4] {
  ROOT %c = f32[4]{0} call(%p), to_apply=%inner
}
ENTRY %main (p: f32[4]) -> f32[4] {
  %w = f32[4]{0} while(%p), condition=%cond, body=%body
  ROOT %r = (f32[4]{0}, pred[]) all-reduce(%w, %q), to_apply=%add
}
"""
    found = collectives(text)
    assert [(one.kind, one.bytes, one.in_loop, one.operands) for one in found] == [
        ("all-gather", 16, True, 1),
        ("all-reduce", 17, False, 2),
    ]
