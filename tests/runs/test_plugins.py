"""Every slot of a run takes ``package.module:factory``."""

import pytest

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
