"""What is compiled for a run can be built from its traced settings, whatever the norm."""

import pytest
from told import told

from bap_jax.runs.recipe import recipe_of
from bap_jax.runs.settings import Settings

RADII = {"linf": None, "rms": None, "l2": 3.0, "l1": 20.0}


@pytest.mark.parametrize("norm", RADII)
def test_the_blind_step_of_every_norm_can_be_built_for_compiling(norm):
    settings = Settings(norm=norm, epsilon_max=RADII[norm]).check().traced()
    budget = recipe_of(settings, told(num_steps=2)).budget
    assert float(budget.init(told(1)).epsilon_max) > 0


def test_runs_that_differ_in_what_the_state_carries_share_a_step():
    one = Settings(norm="l2", epsilon_max=3.0, scale=1.0, final_sparsity=0.5, seed=1, learning_rate=0.1)
    other = Settings(norm="l2", epsilon_max=2.0, scale=1.4, final_sparsity=0.9, seed=2)
    assert one.traced() == other.traced() != Settings().traced()
