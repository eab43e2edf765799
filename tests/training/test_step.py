"""The one train step: its order, its slots, and that one device, a mesh and pmap agree."""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from told import told

from bap_jax import budgets, losses, models, pruners
from bap_jax.attacks import pgd
from bap_jax.mathematics.masks import measured_sparsity
from bap_jax.mathematics.schedules import Ramp
from bap_jax.parallel import data_mesh, jit_step, replicate, shard_batch
from bap_jax.training import init_state, make_train_step
from bap_jax.types import Batch

B, K = 16, 4
SHAPE = (6, 6, 1)
ATTACK = partial(pgd, norm="linf", num_steps=3)
RAMP = Ramp(0.0, 0.6, 1, 4, 2)


class Net(nn.Module):
    """A convolution, BatchNorm and a dense layer."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name, momentum=0.9)(x)
        return nn.Dense(K)(nn.relu(x).reshape(x.shape[0], -1))


def batches(num, weight=None):
    for i in range(num):
        image_key, label_key = jax.random.split(jax.random.key(100 + i))
        images = jax.random.uniform(image_key, (B, *SHAPE))
        labels = jax.random.randint(label_key, (B,), 0, K)
        yield Batch(images, labels, jnp.arange(B), jnp.ones(B) if weight is None else weight)


def slots(budget=None, loss=None, pruner=None, optimizer=None):
    return (
        optimizer or optax.sgd(0.05, momentum=0.9),
        pruner or pruners.magnitude(RAMP, scope="global"),
        budget or budgets.cutoff_scale(budgets.pgd_search(), ATTACK),
        loss or losses.mix(),
    )


def start(model, filled):
    return init_state(model, *filled, key=jax.random.key(0), images=jnp.zeros((1, *SHAPE)), info=told(B))


def run(step, state, data):
    metrics = None
    for batch in data:
        state, metrics = step(state, batch)
    return state, metrics


def with_seams(pruner):
    """The same masks, a second gradient a little uphill, and moments of pruned weights that begin anew."""

    def update(*given):
        trainable, state = pruner.update(*given)
        return trainable, state, jax.tree.map(jnp.logical_not, state.masks)

    uphill = lambda trainable, gradients, state: jax.tree.map(lambda w, g: w + 0.1 * g, trainable, gradients)  # noqa: E731
    return pruner._replace(update=update, resets=True, ascend=uphill)


ARMS = {
    "blind": (budgets.cutoff_scale(budgets.pgd_search(), ATTACK), losses.mix()),
    "blind quantile": (budgets.cutoff_scale(budgets.pgd_search(), ATTACK, cutoff=budgets.Cutoff("quantile", 0.7)), losses.mix()),
    "blind running": (
        budgets.cutoff_scale(
            budgets.pgd_search(norm="l2"), None, cutoff=budgets.Cutoff("running-mean", 0.9), norm="l2", epsilon_max=2.0
        ),
        losses.mix(),
    ),
    "uniform": (budgets.uniform(ATTACK, 0.1), losses.mix(adversarial_weight=1.0)),
    "clean": (budgets.none(), losses.clean()),
    "seams": (budgets.none(), losses.clean(), with_seams(pruners.magnitude(RAMP, scope="global"))),
}


CASES = [
    ("blind", True),
    ("blind quantile", False),
    ("blind running", False),
    ("uniform", True),
    ("clean", False),
    ("seams", True),
]


@pytest.mark.parametrize(("arm", "weighted"), CASES, ids=[f"{arm}{' padded' * padded}" for arm, padded in CASES])
def test_one_device_a_mesh_and_pmap_agree(arm, weighted):
    weight = jnp.array([1.0] * (B - 3) + [0.0] * 3) if weighted else None  # unequal shares per device
    filled = slots(*ARMS[arm])
    model = models.from_linen(Net())
    state = start(model, filled)
    single, single_metrics = run(jax.jit(make_train_step(model.apply, *filled)), state, batches(5, weight))

    mesh = data_mesh(8)
    sharded = (shard_batch(mesh, jax.device_get(batch)) for batch in batches(5, weight))
    meshed, meshed_metrics = run(jit_step(make_train_step(model.apply, *filled), mesh), replicate(mesh, state), sharded)

    mapped_model = models.from_linen(Net(axis_name="devices"))
    step = make_train_step(mapped_model.apply, *filled, axis_name="devices")
    mapped_step = jax.pmap(step, axis_name="devices", in_axes=(None, 0), out_axes=(None, None))
    split = (jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), batch) for batch in batches(5, weight))
    mapped, mapped_metrics = run(mapped_step, state, split)

    assert float(measured_sparsity(single.prune.masks)) == pytest.approx(0.6, abs=0.01)
    for other, other_metrics in ((meshed, meshed_metrics), (mapped, mapped_metrics)):
        jax.tree.map(np.testing.assert_array_equal, single.prune.masks, other.prune.masks)
        close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
        for part in ("trainable", "model_state", "budget"):
            jax.tree.map(close, getattr(single, part), getattr(other, part))
        # of a bias before BatchNorm the momentum is rounding alone
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), single.opt_state, other.opt_state)
        for name, value in single_metrics.items():
            np.testing.assert_allclose(value, other_metrics[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_run_compiles_once_whatever_the_sparsity():
    model, filled = models.from_linen(Net()), slots()
    step = jax.jit(chex.assert_max_traces(make_train_step(model.apply, *filled), n=1), donate_argnums=0)
    for final in (0.3, 0.9):
        state = start(model, filled)
        state = state._replace(prune=state.prune._replace(ramp=state.prune.ramp._replace(final_sparsity=jnp.float32(final))))
        state, _ = run(step, state, batches(6))
        assert float(measured_sparsity(state.prune.masks)) == pytest.approx(final, abs=0.01)


def plain_network(key, images):
    size = images[0].size
    return {"kernel": 0.1 * jax.random.normal(key, (size, K)), "bias": jnp.zeros(K)}


def plain_apply(params, images):
    return images.reshape(images.shape[0], -1) @ params["kernel"] + params["bias"][None]


class NnxNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dense = nnx.Linear(144, K, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        return self.dense(x.reshape(x.shape[0], -1))


@pytest.mark.parametrize(
    "model",
    [models.from_linen(Net()), models.from_nnx(NnxNet), models.from_function(plain_network, plain_apply)],
    ids=["linen", "nnx", "function"],
)
def test_linen_nnx_and_plain_functions_plug_in(model):
    filled = slots()
    state = start(model, filled)
    before = jax.tree.map(jnp.copy, state.model_state)
    state, metrics = run(jax.jit(make_train_step(model.apply, *filled)), state, batches(5))
    assert np.isfinite(metrics["loss"]) and float(measured_sparsity(state.prune.masks)) > 0.55
    if jax.tree.leaves(before):
        assert any(
            bool(jnp.any(a != b)) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state.model_state), strict=True)
        )


def linear_step(budget, loss, **options):
    model = models.from_function(plain_network, plain_apply)
    filled = slots(budget, loss, optimizer=optax.sgd(1.0), **options)
    return model, filled, make_train_step(model.apply, *filled)


def test_the_step_is_the_formula():
    """One SGD step on a linear network, by hand: half clean, half adversarial, smoothed labels, attack on the masked weights."""
    never = pruners.magnitude(Ramp(0.0, 0.5, 1000, 1000, 1))
    model, filled, step = linear_step(
        budgets.uniform(partial(pgd, norm="linf", num_steps=1, random_start=False), 0.1), losses.mix(), pruner=never
    )
    state = start(model, filled)
    half = jnp.arange(36)[:, None] % 2 == jnp.zeros((1, K), int)
    masks = {"kernel": half, "bias": jnp.bool_(True)}
    state = state._replace(prune=state.prune._replace(masks=masks))
    batch = next(batches(1))
    new, metrics = step(state, batch)

    w, b = np.where(half, state.trainable["kernel"], 0.0).astype(np.float64), np.zeros(K)
    x, y = np.asarray(batch.images, np.float64).reshape(B, -1), np.eye(K)[np.asarray(batch.labels)]
    softmax = lambda z: np.exp(z) / np.exp(z).sum(1, keepdims=True)  # noqa: E731
    adversarial = np.clip(x + 0.1 * np.sign((softmax(x @ w + b) - y) @ w.T), 0, 1)
    targets = 0.9 * y + 0.1 / K
    gradient = sum(0.5 * v.T @ (softmax(v @ w + b) - targets) / B for v in (x, adversarial))
    loss = sum(-0.5 * (targets * np.log(softmax(v @ w + b))).sum(1).mean() for v in (x, adversarial))
    stepped = np.asarray(state.trainable["kernel"]) - gradient  # also where pruned: straight-through
    np.testing.assert_allclose(new.trainable["kernel"], np.where(half, stepped, 0.0), rtol=1e-4, atol=1e-6)
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(metrics["epsilon_mean"]) == pytest.approx(0.1)


def test_masks_are_scored_on_stepped_weights_before_they_are_masked():
    """A pruned weight with a large gradient comes back at a mask update."""
    pruner = pruners.magnitude(Ramp(0.9, 0.9, 0, 10, 1))
    model, filled, step = linear_step(budgets.none(), losses.clean(), pruner=pruner)
    state = start(model, filled)
    state, _ = step(state, next(batches(1)))
    before = state.prune.masks["kernel"]
    state, _ = step(state, list(batches(2))[1])
    after = state.prune.masks["kernel"]
    assert int(before.sum()) == int(after.sum()) and bool(jnp.any(after & ~before))
    assert bool(jnp.all(jnp.where(after, True, state.trainable["kernel"] == 0)))


def test_attacks_see_evaluation_mode_and_statistics_move_once():
    """BatchNorm statistics after a step are those of one pass over clean and adversarial images together."""
    model, filled = models.from_linen(Net()), slots(budgets.uniform(ATTACK, 0.2), losses.mix())
    state = start(model, filled)
    batch = next(batches(1))
    new, _ = make_train_step(model.apply, *filled)(state, batch)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
        jax.random.split(jax.random.fold_in(state.key, 0), 3)[0], jnp.arange(B)
    )
    logits_fn = lambda x: model.apply(state.trainable, state.model_state, x, train=False)[0].logits  # noqa: E731
    adversarial = ATTACK(logits_fn, keys, batch.images, batch.labels, epsilon=0.2).images
    together = jnp.concatenate([batch.images, adversarial])
    _, expected = model.apply(state.trainable, state.model_state, together, train=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), new.model_state, expected)


def test_a_penalty_is_added_to_the_gradient():
    dense = pruners.dense()
    decay = dense._replace(penalty=lambda step, params, state: 0.05 * sum(jnp.sum(w**2) for w in jax.tree.leaves(params)))
    model, filled, plain = linear_step(budgets.none(), losses.clean(), pruner=dense)
    _, _, with_penalty = linear_step(budgets.none(), losses.clean(), pruner=decay)
    state, batch = start(model, filled), next(batches(1))
    a, b = plain(state, batch)[0], with_penalty(state, batch)[0]
    np.testing.assert_allclose(
        a.trainable["kernel"] - b.trainable["kernel"], 0.1 * state.trainable["kernel"], rtol=1e-4, atol=1e-7
    )


def test_padding_rows_change_nothing():
    model, filled, step = linear_step(budgets.cutoff_scale(budgets.pgd_search(), ATTACK), losses.mix())
    state, batch = start(model, filled), next(batches(1))
    padded = Batch(*(jnp.concatenate([x, x[:5]]) for x in batch))._replace(weight=jnp.array([1.0] * B + [0.0] * 5))
    a, b = step(state, batch), step(state, padded)
    chex.assert_trees_all_close(a[0].trainable, b[0].trainable, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(a[1], b[1], rtol=1e-5, atol=1e-6)


def test_the_whole_state_may_be_batched_for_a_sweep():
    """Seeds and sparsities under vmap give what each gives alone; `due` stays unbatched, so `cond` stays a `cond`."""
    model, filled = models.from_function(plain_network, plain_apply), slots()
    step = make_train_step(model.apply, *filled)

    def one(seed, final):
        state = init_state(model, *filled, key=jax.random.key(seed), images=jnp.zeros((1, *SHAPE)), info=told(B))
        return state._replace(prune=state.prune._replace(ramp=state.prune.ramp._replace(final_sparsity=final)))

    seeds, finals = jnp.arange(3), jnp.array([0.2, 0.5, 0.8])
    states = jax.vmap(one)(seeds, finals)
    axes = jax.tree.map(lambda _: 0, states)
    shared = {"begin_step": None, "end_step": None, "frequency": None}
    axes = axes._replace(step=None, prune=axes.prune._replace(ramp=axes.prune.ramp._replace(**shared), end_steps=None))
    first = lambda x: jax.tree.map(lambda leaf: leaf[0], x)  # noqa: E731
    ramp = states.prune.ramp
    ramp = ramp._replace(**{name: getattr(ramp, name)[0] for name in shared})
    states = states._replace(
        step=first(states.step), prune=states.prune._replace(ramp=ramp, end_steps=first(states.prune.end_steps))
    )
    many = jax.jit(jax.vmap(step, in_axes=(axes, None), out_axes=(axes, 0)))
    assert "case" in many.lower(states, next(batches(1))).as_text()
    states, _ = run(many, states, batches(5))
    alone = jax.jit(step)
    for i in range(3):
        single, _ = run(alone, one(i, finals[i]), batches(5))
        chex.assert_trees_all_close(jax.tree.map(lambda x, i=i: x[i], states.trainable), single.trainable, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("arm", ["blind", "uniform"])
def test_the_step_lowers_for_accelerators(arm, platform):
    model = models.build("resnet8", num_classes=K, conv="plain")
    filled = slots(*ARMS[arm])
    make = lambda key, images: init_state(model, *filled, key=key, images=images, info=told(B))  # noqa: E731
    images = jax.ShapeDtypeStruct((B, 8, 8, 3), jnp.float32)
    state = jax.eval_shape(make, jax.random.key(0), images)
    numbers = jax.ShapeDtypeStruct((B,), jnp.int32)
    batch = Batch(images, numbers, numbers, jax.ShapeDtypeStruct((B,), jnp.float32))
    lowered = jax.jit(make_train_step(model.apply, *filled)).trace(state, batch).lower(lowering_platforms=(platform,))
    assert "stablehlo.convolution" in lowered.as_text()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: losses.mix(adversarial_weight=1.5), "adversarial_weight"),
        (lambda: losses.clean(label_smoothing=-0.1), "label_smoothing"),
    ],
)
def test_refusals(make, name):
    with pytest.raises(ValueError, match=name):
        make()


def test_a_teacher_that_is_the_trained_network_itself_may_be_donated():
    plain = losses.clean()

    def value(forward, batch, adversarial, teacher, **options):
        return plain.value(forward, batch, adversarial, (), **options)

    itself = plain._replace(init=lambda params, model_state, info: params, value=value)
    model, filled = models.from_function(plain_network, plain_apply), slots(loss=itself)
    state = start(model, filled)
    new, _ = jax.jit(make_train_step(model.apply, *filled), donate_argnums=0)(state, next(batches(1)))
    chex.assert_trees_all_equal(new.loss, start(model, filled).trainable)
