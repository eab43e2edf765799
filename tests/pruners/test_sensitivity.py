"""The structured ratio: rates that are known, of damages by hand and of a network with filters that do nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import full_masks
from bap_jax.pruners.sensitivity import even_rates, filter_damage, filter_masks
from bap_jax.types import Network, Outputs

SHARES = (0.25, 0.5, 0.75)


@pytest.mark.parametrize(
    ("slopes", "sizes", "rate", "expected"),
    [
        ([1.0, 3.0], [10, 10], 0.2, [0.3, 0.1]),  # rates in inverse proportion to what a share costs
        ([1.0, 1.0], [30, 10], 0.5, [0.5, 0.5]),
        ([1.0, 2.0], [10, 40], 0.3, [0.5, 0.25]),  # 10 r + 40 r / 2 = 15
        ([1.0, 100.0], [10, 10], 0.5, [0.75, 0.25]),  # the first is at the largest share, the second takes the rest
        ([0.0, 1.0], [10, 10], 0.3, [0.6, 0.0]),  # what costs nothing goes first
        ([0.0, 1.0], [10, 10], 0.5, [0.75, 0.25]),
        ([-1.0, 0.0], [10, 10], 0.3, [0.3, 0.3]),  # two that cost nothing go alike
        ([1.0, 3.0], [10, 10], 0.0, [0.0, 0.0]),
    ],
)
def test_rates_at_which_the_most_harmed_layer_is_harmed_least(slopes, sizes, rate, expected):
    damage = np.outer(slopes, SHARES)
    rates = even_rates(damage, SHARES, sizes, rate)
    np.testing.assert_allclose(rates, expected, atol=1e-9)
    assert rates @ sizes == pytest.approx(rate * sum(sizes))


def test_a_bend_is_met_where_it_is():
    """A layer whose first half costs nothing: 0.5 free, then 4 per share; the other 1 per share. At t = 0.3: 0.575 and 0.3."""
    damage = np.array([[0.0, 0.0, 1.0], [0.25, 0.5, 0.75]])
    np.testing.assert_allclose(even_rates(damage, SHARES, [8, 8], (0.575 + 0.3) / 2), [0.575, 0.3], atol=1e-9)


def test_two_layers_of_which_one_has_filters_that_do_nothing():
    """Half the filters of the first lead nowhere, so at a quarter of all filters none of the second has to go."""
    random = np.random.RandomState(2)
    first, second = random.randn(5, 8), random.randn(8, 8)
    first[:, ::2] *= 0.1  # those of least norm
    second[::2] = 0.0  # and nothing reads them
    params = jax.tree.map(jnp.float32, {"a": first, "b": second, "logits": 3 * random.randn(8, 3)})

    def apply(params, model_state, images, *, train, key=None):
        return Outputs(jax.nn.relu(jax.nn.relu(images @ params["a"]) @ params["b"]) @ params["logits"], {}), model_state

    network = Network(params, full_masks(params), {})
    images = jnp.float32(random.rand(20, 5))
    labels = jnp.argmax(apply(params, {}, images, train=False)[0].logits, 1)
    given = network, images, labels, jnp.ones(20)
    damage = jax.jit(lambda *given: filter_damage(apply, *given, layers=("a", "b"), shares=SHARES))(*given)
    assert np.allclose(damage[0, :2], 0, atol=1e-6) and damage[0, 2] > 0.01 and (damage[1] > 0.01).all()
    by_hand = params | {"b": jnp.where(filter_masks(params, {"b": 0.5})["b"], params["b"], 0)}
    losses = [
        -jax.nn.log_softmax(apply(one, {}, images, train=False)[0].logits)[jnp.arange(20), labels].mean()
        for one in (by_hand, params)
    ]
    assert float(damage[1, 1]) == pytest.approx(float(losses[0] - losses[1]), rel=1e-4)
    rates = even_rates(np.asarray(damage), SHARES, [8, 8], 0.25)
    np.testing.assert_allclose(rates, [0.5, 0.0], atol=1e-6)
    masks = filter_masks(params, dict(zip("ab", rates, strict=True)), within=network.masks)
    assert masks["a"].all(0).tolist() == [False, True] * 4 and masks["b"].all() and masks["logits"].all()
    assert int(filter_masks(params, {"a": 1.0})["a"].all(0).sum()) == 1  # one filter stays


def test_what_makes_no_sense_is_refused():
    network = Network({"a": jnp.ones((1, 1))}, True, {})
    for wrong, name in (
        (lambda: even_rates(np.zeros((1, 2)), [0.5, 0.5], [4], 0.1), "shares"),
        (lambda: even_rates(np.zeros((1, 2)), [0.5, 0.75], [4], 0.8), "rate"),
        (
            lambda: filter_damage(None, network, *[None] * 3, layers=["b"], shares=[1]),
            "layers",
        ),
        (lambda: filter_damage(None, network, *[None] * 3, layers=[], shares=[1]), "layers"),
    ):
        with pytest.raises(SettingError, match=name):
            wrong()
