"""The neighbours of the blind budget and the losses, as the command line offers them: settings, names, going on after a crash."""

import dataclasses

import pytest
from told import told

from bap_jax.errors import SettingError
from bap_jax.runs.loop import train
from bap_jax.runs.naming import arm_of
from bap_jax.runs.recipe import recipe_of
from bap_jax.runs.settings import Settings

PAPER = Settings(norm="rms", search="deepfool", example="rescaled", scale=0.9)
ARMS = {
    "uniform 0.1, attack fgsm": Settings(budget="uniform", epsilon="0.1", attack="fgsm"),
    "uniform 0.1, attack rs-fgsm, step size 1.0": Settings(budget="uniform", epsilon="0.1", attack="rs-fgsm", step_size=1.0),
    "blind, attack n-fgsm, attack noise 3.0": Settings(attack="n-fgsm", **{"attack.noise": 3.0}),
    "IAAT, attack n-fgsm": Settings(budget="iaat", attack="n-fgsm"),
    "uniform 0.3": Settings(budget="uniform", epsilon="0.3"),
    "unrestricted by DeepFool, norm rms": dataclasses.replace(PAPER, cutoff="off", scale=1.0),
    "blind by DeepFool, norm rms, scale 0.9": PAPER,
    "blind by DeepFool, cut only, norm rms": dataclasses.replace(PAPER, scale=1.0),
    "blind by DeepFool, scale only, norm rms, scale 0.9": dataclasses.replace(PAPER, cutoff="off"),
    "blind": Settings(),
    "blind, cut only": Settings(scale=1.0),
    "blind, scale only": Settings(cutoff="off"),
    "unrestricted": Settings(cutoff="off", scale=1.0),
    "MMA": Settings(budget="mma"),
    "MMA, epsilon min 0.1, epsilon max 0.45": Settings(budget="mma", epsilon_min=0.1, epsilon_max=0.45),
    "IAAT": Settings(budget="iaat"),
    "IAAT, epsilon step 0.02, epsilon rate 0.5": Settings(budget="iaat", epsilon_step=0.02, epsilon_rate=0.5),
    "CAT": Settings(budget="cat"),
    "CAT, label factor 2.0": Settings(budget="cat", label_factor=2.0),
    "FAT": Settings(budget="fat"),
    "FAT, epsilon 0.3, tau rises ": Settings(budget="fat", epsilon="0.3", tau_rises=""),
    "FAT, loss trades, beta 3.0": Settings(budget="fat", loss="trades", beta=3.0),
    "uniform 0.3, loss madry": Settings(budget="uniform", epsilon="0.3", loss="madry"),
    "uniform 0.3, loss trades": Settings(budget="uniform", epsilon="0.3", loss="trades"),
    "uniform 0.3, objective cross-entropy, loss trades": Settings(
        budget="uniform", epsilon="0.3", loss="trades", objective="cross-entropy"
    ),
    "blind, loss mart": Settings(loss="mart"),
}


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_has_a_name_that_says_what_it_is_and_a_step_that_can_be_built(name):
    settings = ARMS[name].check()
    assert arm_of(settings) == name
    for built in (settings, settings.traced()):  # compiled steps are built from the traced settings
        recipe_of(built, told(num_steps=2))


@pytest.mark.parametrize("budget", ["mma", "iaat", "cat", "fat"])
def test_runs_that_differ_in_what_the_state_carries_share_a_step(budget):
    first = {"epsilon": 1.0, "epsilon_min": 0.5, "epsilon_step": 0.1, "epsilon_max": 1.0, "label_factor": 1.0}
    then = {"epsilon": 2.0, "epsilon_min": 0.1, "epsilon_step": 0.2, "epsilon_max": 2.0, "label_factor": 0.5, "epsilon_rate": 0.3}
    then["epsilon_warmup"] = 0.5
    has = Settings(budget=budget).budget_options.values()
    one, other = (
        Settings(budget=budget, norm="l2", **{name: value for name, value in values.items() if name in has}).check()
        for values in (first, then)
    )
    assert one != other
    assert one.traced() == other.traced()
    recipe_of(one.traced(), told(num_steps=2))


def test_fractions_of_training_become_steps_by_what_a_budget_is_told():
    info = told(100, num_steps=120)
    several = (Settings(budget="iaat", epsilon_warmup=0.25), Settings(budget="fat", tau_rises="1/4,0.5"))
    made = {settings.budget: recipe_of(settings, info).budget for settings in several}
    assert int(made["iaat"].init(info).warmup_steps) == 30
    assert made["fat"].init(info).tau_steps.tolist() == [30, 60]
    for budget in made.values():
        with pytest.raises(SettingError, match=r"num_steps = 0.*info="):
            budget.init(told(100))


