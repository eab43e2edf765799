import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax import pruners
from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import measured_sparsity
from bap_jax.mathematics.schedules import Ramp, gradual, iterative, one_shot

PARAMS = {"a": {"kernel": jax.random.normal(jax.random.key(0), (10, 20)), "bias": jnp.zeros(20)}, "b": jnp.ones((3, 3))}
KEY = jax.random.key(1)


def step_through(pruner, num_steps):
    weights, state = pruner.init(KEY, PARAMS)
    changed, sparsities = [], []
    for step in range(num_steps):
        step = jnp.int32(step)
        if pruner.due(step, state):
            weights, state = pruner.update(KEY, step, weights, None, state)
            changed.append(int(step))
        weights = pruner.project(weights, state)
        sparsities.append(float(measured_sparsity(state.masks)))
    return weights, state, changed, sparsities


def test_masks_change_when_due_and_end_at_the_final_sparsity():
    weights, _state, changed, sparsities = step_through(pruners.magnitude(Ramp(0.0, 0.9, 2, 15, 5)), 20)
    assert changed == [2, 7, 12, 15]
    assert sparsities[-1] == pytest.approx((180 + 8) / 209)  # each layer rounds for itself
    assert sparsities == sorted(sparsities)
    assert int(jnp.sum(weights["a"]["kernel"] != 0)) == 20
    np.testing.assert_array_equal(weights["a"]["bias"], PARAMS["a"]["bias"])


@pytest.mark.parametrize("schedule", [gradual, one_shot, iterative])
def test_every_schedule_reaches_the_same_end(schedule):
    _, state, _, sparsities = step_through(pruners.magnitude(Ramp(0.0, 0.5, 3, 11, 3), schedule=schedule), 12)
    assert float(state.sparsity) == 0.5 and sparsities[2] == 0.0


def test_a_pruned_weight_may_return_at_an_update_only():
    pruner = pruners.magnitude(Ramp(0.5, 0.5, 0, 100, 10))
    weights, state = pruner.init(KEY, {"w": jnp.array([[4.0, 3.0, 2.0, 1.0]])})
    weights, state = pruner.update(KEY, jnp.int32(0), weights, None, state)
    weights = pruner.project(weights, state)
    assert weights["w"].tolist() == [[4.0, 3.0, 0.0, 0.0]]
    stepped = {"w": weights["w"] + jnp.array([[0.0, 0.0, 0.0, 9.0]])}  # the optimiser moved a pruned weight
    assert not pruner.due(jnp.int32(5), state)
    assert pruner.project(stepped, state)["w"].tolist() == [[4.0, 3.0, 0.0, 0.0]]
    stepped, state = pruner.update(KEY, jnp.int32(10), stepped, None, state)
    assert pruner.project(stepped, state)["w"].tolist() == [[4.0, 0.0, 0.0, 9.0]]


def test_the_pull_back_is_the_identity():
    pruner = pruners.magnitude(Ramp(0.5, 0.5, 0, 10, 1))
    weights, state = pruner.init(KEY, {"w": jnp.array([[2.0, 1.0]])})
    weights, state = pruner.update(KEY, jnp.int32(0), weights, None, state)
    effective, pull = jax.vjp(lambda w: pruner.effective(w, state), weights)
    assert effective["w"].tolist() == [[2.0, 0.0]]
    assert pull({"w": jnp.array([[5.0, 7.0]])})[0]["w"].tolist() == [[5.0, 7.0]]


def test_finish_is_what_the_network_computes_with():
    pruner = pruners.magnitude(Ramp(0.0, 0.5, 0, 5, 1), scope="global")
    weights, state, _, _ = step_through(pruner, 6)
    params, masks = pruner.finish(weights, state)
    for weight, mask in zip(jax.tree.leaves(params), jax.tree.leaves(masks), strict=True):
        assert bool(jnp.all(jnp.where(mask, True, weight == 0)))


def test_copies_with_other_ends_share_one_unbatched_due():
    """The seam for sweeps: sparsity and ramp end batched, begin, frequency and the union of the ends not."""
    ends = (6, 9)
    makers = [
        pruners.magnitude(Ramp(0.0, sparsity, 0, end, 4), end_steps=ends) for sparsity, end in zip((0.4, 0.8), ends, strict=True)
    ]
    both = [maker.init(KEY, PARAMS)[1] for maker in makers]
    common = {"begin_step": None, "frequency": None}
    axes = jax.tree.map(lambda _: 0, both[0])
    axes = axes._replace(ramp=axes.ramp._replace(**common), end_steps=None)
    states = jax.tree.map(lambda *x: jnp.stack(x), *both)
    shared = both[0].ramp
    states = states._replace(
        ramp=states.ramp._replace(begin_step=shared.begin_step, frequency=shared.frequency),
        end_steps=jnp.array([6, 9, 6], jnp.int32),
    )
    pruner = makers[0]
    for step in range(11):
        due = pruner.due(jnp.int32(step), states)
        assert due.shape == ()
        if due:
            update = jax.vmap(
                lambda s, step=step: pruner.update(KEY, jnp.int32(step), PARAMS, None, s)[1], in_axes=(axes,), out_axes=axes
            )
            states = update(states)
    for i, maker in enumerate(makers):
        _, alone = maker.init(KEY, PARAMS)
        for step in range(11):
            own = maker.due(jnp.int32(step), alone)
            alone = maker.update(KEY, jnp.int32(step), PARAMS, None, alone)[1] if own else alone
        jax.tree.map(lambda many, one, i=i: np.testing.assert_array_equal(many[i], one), states.masks, alone.masks)


def test_dense_never_prunes():
    pruner = pruners.dense()
    weights, state = pruner.init(KEY, PARAMS)
    assert not pruner.due(jnp.int32(0), state) and float(measured_sparsity(state.masks)) == 0.0
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), pruner.finish(weights, state)[0], PARAMS))


def test_refusals():
    with pytest.raises(SettingError, match=r"final_sparsity = 1\.2"):
        pruners.magnitude(Ramp(0.0, 1.2, 0, 1, 1))
    with pytest.raises(SettingError, match="scope"):
        pruners.magnitude(Ramp(0.0, 0.5, 0, 1, 1), scope="row")
