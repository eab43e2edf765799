"""The losses against their formulas, written out here in numpy, and against values recorded from the formulas in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loss_values import ATTACKED, CLEAN, LABELS, ONES, B, K, value

from bap_jax import losses
from bap_jax.errors import SettingError
from bap_jax.mathematics.per_example import mean_of_real

# PyTorch 2.13.0: z, a = the logits above as float32 tensors, y the labels, p, q = z.softmax(1), a.softmax(1),
# kl = (p * (z.log_softmax(1) - a.log_softmax(1))).sum(1); rival = q.masked_fill(F.one_hot(y, 5).bool(), 0).amax(1)
# trades: F.cross_entropy(z, y) + 6 * kl.mean()
# mart: (F.cross_entropy(a, y, reduction="none") - torch.log(1.0001 - rival + 1e-12)).mean()
#       + 6 * (kl * (1.0000001 - p[range(6), y])).mean()
# value, norms of the gradients at z and at a
TORCH = {
    "trades": (16.833003997802734, 2.049304723739624, 2.1610183715820312),
    "mart": (15.888351440429688, 2.2230422496795654, 2.1445395946502686),
}


def probabilities(logits):
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("name", TORCH)
def test_trades_and_mart_are_pytorch_s(name):
    loss = getattr(losses, name)()
    found, gradients = jax.value_and_grad(lambda logits: value(loss, *logits)[0])((CLEAN, ATTACKED))
    norms = [float(jnp.linalg.norm(gradient)) for gradient in gradients]
    np.testing.assert_allclose([float(found), *norms], TORCH[name], rtol=1e-5)


def test_trades_is_its_formula_and_beta_is_in_the_state():
    p, q, y = probabilities(CLEAN), probabilities(ATTACKED), np.asarray(LABELS)
    expected = -np.log(p[range(B), y]).mean() + 2.5 * (p * np.log(p / q)).sum(1).mean()
    loss = losses.trades(beta=2.5)
    found, metrics = value(loss)
    assert float(found) == pytest.approx(expected, rel=1e-5) and float(loss.init(None, None, None).beta) == 2.5
    assert float(metrics["clean_loss"] + 2.5 * metrics["divergence"]) == pytest.approx(expected, rel=1e-5)


def test_mart_is_its_formula():
    p, q, y = probabilities(CLEAN), probabilities(ATTACKED), np.asarray(LABELS)
    rival = np.where(np.eye(K)[y] > 0, 0, q).max(1)
    boosted = -np.log(q[range(B), y]) - np.log(1.0001 - rival)
    expected = (boosted + 2.5 * (p * np.log(p / q)).sum(1) * (1.0000001 - p[range(B), y])).mean()
    assert float(value(losses.mart(beta=2.5))[0]) == pytest.approx(expected, rel=1e-5)


def test_madry_looks_at_adversarial_images_alone_and_at_their_targets():
    targets = jnp.full((B, K), 1 / K)
    q = probabilities(ATTACKED)
    found, metrics = value(losses.madry(), clean=CLEAN * jnp.nan, targets=targets)
    assert float(found) == pytest.approx(-np.log(q).mean(), rel=1e-5) and "clean_loss" not in metrics


def test_mma_is_a_third_clean_and_two_thirds_of_what_has_a_margin_to_gain_over_the_whole_batch():
    chosen = jnp.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    p, q, y = probabilities(CLEAN), probabilities(ATTACKED), np.asarray(LABELS)
    clean, attacked = -np.log(p[range(B), y]), -np.log(q[range(B), y])
    expected = clean.mean() / 3 + 2 / 3 * (attacked * np.asarray(chosen)).sum() / B
    assert float(value(losses.mma(), attacked_weight=chosen)[0]) == pytest.approx(expected, rel=1e-5)


def test_accuracies_are_those_of_the_halves():
    _, metrics = value(losses.trades(), attacked_weight=jnp.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]))
    hit = (jnp.argmax(ATTACKED, -1) == LABELS).astype(jnp.float32)
    assert float(metrics["adversarial_accuracy"]) == pytest.approx(float(mean_of_real(hit[:3], ONES[:3])))
    assert float(metrics["clean_accuracy"]) == pytest.approx(float(jnp.mean(jnp.argmax(CLEAN, -1) == LABELS)))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: losses.trades(beta=-1.0), "beta = -1.0"),
        (lambda: losses.mart(beta=float("inf")), "beta = inf"),
        (lambda: losses.trades(label_smoothing=1.5), "label_smoothing = 1.5"),
        (lambda: losses.mart(label_smoothing=-0.5), "label_smoothing = -0.5"),
        (lambda: losses.madry(label_smoothing=2.0), "label_smoothing = 2.0"),
    ],
)
def test_refusals(make, name):
    with pytest.raises(SettingError, match=name):
        make()