REFUSED = {
    "radius_of_mma": ({"budget": "mma", "epsilon": "0.3"}, "budget.epsilon = '0.3': expected nothing with --budget mma"),
    "two_radii": ({"budget": "fat", "epsilon": "0.1,0.2"}, "budget.epsilon = '0.1,0.2': expected a number"),
    "mma_in_l2": (
        {"budget": "mma", "norm": "l2", "epsilon_max": 1.0},
        "--budget.epsilon-min = None: expected a radius",
    ),
    "iaat_in_l2": ({"budget": "iaat", "norm": "l2", "epsilon": "1"}, "--budget.epsilon-step = None"),
    "cat_in_rms": ({"budget": "cat", "norm": "rms", "epsilon_step": 0.1}, "--budget.epsilon-max = None"),
    "fat_in_l2": ({"budget": "fat", "norm": "l2"}, "--budget.epsilon = None"),
    "fat_in_l1": ({"budget": "fat", "norm": "l1", "epsilon": "2"}, "--norm = 'l1': expected linf, l2 or rms with --budget fat"),
    "fat_by_fgsm": ({"budget": "fat", "attack": "fgsm"}, "--attack = 'fgsm': expected pgd with --budget fat"),
    "trades_by_fgsm": ({"loss": "trades", "attack": "fgsm"}, "--attack = 'fgsm': expected pgd with the objective kl"),
    "trades_of_nothing": (
        {"loss": "trades", "budget": "none"},
        "--loss = 'trades': expected mix or clean or distill",
    ),
    "epsilon_min_zero": ({"budget": "mma", "epsilon_min": 0.0}, "--budget.epsilon-min = 0.0"),
    "epsilon_step_zero": ({"budget": "iaat", "epsilon_step": 0.0}, "--budget.epsilon-step = 0.0"),
    "rate_zero": ({"budget": "iaat", "epsilon_rate": 0.0}, "--budget.epsilon-rate = 0.0"),
    "warmup_above_one": ({"budget": "iaat", "epsilon_warmup": 1.5}, r"--budget.epsilon-warmup = 1.5"),
    "negative_label_factor": ({"budget": "cat", "label_factor": -1.0}, "--budget.label-factor = -1.0"),
    "negative_beta": ({"loss": "mart", "beta": -1.0}, "--loss.beta = -1.0"),
    "tau_falls": ({"budget": "fat", "tau_rises": "0.5,0.2"}, "--budget.tau-rises = '0.5,0.2'"),
    "tau_beyond_training": (
        {"budget": "fat", "tau_rises": "50,90"},
        "--budget.tau-rises = '50,90': expected fractions of training",
    ),
    "tau_no_number": ({"budget": "fat", "tau_rises": "soon"}, "--budget.tau-rises = 'soon'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    given, message = REFUSED[name]
    with pytest.raises(SettingError) as refused:
        Settings(**given).check()
    assert message in str(refused.value)


def test_a_label_that_would_be_negative_is_refused_before_the_run_folder_is_made(refused, tmp_path):
    given = ("--data", "plugins_for_tests:blobs", "--model", "plugins_for_tests:small", "--batch-size", 8, "--steps", 2)
    message = refused("train", "--out", tmp_path / "run", *given, "--budget", "cat", "--epsilon-max", 0.3)
    assert "label_factor = 10.0" in message and "1 / epsilon_max = 3.33333" in message
    assert not (tmp_path / "run").exists()


class Stop(Exception):
    """Ends a run from its progress callback, as a crash would."""


@pytest.mark.parametrize(("budget", "loss"), [("mma", "auto"), ("iaat", "trades")])
def test_a_run_with_a_table_that_crashed_ends_as_the_uninterrupted_one(budget, loss, left, tmp_path):
    settings = Settings(
        data="plugins_for_tests:blobs",
        model="plugins_for_tests:small",
        budget=budget,
        loss=loss,
        attack_steps=2,
        batch_size=8,
        steps=18,
        log_every=1,
        validations=1,
        learning_rate=0.02,
        pruner="dense",
        **({"num_bisections": 2} if budget == "mma" else {"epsilon_warmup": 0.4}),
    )

    def crash(done, total, metrics):
        if done == 11:
            raise Stop

    train(settings, tmp_path / "whole")
    with pytest.raises(Stop):
        train(settings, tmp_path / "run", save_seconds=0.0, progress=crash)
    resumed = train(settings, tmp_path / "run", save_seconds=0.0, resume=True)
    assert resumed.resumed_from
    whole = left(tmp_path / "whole")
    assert max(line.get("epsilon_mean", 0.0) for line in whole.metrics) > 0 and whole.state["budget/epsilons"].shape == (24,)
    left(tmp_path / "run").same_as(whole)
