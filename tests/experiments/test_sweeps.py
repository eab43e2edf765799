"""Every experiment is a sweep whose cells make sense, and evaluates what its tables need."""

import importlib
import itertools
from pathlib import Path

import numpy as np
import pytest

import experiments
from bap_jax.runs.naming import arm_of, short_names
from bap_jax.sweeps.grid import Sweep, cell_name

FILES = sorted(path.stem for path in Path(experiments.__file__).parent.glob("*_*.py") if not path.stem.startswith("__"))


@pytest.mark.parametrize("name", FILES)
def test_an_experiment_is_a_sweep_and_its_docstring_says_how_to_run_it(name):
    module = importlib.import_module(f"experiments.{name}")
    assert isinstance(module.SWEEP, Sweep)
    cells = module.SWEEP.cells()  # refuses settings that make no sense
    assert len({cell_name(cell) for cell in cells}) == len(cells)
    assert f"python -m experiments.{name}" in module.__doc__ and f"experiments/{name}.py" in module.__doc__


@pytest.mark.parametrize("name", ["digits_aer", "mnist_lenet5", "blind_digits", "blind_mnist", "blind_cifar10"])
def test_the_best_uniform_budget_can_be_chosen_on_validation_data(name):
    sweep = importlib.import_module(f"experiments.{name}").SWEEP
    plans = [plan for cell in sweep.cells() for plan in sweep.plans_of(cell)]
    assert {"validation", "test"} == {plan.split for plan in plans}
    assert len({(plan.attack, plan.norm, plan.epsilon, plan.steps) for plan in plans}) == 1


def test_the_field_s_methods_on_digits_make_equal_passes():
    """No arm makes more than its share, none leaves an epoch unused, and all of the survey's methods are there."""
    digits = importlib.import_module("experiments.methods_digits")
    for arm in digits.ARMS:
        total = digits.TOTAL / (digits.SMALLER if arm.get("model") == "resnet8" else 1)
        settings = digits.BASE.changed(**arm)
        assert digits.spent(settings) <= total < digits.spent(settings.changed(epochs=settings.epochs + 1))
    started = digits.BASE.changed(init_from="starts/robust", method="mad", epochs=10, **digits.TOLD)
    by_hand = (
        26 * (7 * 3 + 2 * 3) + (7 * 3 + 20 * 3 + 3) + 10 * (7 * 3 + 2 * 3)
    )  # PGD-7 and both images; the saliency; PGD-7 and MART
    assert digits.spent(started) == by_hand
    field = {"ap", "bap", "hydra", "pwoa", "harp", "flying_bird", "flying_bird_plus", "radmm", "mad", "twin_rep", "li20"}
    assert {arm["method"] for arm in digits.ARMS} == field | {"robust_bird", "s2ap", "rst", "sensitive_filters"}


@pytest.mark.parametrize("name", ["methods_digits", "methods_mnist", "methods_cifar10"])
def test_of_an_experiment_in_parts_each_holds_those_before_it(name):
    module = importlib.import_module(f"experiments.{name}")
    for one, other in itertools.pairwise(module.PARTS):
        assert one.arms is other.arms and set(one.sparsities) <= set(other.sparsities) and set(one.seeds) <= set(other.seeds)
    assert module.PARTS[-1] is module.SWEEP
    starts = {module.SWEEP.start_of(cell) for cell in module.PARTS[0].cells()} - {None}
    assert {Path(folder).name for folder, _ in starts} == set(module.STARTS)
    assert all(settings.pruner == "dense" for _, settings in starts)


def test_the_best_of_a_method_s_trials_is_found():
    digits = importlib.import_module("experiments.methods_digits")
    names = {name: [arm_of(digits.BASE.changed(**arm)) for arm in arms] for name, arms in digits.TRIED.items()}
    short = short_names(itertools.chain(*names.values()))
    rows = [
        {"arm": short[arm], "epsilon": epsilon, "accuracy": (0.5, 0.7, 0.6)[number] - epsilon}
        for epsilon in (0.0, 0.2)
        for number, arm in enumerate(names["harp"])
    ]
    scores, chosen = digits.scores(rows), digits.chosen(rows)
    assert scores["harp"] == pytest.approx([0.4, 0.6, 0.5]) and np.isnan(scores["hydra"]).all()
    assert chosen["harp"] == 1 and chosen["hydra"] == 0


def test_the_blind_settings_are_the_same_on_every_data_set():
    blind = {}
    for name in ("digits_aer", "mnist_lenet5", "mnist_lenet5_full", "cifar10_resnet8", "cifar10_full"):
        sweep = importlib.import_module(f"experiments.{name}").SWEEP
        for cell in sweep.cells():
            if cell.budget == "cutoff-scale" and cell.search == "pgd":
                way = (cell.path, cell.halving, cell.wrong, cell.cutoff_over, cell.search_steps)
                blind[name] = (cell.norm, cell.example, cell.cutoff, cell.scale, cell.epsilon_max, *way)
    assert len(blind) == 5 and len(set(blind.values())) == 1
