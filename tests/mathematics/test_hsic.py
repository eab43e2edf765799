"""HSIC against float64 numpy in the published form, its gradient, its padding, and a batch spread over devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.mathematics.hsic import gaussian_kernel, linear_kernel, nhsic, normalized
from bap_jax.parallel import data_mesh, shard_batch

B = 32


def drawn(seed=0, shape=(6, 6, 1), size=B):
    return np.random.default_rng(seed).uniform(size=(size, *shape)).astype(np.float32)


LABELS = np.eye(4, dtype=np.float32)[np.arange(B) % 4]


def published_gaussian(rows, sigma):
    rows = rows.reshape(len(rows), -1).astype(np.float64)
    between = ((rows[:, None] - rows[None]) ** 2).sum(-1)
    return np.exp(-between / (2 * sigma**2 * rows.shape[1]))


def published(first, second, epsilon=1e-5):
    """tr(R_A R_B) with K H, as it is published."""
    size = len(first)
    centre = np.eye(size) - 1 / size

    def regularized(kernel):
        return kernel @ centre @ np.linalg.inv(kernel @ centre + epsilon * size * np.eye(size))

    return np.trace(regularized(first) @ regularized(second))


def ours(first, second, weight=None, sigma=5.0):
    """nHSIC of features with labels by a linear kernel where the second is [B, K], else of two Gaussian kernels."""
    weight = jnp.ones(first.shape[0]) if weight is None else weight
    other = linear_kernel(second) if second.ndim == 2 else gaussian_kernel(second, sigma)
    return nhsic(normalized(gaussian_kernel(first, sigma), weight), normalized(other, weight))


@pytest.mark.parametrize("sigma", [5.0, 0.7])
@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_the_published_formula_in_float64(seed, sigma):
    features, images = drawn(seed), drawn(seed + 10, (300,)) * 20 - 3
    with_images = published(published_gaussian(features, sigma), published_gaussian(images, sigma))
    with_labels = published(published_gaussian(features, sigma), (LABELS @ LABELS.T).astype(np.float64))
    assert float(ours(jnp.asarray(features), jnp.asarray(images)[:, :, None], sigma=sigma)) == pytest.approx(
        with_images, rel=2e-3
    )
    assert float(ours(jnp.asarray(features), jnp.asarray(LABELS), sigma=sigma)) == pytest.approx(with_labels, rel=2e-3)


def test_dependence_is_the_rank_where_views_agree_and_falls_where_they_do_not():
    onehot, weight = jnp.asarray(LABELS), jnp.ones(B)
    labels = normalized(linear_kernel(onehot), weight)
    assert float(nhsic(labels, labels)) == pytest.approx(3, rel=1e-3)  # K - 1 centred directions
    shuffled = normalized(linear_kernel(onehot[np.random.default_rng(0).permutation(B)]), weight)
    assert 0 <= float(nhsic(labels, shuffled)) < 1.5
    constant = normalized(gaussian_kernel(jnp.ones((B, 5))), weight)
    assert float(nhsic(labels, constant)) == pytest.approx(0, abs=1e-6)


def test_the_gradient_is_finite_and_that_of_differences():
    features, images = jnp.asarray(drawn(3, (5,), 8)), jnp.asarray(drawn(4, (7, 1), 8))
    gradient = jax.grad(lambda z: ours(z, images, sigma=0.5))(features)
    other = published_gaussian(np.asarray(images), 0.5)

    def at(row, column, by):
        moved = np.asarray(features, np.float64).copy()
        moved[row, column] += by
        return published(published_gaussian(moved, 0.5), other)

    for row, column in ((0, 0), (3, 2), (7, 4)):
        expected = (at(row, column, 1e-5) - at(row, column, -1e-5)) / 2e-5
        assert float(gradient[row, column]) == pytest.approx(expected, rel=2e-2, abs=1e-3)
    same = jnp.tile(features[:1], (8, 1))  # duplicates: distances of zero, where a square root would give NaN
    assert np.isfinite(jax.grad(lambda z: ours(z, images))(same)).all()
    large = 1e4 * features
    assert np.isfinite(jax.grad(lambda z: ours(z, images))(large)).all()


def test_padding_changes_nothing_whatever_it_holds():
    features, images = jnp.asarray(drawn(5)), jnp.asarray(drawn(6, (3, 3)))
    filled = [jnp.concatenate([x, jnp.full((4, *x.shape[1:]), junk)]) for x, junk in ((features, 7.0), (images, -3.0))]
    weight = jnp.concatenate([jnp.ones(B), jnp.zeros(4)])
    assert float(ours(*filled, weight)) == pytest.approx(float(ours(features, images)), rel=1e-3)
    gradient = jax.grad(lambda z: ours(z, filled[1], weight))(filled[0])
    assert float(jnp.abs(gradient[B:]).max()) < 1e-6
    R = normalized(gaussian_kernel(filled[0]), weight)
    assert bool((R[B:] == 0).all()) and bool((R[:, B:] == 0).all())
    assert float(ours(*filled, jnp.zeros(B + 4))) == 0


def test_a_batch_spread_over_devices_is_one_batch():
    """Value and gradient under a mesh and, with gathered rows, under pmap are those of one device."""
    features, images = jnp.asarray(drawn(7)), jnp.asarray(drawn(8, (3, 3)))
    weight = jnp.concatenate([jnp.ones(B - 3), jnp.zeros(3)])
    scale = jnp.float32(1.3)

    def value(scale, features, images, weight, gather=lambda x: x):
        return ours(gather(scale * features), gather(images), gather(weight), sigma=1.0)

    expected = jax.value_and_grad(value)(scale, features, images, weight)
    mesh = data_mesh(4)
    meshed = jax.jit(jax.value_and_grad(value))(scale, *shard_batch(mesh, tuple(map(np.asarray, (features, images, weight)))))

    def mapped(scale, *parts):
        gather = partial(jax.lax.all_gather, axis_name="devices", tiled=True)
        return jax.lax.pmean(jax.value_and_grad(partial(value, gather=gather))(scale, *parts), "devices")

    split = [x.reshape(4, -1, *x.shape[1:]) for x in (features, images, weight)]
    by_device = jax.pmap(mapped, axis_name="devices", in_axes=(None, 0, 0, 0), devices=jax.devices()[:4])(scale, *split)
    for found in (meshed, [x[0] for x in by_device]):
        np.testing.assert_allclose(found, expected, rtol=2e-4)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: gaussian_kernel(jnp.ones((2, 2)), 0.0), "sigma = 0.0"),
        (lambda: linear_kernel(jnp.ones((0, 2))), "features"),
        (lambda: normalized(jnp.eye(2), jnp.ones(2), epsilon=0.0), "epsilon = 0.0"),
        (lambda: normalized(jnp.ones((2, 3)), jnp.ones(2)), "kernel"),
        (lambda: normalized(jnp.eye(2), jnp.ones(3)), "weight"),
        (lambda: nhsic(jnp.eye(2), jnp.eye(3)), "second"),
    ],
)
def test_refusals(call, named):
    with pytest.raises(SettingError, match=named):
        call()
