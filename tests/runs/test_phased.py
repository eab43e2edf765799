"""Phases of a method: settings that replace theirs, what is kept of that, and what is refused."""

import numpy as np
import pytest

from bap_jax.cli.slots import PHASES, first_look
from bap_jax.errors import SettingError
from bap_jax.methods import METHODS, method_of
from bap_jax.pruners import admm_learning_rate
from bap_jax.runs.naming import arm_of, columns_of, process_of
from bap_jax.runs.optimizer import rate_shape, shape_at
from bap_jax.runs.run import phases_of
from bap_jax.runs.settings import Settings
from bap_jax.sweeps.grid import Sweep


def own(settings, phase):
    return dict((one.name, found) for one, found in settings.in_phases())[phase]


def test_a_slot_of_the_run_is_replaced_in_every_phase_that_does_not_fill_it():
    hydra = Settings(method="hydra", budget="cutoff-scale", loss="auto", **{"budget.scale": 1.1})
    assert [found.budget_options.scale for _, found in hydra.in_phases()] == [1.1] * 3
    assert {found.loss_name for _, found in hydra.in_phases()} == {"mix"}  # what auto means with it
    pwoa = Settings(method="pwoa", budget="cutoff-scale")
    assert [found.budget for _, found in pwoa.in_phases()] == ["cutoff-scale", "none", "none"]


def test_a_slot_of_one_phase_is_replaced_there_alone():
    settings = Settings(method="hydra", phases={"finetune": {"budget": "none", "loss": "auto", "optimizer.learning_rate": 0.5}})
    finetune, prune = own(settings, "finetune"), own(settings, "prune")
    assert (finetune.loss_name, finetune.optimizer, finetune.optimizer_options.learning_rate) == ("clean", "sgd", 0.5)
    assert (prune.loss_name, prune.optimizer_options.learning_rate) == ("madry", 0.1)
    adam = own(Settings(method="hydra", phases={"finetune": {"optimizer": "adam"}}), "finetune")
    assert adam.optimizer_options.learning_rate == 0.1  # the published rate was that of sgd


def test_lengths_keep_their_proportions_except_where_they_are_told():
    settings = Settings(method="hydra", epochs=44, phases={"prune": {"epochs": 3}})
    assert [phase.length.epochs for phase in phases_of(settings)] == [20, 3, 20]
    assert [phase.length.steps for phase in phases_of(settings.changed(steps=440))] == [200, None, 200]
    assert [phase.length.epochs for phase in phases_of(Settings(method="hydra", init_from="runs/x"))] == [20, 100]


def test_what_a_config_holds_makes_the_same_settings_and_what_is_published_is_not_kept():
    told = {"finetune": {"budget": "cutoff-scale", "budget.scale": 1.2, "epochs": 100}, "prune": {"learning_rate": 0.1}}
    settings = Settings(method="hydra", phases=told)
    assert settings.phases == (("finetune", (("budget", "cutoff-scale"),)),)
    config = settings.as_dict()
    assert config["phases"]["finetune"]["budget.scale"] == 1.2
    assert Settings(**config) == settings
    assert Settings(method="bap", phases={}).as_dict() == Settings().as_dict() | {"method": "bap"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"method": "hydra", "phases": {"retrain": {"epochs": 1}}}, "--retrain.epochs = 1: expected a phase of --method hydra"),
        (
            {"method": "bap", "phases": {"prune": {"epochs": 1}}},
            "--prune.epochs = 1: expected a phase of --method bap: it has one",
        ),
        ({"method": "hydra", "phases": {"prune": {"seed": 1}}}, "prune.seed = 1: expected a slot, an option of one, or one of"),
        ({"method": "hydra", "phases": {"prune": {"epochs": 0}}}, "--prune.epochs = 0: expected a whole number of at least 1"),
        ({"method": "hydra", "steps": 2}, "--steps = 2: expected at least 3: one for each phase"),
        (
            {"method": "hydra", "phases": {"prune": {"budget.scale": 1.0}}},
            "budget.scale = 1.0: expected nothing with --budget uni",
        ),
        (
            {"method": "hydra", "init_from": "x", "phases": {"pretrain": {"epochs": 1}}},
            "--pretrain.epochs = 1: expected a phase of",
        ),
        ({"method": "ap"}, "--budget.epsilon = None: expected a radius"),
    ],
)
def test_what_makes_no_sense_is_refused(given, expected):
    with pytest.raises(SettingError) as error:
        Settings(**given).check()
    assert expected in str(error.value)


