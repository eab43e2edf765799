"""Runs that an earlier version began are read with the meaning that they were trained with."""

import dataclasses
import json
from collections import namedtuple

import jax
import jax.numpy as jnp
import pytest
from earlier import schema_1
from told import told

from bap_jax import budgets
from bap_jax.checkpoint import Checkpoints
from bap_jax.errors import SettingError
from bap_jax.runs.loop import check_out
from bap_jax.runs.migrations import ADDED, migrated, restored
from bap_jax.runs.naming import arm_of
from bap_jax.runs.restore import settings_of
from bap_jax.runs.settings import Settings
from bap_jax.training import TrainState

FIRST = {"path": "ray", "halving": "linear", "wrong": "zero", "cutoff_over": "all"}
LATER = tuple(name for added in ADDED for name in added.then)


@pytest.fixture
def stored(tmp_path):
    """A run folder with a configuration as d991d9c wrote it."""

    def write(**settings):
        config = schema_1(Settings(**settings))
        (tmp_path / "config.json").write_text(json.dumps({name: config[name] for name in config if name not in LATER}))
        return tmp_path

    return write


def test_a_blind_run_without_the_settings_walked_the_ray(stored):
    run = stored(scale=1.4)
    assert settings_of(run) == Settings(scale=1.4, **FIRST)
    assert arm_of(settings_of(run)) == "blind, path ray, halving linear, wrong zero, scale 1.4"
    check_out(Settings(scale=1.4, **FIRST), run, resume=True)
    with pytest.raises(SettingError, match=r"budget\.path = 'ball': expected 'ray', with which the run in .* was started"):
        check_out(Settings(scale=1.4), run, resume=True)


@pytest.mark.parametrize(
    "settings",
    [{"budget": "uniform", "epsilon": "0.3"}, {"budget": "none"}, {"search": "deepfool", "example": "rescaled", "norm": "rms"}],
)
def test_a_run_that_the_settings_do_not_matter_to_goes_on_and_keeps_its_name(stored, settings):
    run = stored(**settings)
    assert settings_of(run) == Settings(**settings) and arm_of(settings_of(run)) == arm_of(Settings(**settings))
    check_out(Settings(**settings), run, resume=True)
    with pytest.raises(SettingError, match="seed = 3"):
        check_out(Settings(**settings, seed=3), run, resume=True)


def test_what_a_run_was_told_stays():
    told = dataclasses.replace(Settings(), halving="linear", wrong="floor:0.5").as_dict()
    assert migrated(told) == told


def test_a_checkpoint_that_did_not_carry_the_share_of_the_wrong_is_gone_on_from(tmp_path):
    budget = budgets.cutoff_scale(budgets.pgd_search(), None, wrong="zero").init(told(4))
    state = TrainState(jnp.int32(7), {"w": jnp.ones(2)}, {}, (), (), budget, (), jax.random.key(0))
    fields = {name: value for name, value in budget._asdict().items() if name != "wrong"}
    fields["cutoff"] = jnp.float32(0.25)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, state._replace(budget=namedtuple("then", fields)(**fields)))
        found = restored(checkpoints, state._replace(step=jnp.int32(0)), 7)
        assert found.budget == budget._replace(cutoff=jnp.float32(0.25)) and int(found.step) == 7
        checkpoints.save(8, state)
        assert restored(checkpoints, state, 8).budget == budget
