"""The door of the attacks, as one contract over all of them: what is refused, what NaN and half precision lead to.

The network of the contract is linear; its last rows, where it is broken, are so on every side of their images.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks import apgd, bisection, fab, fgsm, ho_fmn, n_fgsm, noise, pgd, pgd0, rs_fgsm, sigma_zero, square
from bap_jax.attacks._inputs import AnyRadius, round_towards
from bap_jax.attacks.friendly_pgd import friendly_pgd
from bap_jax.errors import SettingError
from bap_jax.evaluation import ATTACKS, named_threat
from bap_jax.evaluation.threats import attack_settings
from bap_jax.mathematics import misclassified, per_example_norm, successful
from bap_jax.types import Bounds

B, K, SHAPE = 3, 4, (2, 2, 2)
_random = np.random.RandomState(3)
WEIGHTS = jnp.asarray(_random.choice([-1.0, 1.0], (8, K)) + 0.1 * _random.randn(8, K), jnp.float32)
IMAGES = jnp.asarray(_random.uniform(0.4, 0.6, (B, *SHAPE)), jnp.bfloat16).astype(jnp.float32)  # values that bfloat16 holds too
KEYS = jax.random.split(jax.random.key(0), B)
EPSILON = {"linf": 0.3, "l0": 6.0}
IN_FLOAT16 = ("pgd", "apgd-ce", "fmn", "sigma-zero")  # and all in bfloat16


def linear(images):
    return (images.reshape(images.shape[0], -1) - jnp.asarray(0.5, images.dtype)) @ WEIGHTS.astype(images.dtype)


LABELS = jnp.argmax(linear(IMAGES), axis=1)


def threat_of(name):
    settings = {
        "num_steps": 30 if name == "fmn" else 10,
        "num_queries": 15,
        "num_samples": 5,
        "num_trial_steps": 2,
        "search_steps": 2,
    }
    settings |= {"initial_constant": 100.0} if name == "cw" else {}
    fixed = {} if "truncated" in name else {key: value for key, value in settings.items() if key in attack_settings(name)}
    return named_threat(name, norm=ATTACKS[name].norms[0], **fixed)


def call(name, network=linear, images=IMAGES, labels=LABELS, epsilon=None):
    threat = threat_of(name)
    return threat.attack(
        network, KEYS, images, labels, jnp.float32(EPSILON.get(threat.norm, 0.5)) if epsilon is None else epsilon
    )


REFUSED = {
    "standardised images": ({"images": 4 * IMAGES - 2}, r"images = values from -.*inside the bounds \[0, 1\]"),
    "bytes": ({"images": (255 * IMAGES).astype(jnp.uint8)}, r"images = uint8.*images / 255"),
    "a NaN in an image": ({"images": IMAGES.at[1].set(jnp.nan)}, "images = 8 values that are not finite"),
    "a label too large": ({"labels": LABELS.at[2].set(K)}, "labels = 4 at position 2: expected classes 0 to 3"),
    "a label of -1": ({"labels": LABELS.at[0].set(-1)}, "labels = -1 at position 0"),
    "labels that are floats": ({"labels": LABELS.astype(jnp.float32)}, "labels = float32"),
    "one logit": ({"network": lambda x: linear(x)[:, :1]}, r"logits_fn = .*at least two classes; one logit s is \[0, s\]"),
    "logits [B]": ({"network": lambda x: linear(x)[:, 0]}, "logits_fn = .*at least two classes"),
    "logits of whole numbers": ({"network": lambda x: jnp.ones((B, K), jnp.int32)}, "logits_fn = int32"),
    "a tuple": ({"network": lambda x: (linear(x), {})}, "logits_fn = a tuple"),
    "a dict": ({"network": lambda x: {"logits": linear(x)}}, "logits_fn = a dict"),
    "nothing": ({"network": lambda x: None}, "logits_fn = None"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_what_cannot_be_is_refused_by_every_attack(name):
    for change, message in REFUSED.values():
        with pytest.raises(SettingError, match=message):
            call(name, **change)
    if ATTACKS[name].radius is not None:
        with pytest.raises(SettingError, match=r"(epsilon|num_pixels) = -"):
            call(name, epsilon=jnp.array([0.1, -0.1, 0.1]))
    for box in (Bounds(1.0, 0.0), Bounds(0.5, 0.5), Bounds(jnp.zeros(2), jnp.array([1.0, -1.0])), Bounds(jnp.zeros(5), 1.0)):
        with pytest.raises(SettingError, match="bounds = "):
            named_threat(name, norm=ATTACKS[name].norms[0], bounds=box).attack(linear, KEYS, IMAGES, LABELS, jnp.float32(0.1))


@pytest.mark.parametrize("name", ATTACKS)
def test_traced_values_are_not_looked_at(name):
    wrong = jax.eval_shape(lambda x, y: call(name, images=x, labels=y), 9 * IMAGES, LABELS + K)
    assert wrong.images.shape == IMAGES.shape and wrong.images.dtype == IMAGES.dtype


@pytest.mark.parametrize("attack", [
    functools.partial(fgsm, linear, None), functools.partial(pgd, linear, KEYS, num_steps=2),
    functools.partial(apgd, linear, KEYS, num_steps=2), functools.partial(square, linear, KEYS, num_queries=2),
    functools.partial(noise, linear, KEYS, num_samples=2), functools.partial(fab, linear, KEYS, restarts=2),
    functools.partial(friendly_pgd, linear, KEYS), functools.partial(rs_fgsm, linear, KEYS),
    functools.partial(n_fgsm, linear, KEYS),
])  # fmt: skip
def test_a_radius_wider_than_the_box_is_refused_with_what_was_meant(attack):
    for epsilon in (8, np.float32(8), jnp.full(B, 8.0)):
        with pytest.raises(SettingError, match=r"epsilon = 8: expected at most 1, the linf size of the box \[0, 1\]; 8/255\?"):
            attack(IMAGES, LABELS, epsilon=epsilon)
    with pytest.raises(SettingError, match=r"epsilon = 128: expected at most 2.82843, the l2 size"):
        attack(IMAGES, LABELS, epsilon=128, norm="l2")


def test_a_radius_as_wide_as_the_box_passes_and_so_does_any_inside():
    image, label = IMAGES[:1], LABELS[:1]
    assert fgsm(linear, None, image, label, epsilon=1.0).found.shape == (1,)
    assert fgsm(linear, None, image, label, epsilon=5.5, bounds=Bounds(-5.0, 1.0)).found.shape == (1,)
    far = fgsm(AnyRadius(linear), None, image, label, epsilon=100.0)
    np.testing.assert_array_equal(far.images, jax.jit(lambda e: fgsm(linear, None, image, label, epsilon=e).images)(100.0))
    assert set(np.unique(far.images)) == {0.0, 1.0}


def test_concrete_arrays_of_other_settings_are_looked_at_too():
    for settings, attack in (
        ({"step_size": jnp.array([0.1, -0.1, 0.1]), "num_steps": 2, "epsilon": 0.1}, pgd),
        ({"num_pixels": jnp.array([1, -1, 1])}, pgd0),
        ({"sigma": jnp.array(-1.0)}, sigma_zero),
        ({"step_size": jnp.array(-1.0), "epsilon": 0.1}, rs_fgsm),
        ({"noise": jnp.array(-1.0), "epsilon": 0.1}, n_fgsm),
    ):
        with pytest.raises(SettingError, match=next(iter(settings))):
            attack(linear, KEYS, IMAGES, LABELS, **settings)
    with pytest.raises(SettingError, match="adversarial = values from"):
        bisection(linear, None, IMAGES, LABELS, adversarial=IMAGES + 1)


def broken(images):
    """Never another class by finite numbers; NaN, +∞ or the label's −∞ as soon as a point has moved by 0.01, by where it went."""
    delta = jnp.abs(images.astype(jnp.float32) - IMAGES).reshape(B, -1)
    classes = jnp.arange(K)[None, :]
    rival, own = classes == (LABELS[:, None] + 1) % K, classes == LABELS[:, None]
    bad = jnp.stack([jnp.where(rival, jnp.nan, 0), jnp.where(rival, jnp.inf, 0), jnp.where(own, -jnp.inf, 0)])  # [3, B, K]
    chosen = jnp.take_along_axis(bad, (jnp.argmax(delta, axis=1) % 3)[None, :, None], axis=0)[0]
    moved = jnp.max(delta, axis=1, keepdims=True) > 0.01
    return 0.01 * linear(images) + (jnp.where(own, 50.0, 0.0) + jnp.where(moved, chosen, 0)).astype(images.dtype)


