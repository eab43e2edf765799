"""Curves from distances, and their area."""

import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.evaluation import SecurityCurve, area_under_curve, security_curve


def test_a_distance_equal_to_the_budget_is_broken_and_what_was_not_found_never_is():
    curve = security_curve([0.0, 0.2, np.inf], [0.0, 0.1, 0.2, 1e6])
    np.testing.assert_allclose(curve.accuracy, [2 / 3, 2 / 3, 1 / 3, 1 / 3])


def test_the_curve_falls_and_its_area_is_the_mean_clipped_distance():
    """∫₀^E mean(r > ε) dε = mean(min(r, E))."""
    distances = np.random.RandomState(0).exponential(0.2, 500)
    epsilons = np.linspace(0, 0.5, 4001)
    curve = security_curve(distances, epsilons)
    assert np.all(np.diff(curve.accuracy) <= 0)
    assert area_under_curve(curve) * 0.5 == pytest.approx(np.minimum(distances, 0.5).mean(), abs=1e-3)


@pytest.mark.parametrize("call", [
    lambda: security_curve([np.nan], [0.1]),
    lambda: security_curve([-0.1], [0.1]),
    lambda: security_curve([], [0.1]),
    lambda: security_curve([0.1], [0.2, 0.1]),
    lambda: security_curve([0.1], [-0.1]),
    lambda: area_under_curve(SecurityCurve(np.array([0.1]), np.array([1.0]))),
])  # fmt: skip
def test_what_cannot_be_is_refused(call):
    with pytest.raises(SettingError):
        call()
