"""PwoA's losses: each term against float64 numpy, the teacher, and the same loss on one device, a mesh and under pmap."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from told import told

from bap_jax import budgets, losses, models, pruners
from bap_jax.errors import SettingError
from bap_jax.losses.distill_hsic import bottleneck
from bap_jax.parallel import data_mesh, jit_step, replicate, shard_batch
from bap_jax.training import init_state, make_train_step
from bap_jax.types import Batch, Network, Outputs

B, D, K = 16, 6, 3


def features_and_logits(params, images):
    hidden = jnp.tanh(images @ params["first"])
    return hidden @ params["second"], {"hidden": hidden}


MODEL = models.from_function(
    lambda key, images: {"first": jax.random.normal(key, (D, 4)), "second": jax.random.normal(key, (4, K))}, features_and_logits
)
TEACHER = MODEL.init(jax.random.key(9), jnp.zeros((1, D)))
INFO = told(B, apply=MODEL.apply)._replace(networks={"start": Network(TEACHER[0], True, TEACHER[1])})


def batch_of(seed=0, weight=None):
    images = jax.random.uniform(jax.random.key(seed), (B, D))
    return Batch(images, jnp.arange(B) % K, jnp.arange(B), jnp.ones(B) if weight is None else weight)


def share(values, weight):
    return jnp.sum(values * weight) / jnp.sum(weight)


def value(loss, params, batch):
    forward = lambda *images: tuple(MODEL.apply(params, {}, image, train=True)[0] for image in images)  # noqa: E731
    state = loss.init(params, {}, INFO)
    return loss.value(forward, batch, None, state, step=jnp.int32(0), mean=share, gather=lambda x: x)


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def regularized(kernel, epsilon):
    size = len(kernel)
    centred = kernel @ (np.eye(size) - 1 / size)
    return centred @ np.linalg.inv(centred + epsilon * size * np.eye(size))


def gaussian(rows, sigma):
    return np.exp(-((rows[:, None] - rows[None]) ** 2).sum(-1) / (2 * sigma**2 * rows.shape[1]))


def test_every_term_is_the_published_one():
    weight = jnp.array([1.0] * (B - 3) + [0.0] * 3)
    batch, params = batch_of(weight=weight), MODEL.init(jax.random.key(1), jnp.zeros((1, D)))[0]
    loss = losses.distill_hsic(MODEL.apply, alpha=2.0, temperature=5.0, lambda_x=0.3, lambda_y=0.7, sigma=1.0, epsilon=1e-3)
    found, metrics = jax.jit(partial(value, loss))(params, batch)
    alone, _ = jax.jit(partial(value, losses.distill(MODEL.apply, alpha=2.0, temperature=5.0)))(params, batch)

    images = np.asarray(batch.images, np.float64)[: B - 3]
    weights, taught = (jax.tree.map(lambda x: np.asarray(x, np.float64), tree) for tree in (params, TEACHER[0]))
    hidden = np.tanh(images @ weights["first"])
    p = softmax(np.tanh(images @ taught["first"]) @ taught["second"] / 5)
    q = softmax(hidden @ weights["second"] / 5)
    distillation = 25 * (p * np.log(p / q)).sum() / p.size
    onehot = np.eye(K)[np.asarray(batch.labels)[: B - 3]]
    inner, seen, wanted = (regularized(k, 1e-3) for k in (gaussian(hidden, 1.0), gaussian(images, 1.0), onehot @ onehot.T))
    on_images, on_labels = np.trace(inner @ seen), np.trace(inner @ wanted)
    assert float(metrics["distillation"]) == pytest.approx(distillation, rel=1e-4)
    assert float(metrics["hsic_images"]) == pytest.approx(on_images, rel=1e-3)
    assert float(metrics["hsic_labels"]) == pytest.approx(on_labels, rel=1e-3)
    assert float(found) == pytest.approx(2 * distillation + 0.3 * on_images - 0.7 * on_labels, rel=1e-3)
    assert float(alone) == pytest.approx(2 * distillation, rel=1e-4)


def test_a_network_like_its_teacher_has_nothing_to_learn_from_it():
    loss = losses.distill(MODEL.apply)
    found, gradient = jax.jit(jax.value_and_grad(lambda p: value(loss, p, batch_of())[0]))(TEACHER[0])
    assert float(found) == pytest.approx(0, abs=1e-4)
    assert all(float(jnp.abs(leaf).max()) < 1e-3 for leaf in jax.tree.leaves(gradient))


def test_published_settings_have_finite_gradients_on_images_and_many_classes():
    key = jax.random.key(0)
    images, labels = jax.random.uniform(key, (32, 8, 8, 1)), jax.nn.one_hot(jnp.arange(32) % 10, 10)
    whole = lambda z: bottleneck({"z": z}, images, labels, jnp.ones(32))[0]  # noqa: E731
    for features in (jax.random.normal(key, (32, 200)), jnp.zeros((32, 5)), 1e3 * jax.random.normal(key, (32, 5))):
        assert np.isfinite(jax.jit(jax.grad(whole))(features)).all()


def every_step(axis_name=None):
    slots = (
        optax.sgd(0.05),
        pruners.dense(),
        budgets.none(),
        losses.distill_hsic(MODEL.apply, lambda_x=0.3, lambda_y=0.7, sigma=1.0),
    )
    return slots, make_train_step(MODEL.apply, *slots, axis_name=axis_name)


def test_one_device_a_mesh_and_pmap_agree():
    """The kernels are those of the whole batch; the teacher stays what it was."""
    slots, step = every_step()
    state = init_state(MODEL, *slots, key=jax.random.key(0), images=jnp.zeros((1, D)), info=INFO)
    weight = jnp.array([1.0] * (B - 3) + [0.0] * 3)
    data = [batch_of(seed, weight) for seed in range(3)]

    def run(step, state, data):
        for batch in data:
            state, metrics = step(state, batch)
        return state, metrics

    single, expected = run(jax.jit(step), state, data)
    mesh = data_mesh(4)
    sharded = [shard_batch(mesh, jax.device_get(batch)) for batch in data]
    meshed, on_mesh = run(jit_step(step, mesh), replicate(mesh, state), sharded)
    mapped_step = jax.pmap(
        every_step("devices")[1], axis_name="devices", in_axes=(None, 0), out_axes=(None, None), devices=jax.devices()[:4]
    )
    split = [jax.tree.map(lambda x: x.reshape(4, -1, *x.shape[1:]), batch) for batch in data]
    mapped, by_device = run(mapped_step, state, split)
    assert float(jnp.abs(single.trainable["first"] - state.trainable["first"]).max()) > 1e-3
    for other, metrics in ((meshed, on_mesh), (mapped, by_device)):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5), single.trainable, other.trainable)
        for name, number in expected.items():
            np.testing.assert_allclose(number, metrics[name], rtol=1e-3, atol=1e-4, err_msg=name)
    jax.tree.map(np.testing.assert_array_equal, single.loss.teacher.params, TEACHER[0])


@pytest.mark.parametrize(
    "wrong", [{"alpha": -1.0}, {"temperature": 0.0}, {"lambda_x": -1.0}, {"sigma": 0.0}, {"epsilon": 0.0}], ids=str
)
def test_refusals(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        losses.distill_hsic(MODEL.apply, **wrong)


def test_what_the_network_or_the_phase_lacks_is_said_by_name():
    with pytest.raises(SettingError, match="one of the networks that this phase knows: start"):
        losses.distill(MODEL.apply, teacher="pretrain").init(None, None, INFO)
    with pytest.raises(SettingError, match="pretrain first"):
        losses.distill_hsic(MODEL.apply).init(None, None, told(B))
    with pytest.raises(SettingError, match="one of those that the network offers: hidden"):
        value(losses.distill_hsic(MODEL.apply, taps=("block1",)), TEACHER[0], batch_of())
    silent = models.from_function(lambda key, images: {}, lambda params, images: images[:, :K])
    loss = losses.distill_hsic(silent.apply)
    state = loss.init({}, {}, INFO)
    forward = lambda *images: tuple(Outputs(image[:, :K], {}) for image in images)  # noqa: E731
    with pytest.raises(SettingError, match="no taps"):
        loss.value(forward, batch_of(), None, state, step=0, mean=share, gather=lambda x: x)
