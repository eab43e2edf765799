"""Every check passes, warns and fails where it says it does."""

import pytest

from bap_jax.evaluation import checks


@pytest.mark.parametrize("check, status", [
    (checks.check_logits(99, 100), "passed"),
    (checks.check_logits(100, 100), "failed"),
    (checks.check_finite("x", 0, 5, "a"), "passed"),
    (checks.check_finite("x", 1, 5, "a"), "failed"),
    (checks.check_gradients(0, 0, 100), "passed"),
    (checks.check_gradients(1, 0, 100), "warned"),
    (checks.check_gradients(2, 0, 100), "failed"),
    (checks.check_gradients(0, 1, 100), "passed"),
    (checks.check_gradients(0, 100, 100), "warned"),
    (checks.check_determinism(1e-4, 10.0), "passed"),
    (checks.check_determinism(0.2, 10.0), "failed"),
    (checks.check_neighbours(None, 10.0), "passed"),
    (checks.check_neighbours((1e-4, 0, 7), 10.0), "passed"),
    (checks.check_neighbours((0.2, 0, 7), 10.0), "failed"),
    (checks.check_neighbours((float("inf"), 7, 7), 10.0), "failed"),
    (checks.check_points("x", 0, 5, "ball"), "passed"),
    (checks.check_points("x", 1, 5, "ball"), "failed"),
    (checks.check_returned("x", 1, 5), "warned"),
    (checks.check_monotone("x", [0.0, 0.1, 0.2], [0.9, 0.5, 0.5], 1000), "passed"),
    (checks.check_monotone("x", [0.0, 0.1, 0.2], [0.9, 0.5, 0.51], 1000), "warned"),
    (checks.check_monotone("x", [0.2, 0.0, 0.1], [0.6, 0.9, 0.5], 1000), "failed"),  # any order
    (checks.check_monotone("x", [0.0, 0.1, 0.2], [0.9, 0.5, 0.6], 10), "passed"),  # one example of ten
    (checks.check_converged("x", 2.0, 0.1, 7), "passed"),
    (checks.check_converged("x", 2.0, 0.5, 7), "warned"),
    (checks.check_converged("x", 0.0, 0.0, 7), "warned"),
    (checks.check_converged("x", 0.0, 0.0, 0), "passed"),
    (checks.check_once(0, 5), "passed"),
    (checks.check_once(1, 5), "failed"),
])  # fmt: skip
def test_the_status_follows_the_numbers(check, status):
    assert check.status == status
    assert bool(check.advice) == (status != "passed")


def test_iterated_attacks_are_compared_with_single_steps_only_where_both_ran():
    assert checks.check_iterative({}, {"pgd": 0.5}, 0.01) is None
    assert checks.check_iterative({"fgsm": 0.5}, {}, 0.01) is None
    assert checks.check_iterative({"fgsm": 0.5}, {"weak": 0.9, "strong": 0.4}, 0.01).status == "passed"
    assert checks.check_iterative({"fgsm": 0.5}, {"weak": 0.9}, 0.01).status == "warned"
