"""Radii in the wrong unit, 8 for 8/255: refused wherever a person gives one, with the fraction that was meant."""

import json

import pytest

from bap_jax.data import digits
from bap_jax.errors import SettingError
from bap_jax.runs.evaluate import evaluate_run
from bap_jax.runs.loop import prepare, train
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.settings import Settings
from bap_jax.runs.training_options import validation_radii
from bap_jax.sweeps.execute import run_sweep
from bap_jax.sweeps.grid import Sweep
from bap_jax.types import Bounds

OWN = "plugins_for_tests:blobs"

TOO_WIDE = {
    "epsilon": (
        ["--budget", "uniform", "--epsilon", 8],
        "--budget.epsilon = 8: expected at most 1, the linf size of the box [0, 1]; 8/255?",
    ),
    "epsilon_of_fat": (["--budget", "fat", "--epsilon", "1.1"], "--budget.epsilon = 1.1: expected at most 1"),
    "epsilon_rms": (["--budget", "uniform", "--norm", "rms", "--epsilon", 16], "the rms size of the box [0, 1]; 16/255?"),
    "epsilon_l2": (
        ["--budget", "uniform", "--norm", "l2", "--epsilon", 128],
        "--budget.epsilon = 128: expected at most 8, the l2 size",
    ),
    "epsilon_l1": (
        ["--budget", "uniform", "--norm", "l1", "--epsilon", 65],
        "--budget.epsilon = 65: expected at most 64, the l1 size",
    ),
    "epsilon_max": (
        ["--epsilon-max", 255],
        "--budget.epsilon-max = 255: expected at most 1, the linf size of the box [0, 1]; 255/255?",
    ),
    "epsilon_min": (["--budget", "mma", "--epsilon-min", 2], "--budget.epsilon-min = 2: expected at most 1"),
    "epsilon_step": (["--budget", "cat", "--epsilon-step", 2], "--budget.epsilon-step = 2: expected at most 1"),
    "cutoff": (["--cutoff", "constant:8"], "--budget.cutoff constant = 8: expected at most 1"),
    "validation_epsilon": (["--validation-epsilon", "0,4,8"], "--validation-epsilon = 8: expected at most 1"),
    "validation_epsilon_alone": (["--data", OWN, "--validation-epsilon", 8], "--validation-epsilon = 8: expected at most 1"),
}


