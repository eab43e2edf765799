"""An image gets one answer, whatever else is in its batch: networks for which that is not so; rounding is no such thing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.evaluation import evaluate_batches as evaluate
from bap_jax.evaluation import named_threat
from bap_jax.types import Batch

N, D, K = 53, 6, 3
_random = np.random.RandomState(1)
WEIGHTS = jnp.asarray(_random.randn(D, K), jnp.float32)
IMAGES = (0.2 + 0.6 * _random.rand(N, D)).astype(np.float32)
LABELS = ((IMAGES - 0.5) @ np.asarray(WEIGHTS)).argmax(1).astype(np.int32)
CHECK = "rows do not see their neighbours"


def batches(size, first=0):
    """Of one size, the last one padded; ``first`` rows of padding before all."""
    if first:
        yield Batch(np.zeros((first, D), np.float32), np.zeros(first, np.int32), np.full(first, N), np.zeros(first))
    for start in range(0, N, size):
        rows = np.minimum(np.arange(start, start + size), N)
        real = rows < N
        images = np.where(real[:, None], IMAGES[np.minimum(rows, N - 1)], 0).astype(np.float32)
        yield Batch(images, np.where(real, LABELS[np.minimum(rows, N - 1)], 0), rows, real.astype(np.float32))


def alone(weights, images):
    return (images - 0.5) @ weights


def normalised(weights, images):
    """BatchNorm left in training mode."""
    return ((images - images.mean(0, keepdims=True)) / images.std(0, keepdims=True).clip(1e-3)) @ weights


def attending(weights, images):
    scores = jax.nn.softmax(images @ images.T)
    return (scores @ images - 0.5) @ weights


def centred(weights, images):
    logits = alone(weights, images)
    return logits - logits.mean(0, keepdims=True)


def masked(weights, images):
    """As well, and one class is never said: minus infinity is no scale to measure differences by."""
    return jnp.where((jnp.arange(K) == 2)[None], -jnp.inf, centred(weights, images))


def chained(weights, images):
    """Every row sees the one before it, and no mean over the batch tells."""
    logits = alone(weights, images)
    return logits + 0.5 * jnp.roll(logits, 1, axis=0)


def placed(weights, images):
    """The answer depends on the row's place."""
    return alone(weights, images) + 0.2 * jnp.arange(len(images), dtype=jnp.float32)[:, None] * jnp.eye(K)[:1]


def spoilt(weights, images):
    """A dark row anywhere makes the whole batch NaN."""
    return alone(weights, images) + jnp.where((images < 0.1).all(1).any(), jnp.nan, 0)


def look(network, given):
    return evaluate(network, WEIGHTS, given, named_threat("fgsm"), 0.02, 0, controls=False)


def found(network, given):
    (check,) = (check for check in look(network, given).checks if check.name == CHECK)
    return check


@pytest.mark.parametrize("network", [normalised, attending, centred, masked, chained, placed])
@pytest.mark.parametrize("size", [2, 7])
def test_a_network_that_looks_at_its_batch_fails(network, size):
    check = found(network, batches(size))
    assert check.status == "failed" and check.value.startswith("rows depend on their neighbours: largest difference")
    assert f"of {size} predictions change" in check.value and "BatchNorm" in check.advice


def test_a_nan_that_only_neighbours_bring_fails():
    batch = next(batches(2))._replace(images=np.array([[0.1] * D, [0.9] * D], np.float32))
    assert found(spoilt, batch).status == "passed"
    dark = np.array([[0.05] + [0.5] * (D - 1), [0.95] * D], np.float32)  # mirrored, the second one is dark all over
    check = found(spoilt, batch._replace(images=dark))
    assert check.status == "failed" and "largest difference inf" in check.value


def test_padding_is_a_neighbour_and_a_single_row_has_none():
    assert found(normalised, next(batches(60))).status == "failed"
    one = Batch(*(np.asarray(column)[[0, 53, 53]] for column in next(batches(60))))
    assert one.weight.tolist() == [1, 0, 0] and found(normalised, one).status == "failed"
    check = found(normalised, batches(1))
    assert check.status == "passed" and check.value == "batches of one row have none"


def test_the_first_batch_with_neighbours_is_looked_at():
    """A first batch of padding alone, or of one row, does not hide the rest."""
    assert found(normalised, batches(7, first=7)).status == "failed"
    single = Batch(*(np.asarray(column)[:1] for column in next(batches(7))))
    rest = [batch._replace(weight=batch.weight * (batch.index > 0)) for batch in batches(7)]
    assert found(normalised, [single, *rest]).status == "failed"
    noisy = evaluate(lambda w, x: alone(w, x) + np.random.randn(1, K).astype(np.float32), WEIGHTS, batches(7, first=7), [], 0, 0)
    assert {check.name: check.status for check in noisy.checks}["deterministic outputs"] == "failed"


def test_the_right_network_says_the_same_at_every_batch_size():
    """Alone, in sevens, in fifties with a last batch of three and padding, and in a last batch that is not padded."""
    short = [*list(batches(50))[:1], Batch(*(np.asarray(column)[:3] for column in list(batches(50))[1]))]
    results = [look(alone, given) for given in (batches(1), batches(7), batches(50), short)]
    for result in results:
        assert {check.name: check.status for check in result.checks}[CHECK] == "passed"
        np.testing.assert_array_equal(result.prediction, results[0].prediction)
        np.testing.assert_array_equal(result.success["fgsm-linf"], results[0].success["fgsm-linf"])


def test_rounding_among_rows_is_no_neighbour():
    def rounded(weights, images):  # what another order of summation does, exaggerated a hundredfold
        return 30 * alone(weights, images) + 1e-3 * jnp.arange(len(images), dtype=jnp.float32)[:, None]

    assert found(rounded, batches(7)).status == "passed"


def test_looking_again_compiles_nothing():
    traces = []

    def counted(weights, images):
        traces.append(images.shape)
        return alone(weights, images)

    look(counted, batches(7))
    assert traces == [(7, D)] * 5  # look: its two gradients; attack: its gradient and its result; judge
