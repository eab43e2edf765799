"""A run folder that d991d9c wrote, stopped half-way and evaluated, is read: evaluated, reported, exported, gone on with.

It was made by that commit's code: ``bap train --data digits --model mlp --limit 160 --batch-size 32 --steps 40 --attack-steps 3
--scale 1.1 --epsilon-max 0.5 --optimizer sgd --learning-rate 0.1 --final-sparsity 0.97 --ramp-end 0.2 --seed 3``, interrupted.
"""

import json
import zipfile
from pathlib import Path

import pytest

from bap_jax.cli.main import read
from bap_jax.cli.slots import settings_told
from bap_jax.report import read_csv
from bap_jax.runs.loop import train
from bap_jax.runs.migrations import migrated
from bap_jax.runs.naming import arm_of
from bap_jax.runs.records import evaluations_of
from bap_jax.runs.restore import settings_of
from bap_jax.runs.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore:.*saved by an earlier version, without digests")
ARM = "blind, attack steps 3, path ray, halving linear, wrong zero, scale 1.1, epsilon max 0.5, optimizer sgd, learning rate 0.1"


@pytest.fixture
def earlier(tmp_path):
    with zipfile.ZipFile(Path(__file__).parent / "run_d991d9c.zip") as archive:
        archive.extractall(tmp_path / "run")
    return tmp_path / "run"


def test_its_settings_are_read_with_the_meaning_that_they_had(earlier):
    stored = json.loads((earlier / "config.json").read_text())
    assert "schema" not in stored and stored["scale"] == 1.1
    settings = settings_of(earlier)
    assert settings.budget_options.scale == 1.1 and settings.budget_options.epsilon_max == 0.5
    assert settings.budget_options.path == "ray" and arm_of(settings) == ARM
    assert Settings(**migrated(stored)).check() == settings and migrated(settings.as_dict()) == settings.as_dict()
    (record,) = evaluations_of(earlier)
    told = {"method": "bap", "pruner": "magnitude", "budget": "cutoff-scale", "loss": "mix"}
    told |= {"train_attack": "pgd", "train_norm": "linf", "train_epsilon": None, "arm": ARM}
    assert all(told.items() <= row.items() for row in record["rows"])


def test_it_is_evaluated_reported_and_exported(bap, earlier, tmp_path):
    code, _, error = bap("evaluate", earlier, "--attack", "fgsm", "--epsilon", "0,0.1", "--limit", 40, "--no-controls")
    assert code == 0, error
    code, _, error = bap("report", earlier, "--out", tmp_path / "report", "--samples", 0)
    assert code == 0, error
    rows = read_csv(tmp_path / "report" / "results.csv")
    assert {row["attack"] for row in rows} >= {"fgsm", "pgd-3"} and {row["train_norm"] for row in rows} == {"linf"}
    code, output, error = bap("export", earlier, "--out", tmp_path / "model.safetensors")
    assert code == 0 and "0.97" in output, error


def test_it_goes_on_to_its_end(earlier):
    settings = settings_of(earlier)
    trained = train(settings, earlier, resume=True)
    assert (trained.resumed_from, trained.steps) == (20, 40) and trained.sparsity == pytest.approx(0.97, abs=1e-3)


def test_its_configuration_begins_another_run_and_old_flags_change_it(earlier, capsys):
    command = read(["train", "--config", str(earlier / "config.json"), "--out", "x", "--scale", "1.3", "--epsilon-max=8/255"])
    told = Settings(**settings_told(command))
    assert told == settings_of(earlier).changed(**{"budget.scale": 1.3, "budget.epsilon_max": 8 / 255})
    assert "--scale is --budget.scale, --epsilon-max is --budget.epsilon-max now" in capsys.readouterr().err
