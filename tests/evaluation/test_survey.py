"""The survey's protocol on a linear network, whose distances are known: verdicts, tuned FMN, curve, nothing done twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.evaluation import Cascade, Stage, survey_protocol, survey_split, tune_fmn
from bap_jax.evaluation import evaluate_batches as evaluate
from bap_jax.evaluation.survey import EPSILON, NOMINAL, RADII
from bap_jax.types import AttackResult, Batch, Bounds

K, SIDE, N = 4, 3, 24
_random = np.random.RandomState(0)
WEIGHTS = jnp.asarray(_random.randn(SIDE * SIDE, K), jnp.float32)
IMAGES = _random.uniform(0.3, 0.7, (N, SIDE, SIDE, 1)).astype(np.float32)
LABELS = np.asarray((IMAGES - 0.5).reshape(N, -1) @ WEIGHTS).argmax(1).astype(np.int32)
LABELS[0] = (LABELS[0] + 1) % K  # wrong already


def network(weights, images):
    return (images - 0.5).reshape(len(images), -1) @ weights


def distances():
    """[N] the L∞ distance to the nearest boundary: the gap of logits over the L1 norm of the difference of weights."""
    logits = np.asarray(network(WEIGHTS, IMAGES), np.float64)
    found = np.zeros(N)
    for n, label in enumerate(LABELS):
        gaps = [
            (logits[n, label] - logits[n, j]) / np.abs(WEIGHTS[:, label] - WEIGHTS[:, j]).sum() for j in range(K) if j != label
        ]
        found[n] = max(0.0, min(gaps))
    return found


def batch(rows):
    rows = np.asarray(rows)
    return Batch(IMAGES[rows], LABELS[rows], rows.astype(np.int32), np.ones(len(rows), np.float32))


class Memory(dict):
    """A journal that counts what is asked of it."""

    def record(self, name, rows):
        assert name not in self
        self[name] = rows


@pytest.fixture(scope="module")
def found():
    memory, told = Memory(), []
    settings = {
        "num_steps": 100,
        "num_trial_steps": 30,
        "controls": False,
        "progress": told.append,
        "counts": (N, 10 * 8, 8),
        "autoattack_settings": {"num_steps": 10, "attacks": ("apgd-t",)},
    }
    tuning = [batch(range(8))] * 10

    def run():
        return survey_protocol(
            network, WEIGHTS, [batch(range(N))], tuning, [batch(range(16, N))], 0,
            recall=memory.get, record=memory.record, **settings,
        )  # fmt: skip

    return run(), run, memory, told


def test_what_the_protocol_finds_is_what_is_known(found):
    result, truth = found[0], distances()
    assert result.attacked.clean_accuracy == pytest.approx((N - 1) / N)
    for epsilon, accuracy in zip((EPSILON, NOMINAL), result.attacked.robust_accuracy["autoattack-linf"], strict=True):
        assert accuracy == pytest.approx(np.mean(truth > epsilon), abs=1e-6)
    near = np.isclose(result.distances, truth[16:], rtol=0.02, atol=3e-3)  # DLR may lead to a class that is not the nearest
    assert near.mean() >= 0.75
    assert (result.distances >= truth[16:] - 1e-6).all()
    assert result.curve.epsilons.tolist() == list(RADII) and len(RADII) == 1000 and RADII[-1] == 0.15
    np.testing.assert_allclose(result.curve.accuracy, [np.mean(result.distances > radius) for radius in RADII])


def test_the_tuned_configuration_is_the_best_of_its_trials(found):
    tuned, truth = found[0].tuned, distances()
    right = np.sort(truth[:8][truth[:8] > 0])
    medians = [trial.median for trial in tuned.trials]
    assert len(medians) == 10 and min(medians) == pytest.approx(right[(len(right) - 1) // 2], rel=0.1)
    best = tuned.trials[int(np.argmin(medians))]
    chosen = tuned.configuration
    assert (chosen.step_size, chosen.momentum, chosen.weight_decay) == best[:3]
    assert (chosen.objective, chosen.optimizer, chosen.schedule, chosen.sign) == ("dlr", "sgd", "cosine", True)
    for trial in tuned.trials:
        assert 8 / 255 <= trial.step_size <= 10 and 0 <= trial.momentum <= 0.9 and 0.01 <= trial.weight_decay <= 1


def test_it_goes_on_where_it_stopped_and_tells_how_far_it_is(found):
    result, run, memory, told = found
    fractions = [reached.fraction for reached in told]
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1.0)
    assert any("tuning" in reached.threat for reached in told)
    kept = len(memory)
    again = run()  # Memory refuses to be told anything twice
    assert len(memory) == kept
    np.testing.assert_array_equal(again.distances, result.distances)
    assert again.tuned == result.tuned


def test_the_split_is_the_surveys():
    split = survey_split(10_000)
    assert np.concatenate(split.tuning).tolist() == list(range(2048)) and {len(part) for part in split.tuning} == {64}
    assert split.measured.tolist() == list(range(2048, 2176)) and split.theirs and len(split.all) == 2176
    more = survey_split(10_000, num_measured=1000)
    assert len(more.measured) == 1000 and more.theirs
    small = survey_split(100, num_trials=3)
    assert not small.theirs and small.measured.tolist() == list(range(50, 100)) and max(map(max, small.tuning)) < 50
    for given in ({"num_images": 1}, {"num_images": 10, "num_trials": 0}):
        with pytest.raises(SettingError):
            survey_split(**given)


def test_what_a_smaller_budget_broke_is_not_attacked_again():
    attacked = []

    def attack(logits_fn, keys, images, labels, epsilon, attempt):
        jax.debug.callback(lambda e, x: attacked.append((round(float(e), 2), np.asarray(x).copy())), epsilon, images[:, 0, 0, 0])
        hit = images[:, 0, 0, 0] < 0.5 + epsilon  # a larger budget breaks more
        better = jnp.where(hit[:, None, None, None], 0.5 - 0.2 * jnp.sign(WEIGHTS[:, 0].reshape(1, SIDE, SIDE, 1)), images)
        moved = images + jnp.clip(better - images, -epsilon, epsilon)
        return AttackResult(moved, jnp.zeros_like(hit), jnp.zeros((1, len(images))))

    mine = Cascade("mine", "linf", Bounds(), (Stage("one", attack),))
    given = (network, WEIGHTS, [batch(range(N))], [mine], [0.1, 0.2], jax.random.key(0))
    nested = evaluate(*given, controls=False, nested=True)
    counts = {
        epsilon: sum(int((values != 0).any()) and len(values) for e, values in attacked if e == epsilon) for epsilon in (0.1, 0.2)
    }
    assert counts[0.1] == N  # one batch of one size; the second holds the survivors and padding by copies of the first of them
    survivors = np.unique(IMAGES[~nested.success["mine"][0], 0, 0, 0])
    seen = np.unique(np.concatenate([values for e, values in attacked if e == 0.2]))
    np.testing.assert_array_equal(seen, survivors)
    assert (nested.success["mine"][1] >= nested.success["mine"][0]).all()
    assert (nested.nearest["linf"][nested.success["mine"][0] & (nested.prediction == nested.label)] <= 0.1 + 1e-6).all()


def test_a_network_that_nothing_fools_has_no_best_configuration():
    with pytest.raises(SettingError, match="batches"):
        tune_fmn(lambda weights, images: jnp.tile(jnp.arange(4.0), (len(images), 1)), WEIGHTS, [_of_class_3()], num_steps=2)
    with pytest.raises(SettingError, match="batches"):
        tune_fmn(network, WEIGHTS, [], num_steps=2)


def _of_class_3():
    return batch([0, 1])._replace(labels=np.array([3, 3]))


def test_traced_numbers_of_a_configuration_are_taken():
    from bap_jax.attacks.ho_fmn import FmnConfiguration

    made = jax.eval_shape(lambda x: FmnConfiguration(step_size=x, momentum=x).settings(5)["step_size_schedule"](0), 0.5)
    assert made.shape == ()
    with pytest.raises(SettingError, match="momentum"):
        FmnConfiguration(momentum=1.5).settings(5)
