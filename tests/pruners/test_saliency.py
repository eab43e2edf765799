"""MAD's saliency: the second-order term of the loss, against differences of the loss itself and a float64 twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import count_kept, full_masks
from bap_jax.pruners.saliency import adversarial_saliency, saliency_masks
from bap_jax.types import Network, Outputs

B, D, H, K = 5, 4, 6, 3
RANDOM = np.random.RandomState(0)
PARAMS = {"in": RANDOM.randn(D, H), "out": RANDOM.randn(H, K), "bias": RANDOM.randn(K)}
IMAGES, LABELS = RANDOM.rand(B, D), np.array([0, 1, 2, 1, 0])
WEIGHT = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
NETWORK = Network(*jax.tree.map(jnp.float32, (PARAMS,)), full_masks(jax.tree.map(jnp.float32, PARAMS)), {})


def apply(params, model_state, images, *, train, key=None):
    return Outputs(jax.nn.relu(images @ params["in"]) @ params["out"] + params["bias"][None], {}), model_state


def found(network=NETWORK, **options):
    given = jnp.float32(IMAGES), jnp.int32(LABELS), jnp.float32(WEIGHT)
    return jax.jit(lambda *given: adversarial_saliency(apply, network, *given, **options))(*given)


@pytest.fixture(scope="module")
def fisher():
    return found(num_steps=8, curvature="fisher")


def logits(params):
    return np.maximum(IMAGES @ params["in"], 0) @ params["out"] + params["bias"]


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def loss(params):
    losses = -log_softmax(logits(params))[np.arange(B), LABELS]
    return (losses * WEIGHT).sum() / WEIGHT.sum()


def gradient(params, targets):
    """Of the loss of each example against targets [B, K], float64: per leaf [B, ...]."""
    hidden = np.maximum(IMAGES @ params["in"], 0)
    wrong = np.exp(log_softmax(logits(params))) - targets
    back = (wrong @ params["out"].T) * (hidden > 0)
    return {"in": IMAGES[:, :, None] * back[:, None], "out": hidden[:, :, None] * wrong[:, None]}


def masks_by_hand(num_steps, rate=0.1):
    """Adam on what softplus makes the masks of, within its bounds."""
    most, least = np.log(np.e - 1), np.log(np.expm1(1e-4))
    names = ("in", "out")
    trained, moments = {name: np.full(PARAMS[name].shape, most) for name in names}, {name: (0.0, 0.0) for name in names}
    for step in range(1, num_steps + 1):
        masked = PARAMS | {name: PARAMS[name] * np.log1p(np.exp(trained[name])) for name in names}
        each = gradient(masked, np.eye(K)[LABELS])
        for name in names:
            mean = np.tensordot(WEIGHT, each[name], 1) / WEIGHT.sum()
            slope = mean * PARAMS[name] / (1 + np.exp(-trained[name]))
            first, second = moments[name]
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            moments[name] = first, second
            moved = rate * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
            trained[name] = np.clip(trained[name] - moved, least, most)
    return {name: np.log1p(np.exp(trained[name])) for name in names}


def test_a_unit_s_saliencies_sum_to_what_the_loss_curves_by(fisher):
    """Brute force: (L(w + Δ) + L(w - Δ)) / 2 - L(w), of one unit's row alone; h is small, so that no ReLU turns."""
    masks = masks_by_hand(8)
    damped, h = PARAMS | {name: PARAMS[name] * masks[name] for name in masks}, 1e-3
    for name in masks:
        change = PARAMS[name] - damped[name]
        for unit in range(change.shape[1]):
            row = np.zeros_like(change)
            row[:, unit] = h * change[:, unit]
            up, down = (loss(damped | {name: damped[name] + sign * row}) for sign in (1, -1))
            curved = ((up + down) / 2 - loss(damped)) / h**2
            assert float(fisher[name][:, unit].sum()) == pytest.approx(curved, rel=2e-3, abs=1e-6)
    assert float(jnp.abs(fisher["in"]).sum()) > 0.01 and not fisher["bias"].any()


def test_it_is_the_float64_twin_weight_by_weight():
    masks = masks_by_hand(20)
    damped = PARAMS | {name: PARAMS[name] * masks[name] for name in masks}
    each = gradient(damped, np.eye(K)[LABELS])
    saliency = found()
    for name in masks:
        change = PARAMS[name] - damped[name]
        rows = np.einsum("bij,ij->bj", each[name], change)
        expected = 0.5 * np.einsum("b,ij,bij,bj->ij", WEIGHT, change, each[name], rows) / WEIGHT.sum()
        np.testing.assert_allclose(saliency[name], expected, rtol=2e-3, atol=1e-6)


def test_what_is_pruned_already_has_none():
    masks = NETWORK.masks | {"in": jnp.arange(D * H).reshape(D, H) % 2 == 0}
    saliency = found(NETWORK._replace(masks=masks), num_steps=2)
    assert not saliency["in"][~masks["in"]].any() and saliency["in"][masks["in"]].any()


def test_convolutions_compete_over_the_network_and_dense_inputs_within_their_unit():
    low = np.arange(8, dtype=np.float32).reshape(1, 1, 2, 4)
    scores = {"a": low, "b": 10 + low, "c": np.arange(12, dtype=np.float32).reshape(4, 3) - 6}
    choose = jax.jit(lambda within: saliency_masks(scores, 0.5, within=within))
    masks = choose(jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), scores))
    assert int(masks["a"].sum()) == 0 and int(masks["b"].sum()) == 8
    assert masks["c"].tolist() == [[False] * 3] * 2 + [[True] * 3] * 2
    masks = choose({"a": np.ones_like(low, bool), "b": np.zeros_like(low, bool), "c": np.zeros((4, 3), bool)})
    assert int(masks["a"].sum()) == 8 and int(count_kept(masks)) == 8


@pytest.mark.parametrize("wrong", [{"num_steps": -1}, {"rate": 0.0}, {"curvature": "hessian"}])
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        adversarial_saliency(apply, NETWORK, jnp.ones((1, D)), jnp.zeros(1, jnp.int32), jnp.ones(1), **wrong)
