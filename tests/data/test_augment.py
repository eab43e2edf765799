"""Augmentation against scipy's shift and against shifts by known amounts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from bap_jax.data import augment, shift_image
from bap_jax.errors import SettingError

jitted = jax.jit(augment, static_argnames=("shift", "flip"))
IMAGE = np.random.RandomState(0).rand(6, 5, 2).astype(np.float32)


@pytest.fixture(scope="module")
def shifted():
    return jax.jit(shift_image)


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (2, 0), (0, -3), (-1, 1), (0.25, 0), (-1.6, 2.75), (9, -9)])
def test_shift_agrees_with_scipy(shifted, rows, columns):
    # scipy moves the content by +shift, ours by -amount. order=1 and nearest are what Keras' ImageDataGenerator hands to scipy.
    expected = np.stack([ndimage.shift(IMAGE[..., c], (-rows, -columns), order=1, mode="nearest") for c in range(2)], -1)
    np.testing.assert_allclose(shifted(IMAGE, rows, columns), expected, atol=1e-6)


def test_whole_shifts_move_pixels_exactly(shifted):
    np.testing.assert_array_equal(shifted(IMAGE, 0.0, 0.0), IMAGE)
    moved = np.asarray(shifted(IMAGE, 2.0, -1.0))
    np.testing.assert_array_equal(moved[:4, 1:], IMAGE[2:, :4])
    np.testing.assert_array_equal(moved[4:, 1:], np.broadcast_to(IMAGE[5:, :4], (2, 4, 2)))  # the edge row is repeated
    np.testing.assert_array_equal(moved[:4, 0], IMAGE[2:, 0])  # and the edge column


def test_augment_is_a_shift_and_a_flip_within_range():
    # An image that is its own column number tells how far it was moved and whether it was mirrored.
    width = 40
    ramp = jnp.broadcast_to(jnp.arange(width, dtype=jnp.float32)[None, None, :, None], (400, 8, width, 1))
    out = np.asarray(jitted(jax.random.split(jax.random.key(0), 400), ramp))[:, 4, :, 0]
    flipped = out[:, width // 2] < out[:, width // 2 - 1]
    straight = np.where(flipped[:, None], out[:, ::-1], out)
    moved = straight[:, width // 2] - width // 2
    assert np.abs(moved).max() <= 4.0 + 1e-4  # 0.1 of 40
    assert np.abs(moved).max() > 3.8
    assert abs(moved.mean()) < 5 * 4 / np.sqrt(3 * 400)  # five standard errors of a uniform in [-4, 4]
    assert 0.5 - 5 * 0.025 < flipped.mean() < 0.5 + 5 * 0.025
    np.testing.assert_allclose(np.diff(straight[:, 5:-5], axis=1), 1.0, atol=1e-4)  # nothing but a shift


def test_rows_are_shifted_too():
    ramp = jnp.broadcast_to(jnp.arange(20, dtype=jnp.float32)[None, :, None, None], (64, 20, 3, 1))
    out = np.asarray(jitted(jax.random.split(jax.random.key(1), 64), ramp))
    moved = out[:, 10, 1, 0] - 10
    assert moved.min() < -1.0 < 1.0 < moved.max()
    assert np.abs(moved).max() <= 2.0 + 1e-5


def test_each_row_depends_on_its_own_key_alone():
    keys = jax.random.split(jax.random.key(3), 4)
    images = jax.random.uniform(jax.random.key(4), (4, 6, 6, 1))
    whole = jitted(keys, images)
    np.testing.assert_array_equal(jitted(keys[2:], images[2:]), whole[2:])
    assert not np.array_equal(whole[0], images[0])


def test_bounds_are_kept_exactly():
    images = jnp.where(jax.random.bernoulli(jax.random.key(5), 0.5, (64, 7, 7, 3)), 1.0, 0.0)
    out = np.asarray(jitted(jax.random.split(jax.random.key(6), 64), images, shift=0.5))
    assert out.min() >= 0.0
    assert out.max() <= 1.0


def test_switched_off_it_changes_nothing():
    keys = jax.random.split(jax.random.key(0), 3)
    images = jax.random.uniform(jax.random.key(1), (3, 4, 4, 1))
    np.testing.assert_array_equal(jitted(keys, images, shift=0.0, flip=False), images)
    flipped = np.asarray(jitted(jax.random.split(jax.random.key(0), 30), jnp.tile(images[:1], (30, 1, 1, 1)), shift=0.0))
    same = (flipped == np.asarray(images[0])).all((1, 2, 3))
    mirrored = (flipped == np.asarray(images[0, :, ::-1])).all((1, 2, 3))
    assert np.all(same ^ mirrored)
    assert 0 < mirrored.sum() < 30


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("shift", {"shift": 1.0}),
        ("shift", {"shift": -0.1}),
        ("images", {"images": jnp.zeros((2, 4, 4))}),
        ("images", {"images": jnp.zeros((2, 4, 4, 1), jnp.uint8)}),
        ("keys", {"keys": 3}),
    ],
)
def test_errors_name_the_setting(name, settings):
    settings = dict(settings)
    keys = jax.random.split(jax.random.key(0), settings.pop("keys", 2))
    images = settings.pop("images", jnp.zeros((2, 4, 4, 1)))
    with pytest.raises(SettingError, match=f"^{name} = "):
        augment(keys, images, **settings)
