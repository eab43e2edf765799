"""Every experiment is a sweep whose cells make sense, and evaluates what its tables need."""

import importlib
from pathlib import Path

import pytest

import experiments
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


def test_the_blind_settings_are_the_same_on_every_data_set():
    blind = {}
    for name in ("digits_aer", "mnist_lenet5", "mnist_lenet5_full", "cifar10_resnet8", "cifar10_full"):
        sweep = importlib.import_module(f"experiments.{name}").SWEEP
        for cell in sweep.cells():
            if cell.budget == "cutoff-scale" and cell.search == "pgd":
                way = (cell.path, cell.halving, cell.wrong, cell.cutoff_over, cell.search_steps)
                blind[name] = (cell.norm, cell.example, cell.cutoff, cell.scale, cell.epsilon_max, *way)
    assert len(blind) == 5 and len(set(blind.values())) == 1
