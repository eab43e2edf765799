"""Cascades attack only what is left, in batches of one size, and go on where they were cut off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.evaluation import Cascade, Stage, autoattack, cascade, named_threat
from bap_jax.evaluation import evaluate_batches as evaluate
from bap_jax.mathematics.per_example import choose
from bap_jax.types import AttackResult, Batch, Bounds

N, D, K = 30, 9, 4  # pictures of 3 by 3 pixels
_random = np.random.RandomState(3)
WEIGHTS = (jnp.asarray(_random.randn(D, 16), jnp.float32), jnp.asarray(_random.randn(16, K), jnp.float32))
IMAGES = _random.rand(N, 3, 3, 1).astype(np.float32)
KEY = jax.random.key(1)


def network(weights, images):
    return jnp.tanh((images - 0.5).reshape(len(images), -1) @ weights[0]) @ weights[1]


LABELS = np.asarray(network(WEIGHTS, IMAGES)).argmax(1).astype(np.int32)
LABELS[:4] = (LABELS[:4] + 1) % K  # four are wrong already


def batches(size):
    for start in range(0, N, size):
        rows = min(size, N - start)
        index = np.r_[np.arange(start, start + rows), np.full(size - rows, N)].astype(np.int32)
        images = np.concatenate([IMAGES[start : start + rows], np.zeros((size - rows, 3, 3, 1), np.float32)])
        yield Batch(images, np.r_[LABELS[start : start + rows], np.zeros(size - rows, np.int32)], index, (index < N) * 1.0)


def seen_by(log, name, only=None, attempts=1):
    """A stage that fools the examples whose position in the data set ``only`` selects; it writes down how many it is given."""

    def attack(logits_fn, keys, images, labels, epsilon, attempt):
        jax.debug.callback(lambda number: log.append((name, int(number))), attempt)
        # a point of another class: far along the gradient of the margin
        better = named_threat("pgd", num_steps=20).attack(logits_fn, keys, images, labels, jnp.float32(1.0)).images
        hit = only(images, attempt)
        return AttackResult(choose(hit, better, images), hit, jnp.zeros((1, len(images))))

    return Stage(name, attack, attempts)


def test_each_stage_and_attempt_gets_the_examples_that_are_left_in_batches_of_one_size():
    log, told = [], []
    first = seen_by(log, "first", lambda images, attempt: images[:, 0, 0, 0] < 0.5, attempts=2)
    last = seen_by(log, "last", lambda images, attempt: images[:, 0, 0, 0] < 0.7)
    mine = Cascade("mine", "linf", Bounds(), (first, last))
    result = evaluate(network, WEIGHTS, batches(8), [mine], [1.0], KEY, controls=False, progress=told.append)
    right = np.arange(N) >= 4
    low, middle = IMAGES[:, 0, 0, 0] < 0.5, IMAGES[:, 0, 0, 0] < 0.7
    np.testing.assert_array_equal(result.success["mine"][0], ~right | middle)
    np.testing.assert_array_equal(result.broken_by["mine"][0], np.where(~right, 0, np.where(low, 1, np.where(middle, 2, -1))))
    assert result.stages["mine"]["first"][0] == pytest.approx((right & ~low).mean())
    assert result.stages["mine"]["last"][0] == pytest.approx((right & ~middle).mean())
    left = [right.sum(), (right & ~low).sum(), (right & ~low).sum()]
    assert [told_.total for told_ in told if told_.done == told_.total] == left
    assert log == [("first", 0)] * -(-left[0] // 8) + [("first", 1)] * -(-left[1] // 8) + [("last", 0)] * -(-left[2] // 8)
    assert told[-1].fraction == pytest.approx(1)


def test_a_shrinking_number_compiles_nothing_anew():
    traces = []

    def counted(weights, images):
        traces.append(images.shape)
        return network(weights, images)

    mine = autoattack("linf", num_steps=10, num_queries=20)
    evaluate(counted, WEIGHTS, batches(8), [mine], [0.05], KEY, controls=False)
    before = len(traces)
    assert {shape for shape in traces} == {(8, 3, 3, 1)}
    again = autoattack("linf", num_steps=10, num_queries=20)
    other = jax.tree.map(lambda leaf: leaf * 0.9, WEIGHTS)
    evaluate(counted, other, batches(8), [again], [0.02, 0.1], jax.random.key(2), controls=False)
    assert len(traces) == before


@pytest.mark.parametrize("norm, epsilon", [("linf", 0.05), ("l2", 0.15), ("l1", 0.4)])
def test_autoattack_is_its_stages_and_at_least_as_strong_as_each(norm, epsilon):
    mine = autoattack(norm, num_steps=20, num_queries=50)
    single = named_threat("apgd-ce", norm=norm, num_steps=20)
    result = evaluate(network, WEIGHTS, batches(15), [mine, single], [0.0, epsilon], KEY, controls=False)
    name = mine.name
    clean, after = np.transpose(list(result.stages[name].values()))
    assert (np.diff(after) <= 0).all() and clean == pytest.approx(result.clean_accuracy)
    assert after[-1] == pytest.approx(result.robust_accuracy[name][1]) and after[-1] < result.clean_accuracy
    assert result.robust_accuracy[name][1] <= result.robust_accuracy[single.name][1] + 1 / N
    assert {check.status for check in result.checks if name in check.name} == {"passed"}


def test_the_order_of_batches_and_their_size_change_nothing():
    mine = autoattack("linf", attacks=("apgd-t", "square"), num_steps=10, num_queries=20)
    results = [evaluate(network, WEIGHTS, batches(size), [mine], [0.04], KEY, controls=False) for size in (30, 7)]
    np.testing.assert_array_equal(*(result.broken_by[mine.name] for result in results))


def test_an_evaluation_goes_on_where_it_was_cut_off():
    mine = [autoattack("linf", attacks=("apgd-ce", "square"), num_steps=10, num_queries=20), named_threat("fmn", num_steps=10)]
    given = dict(controls=True, keep_examples=True)
    whole = evaluate(network, WEIGHTS, batches(8), mine, [0.02, 0.05], KEY, **given)
    kept = {}

    def crash_after(count):
        def record(name, rows):
            if len(kept) == count:
                raise KeyboardInterrupt
            kept[name] = rows

        return record

    for count in (3, 9):
        with pytest.raises(KeyboardInterrupt):
            evaluate(network, WEIGHTS, batches(8), mine, [0.02, 0.05], KEY, recall=kept.get, record=crash_after(count), **given)
        assert len(kept) == count
    new = []
    resumed = evaluate(
        network,
        WEIGHTS,
        batches(8),
        mine,
        [0.02, 0.05],
        KEY,
        recall=kept.get,
        record=lambda name, rows: new.append(name),
        **given,
    )
    assert new and not set(new) & set(kept)
    assert resumed.checks == whole.checks
    for one, other in zip(jax.tree.leaves(resumed._asdict()), jax.tree.leaves(whole._asdict()), strict=True):
        np.testing.assert_array_equal(one, other)


def test_examples_are_those_that_count():
    threat = named_threat("pgd", num_steps=5)
    result = evaluate(network, WEIGHTS, batches(8), [threat], [0.0, 0.05], KEY, keep_examples=True, controls=False)
    images = result.examples[threat.name][0]
    assert np.abs(images - IMAGES).max() <= 0.05 + 1e-6
    np.testing.assert_array_equal(np.asarray(network(WEIGHTS, images)).argmax(1) != LABELS, result.success[threat.name][1])


def test_any_threats_make_a_cascade():
    mine = cascade("mine", [named_threat("fgsm"), named_threat("fmn", num_steps=20), named_threat("pgd", num_steps=10)])
    result = evaluate(network, WEIGHTS, batches(15), [mine, named_threat("fgsm")], [0.05], KEY, controls=False)
    assert list(result.stages["mine"]) == ["fgsm-linf", "fmn-20-linf", "pgd-10-linf"]
    np.testing.assert_allclose(result.stages["mine"]["fgsm-linf"], result.robust_accuracy["fgsm-linf"])
    with pytest.raises(SettingError, match="one norm"):
        cascade("two", [named_threat("fgsm"), named_threat("fgsm", norm="l2")])


def test_too_few_classes_are_refused_and_targets_capped():
    two = (WEIGHTS[0], WEIGHTS[1][:, :2])
    labels = np.asarray(network(two, IMAGES)).argmax(1).astype(np.int32)
    batch = [Batch(IMAGES, labels, np.arange(N, dtype=np.int32), np.ones(N, np.float32))]
    with pytest.raises(SettingError, match="apgd-t needs 4"):
        evaluate(network, two, batch, [autoattack()], [0.1], KEY)
    mine = autoattack(attacks=("apgd-ce", "fab-t"), num_steps=10)
    told = []
    evaluate(network, two, batch, [mine], [0.01], KEY, progress=told.append, controls=False)
    assert [one.threat for one in told] == ["autoattack[apgd-ce+fab-t]-linf: apgd-ce", "autoattack[apgd-ce+fab-t]-linf: fab-t"]


def test_a_random_network_is_attacked_in_expectation():
    def noisy(weights, images, keys=None):
        keys = jax.random.split(jax.random.key(7), len(images)) if keys is None else keys
        noise = jax.vmap(lambda key: jax.random.normal(key, (3, 3, 1)))(keys)
        return network(weights, images + 0.02 * noise)

    mine = autoattack(version="rand", randomized=True, num_steps=5)
    result = evaluate(noisy, WEIGHTS, batches(15), [mine], [0.1], KEY, controls=False)
    assert list(result.stages[mine.name]) == ["apgd-ce", "apgd-dlr"]
    assert result.robust_accuracy[mine.name][0] < result.clean_accuracy


@pytest.mark.parametrize("change", [
    {"norm": "l0"}, {"version": "fast"}, {"norm": "l1", "version": "plus"}, {"attacks": ("pgd",)}, {"attacks": ()},
])  # fmt: skip
def test_what_was_not_published_is_refused(change):
    with pytest.raises(SettingError):
        autoattack(**change)


def test_the_published_lists():
    def stages(*arguments, **settings):
        return [(stage.name, stage.attempts) for stage in autoattack(*arguments, **settings).stages]

    assert stages("linf") == stages("l2") == [("apgd-ce", 1), ("apgd-t", 9), ("fab-t", 9), ("square", 1)]
    assert stages("l1") == [("apgd-ce", 5), ("apgd-t", 5), ("fab-t", 9), ("square", 1)]
    assert stages("linf", version="rand") == [("apgd-ce", 1), ("apgd-dlr", 1)]
    plus = [("apgd-ce", 5), ("apgd-dlr", 5), ("fab", 5), ("square", 1), ("apgd-t", 9), ("fab-t", 9)]
    assert stages("l2", version="plus") == plus