@pytest.mark.parametrize("name", TOO_WIDE)
def test_training_refuses_a_radius_wider_than_the_box(name, refused, tmp_path):
    arguments, expected = TOO_WIDE[name]
    assert expected in refused("train", "--out", tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


def test_what_needs_no_data_is_refused_before_any_is_read():
    for given in (
        {"validation_epsilon": "8"},
        {"epsilon_max": 8.0},
        {"budget": "uniform", "epsilon": "8"},
        {"cutoff": "constant:8"},
    ):
        with pytest.raises(SettingError, match=r"8/255\?"):
            Settings(**given).check()
        Settings(**given, data=OWN).check()  # such a box is known with its data only


def test_the_whole_box_stays_allowed():
    Settings(budget="uniform", epsilon="1", validation_epsilon="0,1").check()
    splits = digits()
    prepare(Settings(budget="uniform", norm="l2", epsilon="8", validation_epsilon="8"), splits, 1)
    with pytest.raises(SettingError, match=r"--validation-epsilon = 8\.1"):
        prepare(Settings(budget="uniform", norm="l2", epsilon="8", validation_epsilon="8.1"), splits, 1)


def test_a_wider_box_has_room_for_more():
    wide = Bounds(-1.0, 1.0)
    Settings(data=OWN, budget="uniform", epsilon="1.5").check_radii(wide)
    with pytest.raises(
        SettingError, match=r"--budget.epsilon = 8: expected at most 2, the linf size of the box \[-1, 1\]; 8/255\?"
    ):
        Settings(data=OWN, budget="uniform", epsilon="8").check_radii(wide)
    AttackPlan(epsilon="1.5").check_radii(wide)
    Settings(budget=f"{OWN[:-5]}own_budget", epsilon="8").check_radii(Bounds())  # its own budget, its own units


PLANS = [
    (AttackPlan(epsilon="0,8"), "--epsilon = 8: expected at most 1, the linf size .*8/255"),
    (AttackPlan(attack="fmn", norm="linf,l2", epsilon="2"), "--epsilon = 2: expected at most 1, the linf size"),
    (AttackPlan(norm="linf,l2", epsilon="linf=0.1;l2=128"), "--epsilon = 128: expected at most 8, the l2 size .*128/255"),
    (AttackPlan(attack="sigma-zero", norm="l0", epsilon="65"), "--epsilon = 65: expected at most 64, the l0 size"),
    (AttackPlan(attack="fgsm-truncated", epsilon="100"), "--epsilon = 100: expected at most 1"),
]


@pytest.mark.parametrize("plan, message", PLANS)
def test_a_plan_with_a_radius_wider_than_the_box_is_refused(plan, message, tmp_path):
    data = digits().test
    with pytest.raises(SettingError, match=message):
        plan.check_radii(data.bounds, data.image_shape)


def test_evaluating_refuses_it_before_the_network_is_restored(tmp_path, refused):
    (tmp_path / "config.json").write_text(json.dumps(Settings().as_dict()))
    assert "--epsilon = 8: expected at most 1" in refused("evaluate", tmp_path, "--epsilon", 8)
    with pytest.raises(SettingError, match="--checkpoint"):
        evaluate_run(tmp_path, AttackPlan(epsilon="1"))


def test_a_sweep_refuses_it_before_the_first_cell(tmp_path):
    radii = Sweep(base=Settings(budget="uniform"), epsilons=("0.1", 8))
    plans = Sweep(plans=[AttackPlan(), AttackPlan(epsilon="16")])
    for sweep, message in ((radii, r"--budget.epsilon = 8: .*8/255\?"), (plans, r"--epsilon = 16: .*16/255\?")):
        with pytest.raises(SettingError, match=message):
            sweep.cells()
    far = Sweep(base=Settings(steps=2), plans=[AttackPlan(norm="l2", epsilon="9")])
    with pytest.raises(SettingError, match="--epsilon = 9: expected at most 8, the l2 size"):
        run_sweep(far, tmp_path / "sweep")
    assert not list((tmp_path / "sweep").rglob("config.json"))


def test_radii_of_validation_follow_data_and_norm_and_a_run_keeps_those_it_was_told(tmp_path):
    splits = digits()
    assert prepare(Settings(), splits, 1).options.validation_epsilons == (0.0, 0.1, 0.2, 0.3)
    assert prepare(Settings(norm="l2", budget="none"), splits, 1).options.validation_epsilons == (0.0, 0.2, 0.4, 0.6)
    assert prepare(Settings(validation_epsilon="0,1/4"), splits, 1).options.validation_epsilons == (0.0, 0.25)
    wide = validation_radii("linf", (32, 32, 3), width=2.0)
    assert wide == pytest.approx([0, 4 / 255, 8 / 255, 16 / 255], rel=2e-3)
    quick = {"steps": 2, "batch_size": 16, "budget": "none", "ramp_end": 0.5, "validation_limit": 10, "validation_steps": 1}
    told = train(Settings(**quick, validation_epsilon="0,0.25"), tmp_path / "run", splits=splits)
    again = train(Settings(**quick), tmp_path / "run", splits=splits, resume=True)
    assert told.validation.epsilons == again.validation.epsilons == (0.0, 0.25)
    with pytest.raises(SettingError, match="validation_epsilon"):
        train(Settings(**quick, validation_epsilon="0,0.1"), tmp_path / "run", splits=splits, resume=True)
