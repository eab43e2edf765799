"""Networks of convolutions read pictures with the channels last, and say so where they are given others."""

import jax
import jax.numpy as jnp
import pytest

from bap_jax.errors import SettingError
from bap_jax.models import NETWORKS, build


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "mlp"])
def test_channels_first_is_refused(name):
    model = build(name, num_classes=5)
    for shape, message in (
        ((2, 3, 16, 16), "moveaxis"),
        ((2, 1, 16, 16), "moveaxis"),
        ((2, 16, 16), "None"),
        ((2, 256), "B, H, W, C"),
    ):
        with pytest.raises(SettingError, match=rf"images = .*{message}"):
            jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))


def test_what_has_one_or_three_channels_last_is_read():
    model = build("lenet5", num_classes=5)
    for shape in ((2, 16, 16, 1), (2, 16, 16, 3), (2, 16, 16, 2)):
        params, state = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
        assert jax.eval_shape(
            lambda p, s, x: model.apply(p, s, x, train=False)[0].logits, params, state, jnp.zeros(shape)
        ).shape == (2, 5)