def half_broken(images):
    return jnp.concatenate([linear(images[:B]), broken(images[B:])])


@pytest.mark.parametrize("name, dtype", [(n, "bfloat16") for n in ATTACKS] + [(n, "float16") for n in IN_FLOAT16])
def test_half_precision_and_logits_that_are_not_finite(name, dtype):
    """Attacked in float32, rounded into ball and box, judged as rounded; what is not finite is never a success."""
    threat, images = threat_of(name), jnp.concatenate([IMAGES, IMAGES]).astype(dtype)
    assert (images[:B].astype(jnp.float32) == IMAGES).all()  # both types hold them
    keys, labels = jax.random.split(jax.random.key(0), 2 * B), jnp.concatenate([LABELS, LABELS])
    radius = jnp.float32(EPSILON.get(threat.norm, 0.5))
    result = jax.jit(lambda x: threat.attack(half_broken, keys, x, labels, radius))(images)
    assert result.images.dtype == images.dtype and result.loss.dtype == jnp.float32
    assert not result.found[B:].any()
    points, own = result.images[:B].astype(jnp.float32), result.found[:B]
    assert ((points >= 0) & (points <= 1)).all()
    if ATTACKS[name].radius is not None:
        assert (per_example_norm(points - IMAGES, threat.norm) <= radius * (1 + 1e-6)).all()
    if "truncated" not in name:
        np.testing.assert_array_equal(own, misclassified(linear(result.images[:B]), LABELS))
    if not (ATTACKS[name].black_box or ATTACKS[name].truncated):
        assert own.all()  # as in float32: the network is linear and the budget large


