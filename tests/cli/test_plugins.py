"""Every slot of a run takes ``package.module:factory``."""

import pytest

from bap_jax.cli import grid
from bap_jax.cli.naming import arm_of
from bap_jax.cli.plan import AttackPlan
from bap_jax.cli.settings import Settings
from bap_jax.errors import SettingError

OWN = "plugins_for_tests"
BASE = ("--data", f"{OWN}:blobs", "--model", f"{OWN}:small", "--batch-size", 8, "--steps", 6, "--log-every", 1)


def test_the_users_own_attack_budget_pruner_and_loss(bap, left, plugins, tmp_path):
    plugins.seen.clear()
    own = [f"--{slot}={OWN}:own_{slot}" for slot in ("budget", "pruner", "loss")]
    code, output, error = bap("train", *BASE, *own, "--epsilon", "0.25", "--final-sparsity", 0.5, "--out", tmp_path / "run")
    assert code == 0, error
    found = left(tmp_path / "run")
    assert set(plugins.seen) == {0.5}  # the compiled step was built with the run's settings, too
    logged = [line for line in found.metrics if "loss" in line]
    assert logged[-1]["epsilon_mean"] == pytest.approx(0.25) and logged[-1]["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert "clean_loss" not in logged[-1]  # own_loss trains on adversarial examples alone
    code, output, error = bap("evaluate", tmp_path / "run", "--attack", f"fgsm,{OWN}:own_threat", "--epsilon", "0,0.1")
    assert code == 0, error
    assert "fgsm linf" in output and "away linf" in output


def test_the_users_own_attack_in_blind_training(bap, left, tmp_path):
    code, _, error = bap("train", *BASE, "--attack", f"{OWN}:own_attack", "--out", tmp_path / "run")
    assert code == 0, error
    assert left(tmp_path / "run").finished


def cells(**changes):
    base = Settings(**{"data": f"{OWN}:blobs", "model": f"{OWN}:small", "batch_size": 8, "steps": 6, "attack": "fgsm"} | changes)
    arms = [{"budget": "none"}, {"budget": "uniform", "epsilon": "0.1"}]
    return grid.expand(base, arms, sparsities=[0.5, 0.8], ramp_ends=[0.5], seeds=[0])


def test_a_grid_leaves_out_what_is_done_and_refuses_what_differs(tmp_path, monkeypatch):
    plans = [AttackPlan(attack="fgsm", epsilon="0,0.1")]
    records = grid.run_grid(cells(), plans, tmp_path)
    assert [record["rows"][0]["arm"] for record in records] == [arm_of(cell) for cell in cells()]
    measured = [record["rows"][0]["sparsity_measured"] for record in records]
    assert measured == pytest.approx([0.5, 0.8, 0.5, 0.8], abs=0.01)  # though the cells share a compiled step
    with monkeypatch.context() as patch:
        for name in ("train", "evaluate_run"):
            patch.setattr(grid, name, lambda *_, **__: pytest.fail("computed again"))
        assert grid.run_grid(cells(), plans, tmp_path) == records
    with pytest.raises(SettingError, match=r"batch_size = 4: expected"):
        grid.run_grid(cells(batch_size=4), plans, tmp_path)
