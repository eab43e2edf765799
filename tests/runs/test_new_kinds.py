"""What a new budget, attack, pruner, optimiser or loss needs: options, what makes it of them, and one row."""

import pytest
import toy_kinds

from bap_jax.cli.main import main
from bap_jax.errors import SettingError
from bap_jax.runs import Settings
from bap_jax.runs.naming import arm_of, process_of
from bap_jax.runs.slots import SLOTS, Row

OWN = "plugins_for_tests"


@pytest.fixture(params=toy_kinds.OPTIONS)
def slot(request):
    return request.param


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    for name, options in toy_kinds.OPTIONS.items():
        leaves = {"strength": 1.0} if name == "budget" else {}
        monkeypatch.setitem(SLOTS[name], "toy", Row(f"toy_kinds:{name}", options, "toy", leaves))  # type: ignore[index]


def test_a_row_is_all_that_settings_and_names_need(slot):
    settings = Settings(**{slot: "toy", f"{slot}.strength": 2}).check()
    assert settings.as_dict()[f"{slot}.strength"] == 2.0
    assert "toy" in (process_of(settings) if slot == "pruner" else arm_of(settings))
    other = Settings(**{slot: "toy", f"{slot}.strength": 3})
    assert (settings.traced() == other.traced()) == (slot == "budget")  # a leaf, so that such runs share one compile
    for name, value in (("strength", -1.0), ("strength", "much"), ("weakness", 1.0)):
        with pytest.raises(SettingError, match=rf"{slot}\.{name} = "):
            Settings(**{slot: "toy", f"{slot}.{name}": value}).check()


def test_the_command_line_shows_its_options(bap, slot):
    code, shown, _ = bap("train", f"--{slot}", "toy", "--help")
    assert code == 0 and f"--{slot}.strength" in shown and "How much of it." in shown


def test_toys_in_all_slots_train_a_toy_network_on_toy_data(bap, left, tmp_path):
    strengths = {slot: number / 8 for number, slot in enumerate(toy_kinds.OPTIONS, 1)}
    toys = [word for slot, strength in strengths.items() for word in (f"--{slot}=toy", f"--{slot}.strength={strength}")]
    base = ("--data", f"{OWN}:blobs", "--model", f"{OWN}:small", "--batch-size", 8, "--steps", 2, "--log-every", 1)
    code, _, error = bap("train", *base, *toys, "--validations", 1, "--validation-steps", 1, "--out", tmp_path / "run")
    assert code == 0, error
    found = left(tmp_path / "run")
    assert found.finished and all(strength in toy_kinds.called[slot] for slot, strength in strengths.items())
    (logged,) = [line for line in found.metrics if line["step"] == 2 and "loss" in line]
    assert logged["epsilon_mean"] == strengths["budget"] and logged["sparsity"] == pytest.approx(strengths["pruner"], abs=0.01)


def test_a_slot_that_breaks_its_contract_is_told_when_the_step_is_traced(tmp_path):
    base = ("--data", f"{OWN}:blobs", "--model", f"{OWN}:small", "--batch-size", 8, "--steps", 2)
    with pytest.raises(AssertionError, match="equal_shape"):
        main([str(word) for word in ("train", *base, "--budget", "toy_kinds:broken_budget", "--out", tmp_path / "run")])
