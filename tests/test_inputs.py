"""The shared checks of what comes in: values where they are concrete, shapes and dtypes always."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.inputs import concrete, largest_radius, require_bounds, require_images, require_radius
from bap_jax.types import Bounds, comparable


def test_concrete_values_come_to_the_host_and_traced_ones_do_not():
    assert concrete(jnp.array([0.5, 1.5], jnp.bfloat16)).dtype == np.float32
    assert concrete(np.asarray(0.5, jnp.bfloat16)).dtype == np.float32
    assert concrete(jax.random.key(0)) is None and concrete(jax.ShapeDtypeStruct((2,), jnp.float32)) is None
    jax.jit(lambda x: x + (0 if concrete(x) is None else jnp.nan))(1.0)


@pytest.mark.parametrize(
    "bounds", [(1.0, 0.0), (0.5, 0.5), (float("nan"), 1.0), (np.zeros(3), np.zeros(3)), (0.0, np.array([1, -1, 1.0]))]
)
def test_boxes_that_are_none(bounds):
    with pytest.raises(SettingError, match=r"bounds = .*lower side below the upper"):
        require_bounds(Bounds(*bounds))


def test_features_without_room_are_a_box():
    require_bounds(Bounds(np.array([0.0, 0.5]), np.array([1.0, 0.5])))


def test_images_in_half_precision_may_lie_beyond_a_wall_by_their_rounding():
    box = Bounds(-2.117904, 2.640000)
    walls = jnp.array([[*box]])
    require_images(walls.astype(jnp.bfloat16), box)
    with pytest.raises(SettingError, match="inside the bounds"):
        require_images(walls.astype(jnp.bfloat16).astype(jnp.float32), box)


def test_sizes_of_boxes():
    box, shape = Bounds(np.zeros(3), np.array([1.0, 2.0, 2.0])), (4, 3)
    sizes = {norm: largest_radius(norm, box, shape) for norm in ("linf", "l1", "l0", "l2", "rms")}
    assert sizes == pytest.approx({"linf": 2.0, "l1": 20.0, "l0": 12.0, "l2": 6.0, "rms": 3**0.5})
    assert largest_radius("l2", box, None) == largest_radius("l2", Bounds(-np.inf, np.inf), shape) == np.inf


def test_radii():
    for value in (0, 1, 1.0, np.inf, None, np.array([0.5, np.inf])):
        require_radius(value, "linf", Bounds())
    for value, message in (
        (np.nan, "at least 0"),
        (np.array([0.1, -1.0]), "epsilon = -1.0"),
        (1.1, "at most 1"),
        ("8/255", "a number"),
    ):
        with pytest.raises(SettingError, match=message):
            require_radius(value, "linf", Bounds())


def test_boxes_compare_and_hash_by_their_values():
    one, other = (Bounds(kind([0.0, -1.0]), kind([1.0, 2.0])) for kind in (np.array, lambda side: jnp.array(side)))
    assert one == other and hash(one) == hash(other)
    assert one != Bounds(np.array([0.0, -1.0]), np.array([1.0, 3.0])) and one != Bounds() and one != (0.0, 1.0, 2.0)
    assert Bounds() == Bounds(jnp.float32(0), np.float64(1)) == (0.0, 1.0) and hash(Bounds()) == hash((0.0, 1.0))
    assert len({one, other, Bounds()}) == 2
    assert comparable(("a", one, np.zeros(2))) == comparable(("a", other, jnp.zeros(2))) != comparable(("a", one, np.ones(2)))