def test_targeted_attacks_do_not_take_them_for_a_success_either():
    targets = (LABELS + 1) % K
    for attack in (
        functools.partial(fgsm, epsilon=0.3),
        functools.partial(sigma_zero, num_steps=2),
    ):
        assert not jax.jit(functools.partial(attack, broken, targeted=True))(KEYS, IMAGES, targets).found.any()


def test_what_decides_is_finite():
    inf, nan = jnp.inf, jnp.nan
    logits = jnp.array([[0, 1, -inf], [0, 1, nan], [0, 1, inf], [-inf, 1, 0], [1, 0, -inf], [nan, nan, nan], [-inf, -inf, -inf]])
    labels = jnp.zeros(7, int)
    np.testing.assert_array_equal(misclassified(logits, labels), [True, *[False] * 6])  # a class that is masked takes no part
    np.testing.assert_array_equal(successful(logits, labels, targeted=True), [False] * 4 + [True] + [False] * 2)
    np.testing.assert_array_equal(successful(logits, labels + 1, targeted=True), [True, False, False, True, False, False, False])


def test_a_search_leaves_where_nothing_is_finite():
    """The stripes that Square begins with give NaN; only smaller changes, which the search has to accept, fool the network."""
    start = jnp.full((1, 4, 4, 1), 0.5)

    def network(images):
        mean = jnp.mean(images - start, axis=(1, 2, 3))
        logits = jnp.stack([0.02 - mean, mean], axis=1)
        return jnp.where(jnp.abs(images - start).min(axis=(1, 2, 3))[:, None] > 0.05, jnp.nan, logits)

    result = jax.jit(lambda: square(network, KEYS[:1], start, jnp.array([0]), epsilon=0.1, num_queries=3))()
    assert not jnp.isnan(result.loss).any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_goes_towards_the_image_and_lets_gradients_pass(dtype):
    scale = 10.0 ** jnp.linspace(-6, -1, 40)[None, :]
    images = jax.random.uniform(jax.random.key(1), (50, 40), minval=-1).astype(dtype)
    points = images.astype(jnp.float32) + scale * jax.random.normal(jax.random.key(2), (50, 40))
    rounded = round_towards(points, images)
    wide, centre = rounded.astype(jnp.float32), images.astype(jnp.float32)
    assert rounded.dtype == dtype
    assert (jnp.abs(wide - centre) <= jnp.abs(points - centre)).all()
    assert (jnp.abs(wide - points) <= jnp.finfo(dtype).eps * jnp.maximum(jnp.abs(points), jnp.abs(centre)) + 1e-7).all()
    np.testing.assert_array_equal(round_towards(centre, images), images)
    gradient = jax.grad(lambda p: jnp.sum(3 * round_towards(p, images).astype(jnp.float32)))(points)
    np.testing.assert_array_equal(gradient, 3.0)


def test_logits_in_half_precision_are_cast_to_float32():
    result = fgsm(lambda x: linear(x).astype(jnp.bfloat16), None, IMAGES, LABELS, epsilon=0.3)
    assert result.images.dtype == jnp.float32 and result.loss.dtype == jnp.float32 and result.found.all()


def test_untargeted_fab_with_many_classes_warns():
    many = lambda x: x.reshape(B, -1) @ jnp.ones((8, 101))  # noqa: E731
    with pytest.warns(UserWarning, match=r"fab takes 100 backward passes per step.*fab-t"):
        jax.eval_shape(lambda x: fab(many, None, x, LABELS, num_steps=1), IMAGES)


def test_ho_fmn_with_two_classes_says_what_to_set():
    two = lambda x: linear(x)[:, :2]  # noqa: E731
    with pytest.raises(SettingError, match=r"configurations = .*2 classes.*default_configurations.*'dlr'"):
        ho_fmn(two, None, IMAGES, LABELS % 2)