def test_the_command_line_says_what_single_phases_have():
    words = [
        "train",
        "--method",
        "hydra",
        "--prune.steps=7",
        "--finetune.budget",
        "uniform",
        "--finetune.budget.epsilon",
        "8/255",
    ]
    reading = first_look([*words, "--finetune.optimizer.nesterov", "--seed", "3"], None)
    assert reading.arguments == ("train", "--method", "hydra", "--seed", "3")
    expected = {"prune": {"steps": 7}, "finetune": {"budget": "uniform", "budget.epsilon": 8 / 255, "optimizer.nesterov": True}}
    assert reading.phases == expected
    assert own(reading.settings.changed(phases=reading.phases), "finetune").value("budget.epsilon") == 8 / 255
    for wrong, message in [
        (["--prune.steps", "many"], "--prune.steps = 'many': expected a whole number or null"),
        (["--prune.steps"], "--prune.steps = None: expected a value"),
        (["--prune.budget.scale", "1"], "--prune.budget.scale = '1': expected an option of uniform: epsilon"),
        (["--finetune.budget", "half"], "--budget = 'half': expected one of cutoff-scale"),
    ]:
        with pytest.raises(SettingError) as error:
            first_look(["train", "--method", "hydra", *wrong], None)
        assert message in str(error.value)


def test_a_phase_that_the_method_has_not_is_refused_by_name():
    for words, phases in (
        (["--method", "flying_bird"], "it has one, the run"),
        (["--method", "pwoa", "--init-from", "x"], "prune, finetune"),
    ):
        with pytest.raises(SettingError) as error:
            first_look(["train", *words, "--pretrain.epochs=3"], None)
        assert f"--pretrain.epochs = '3': expected a phase of the method ({words[1]}): {phases}" in str(error.value)


def test_the_names_of_phases_are_those_of_the_methods():
    assert {phase.name for name in METHODS for phase in method_of(name).phases} <= set(PHASES)


def test_arms_and_columns_of_methods():
    base = Settings(**{"budget.epsilon": 0.1}, budget="uniform")
    hydra = base.changed(method="hydra")
    assert (arm_of(hydra), process_of(hydra)) == ("hydra, epsilon 0.1", "hydra")
    assert columns_of(hydra)["method"] == "hydra" and columns_of(hydra)["train_epsilon"] == 0.1
    started = columns_of(Settings(method="pwoa", init_from="runs/x"))
    assert (started["budget"], started["train_attack"], started["train_epsilon"]) == ("none", "", None)
    arms = ({"method": "bap"}, {"method": "hydra", "phases": {"finetune": {"budget": "none", "loss": "auto"}}})
    cells = Sweep(arms=arms, sparsities=(0.5, 0.9)).cells()
    assert [cell.method for cell in cells] == ["bap", "bap", "hydra", "hydra"]
    assert {arm_of(cell) for cell in cells} == {"blind", "hydra, finetune budget none, finetune loss auto"}


def test_the_staircase_is_admms():
    shape = rate_shape(Settings(rate_schedule="staircase", rate_cycles=2), 12)
    found = [float(shape_at(shape, step)) for step in range(12)]
    np.testing.assert_allclose(found, [float(admm_learning_rate(step, frequency=2)) for step in range(12)], rtol=1e-6)
