"""`bap train --init-from`: a network that is trained already, of a run or of a file, is pruned further or trained on."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from torch_files import checkpoint, torch_save

from bap_jax.checkpoint import Checkpoints, restore_network
from bap_jax.errors import CheckpointError, SettingError
from bap_jax.export import read_tensors
from bap_jax.mathematics.masks import measured_sparsity
from bap_jax.runs.evaluate import evaluate_run
from bap_jax.runs.loop import train
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.settings import Settings
from bap_jax.runs.start import digest_of
from bap_jax.runs.trust import Trust
from bap_jax.runs.weights import export_run
from bap_jax.sweeps import execute
from bap_jax.sweeps.grid import Process, Sweep

OWN, TRUSTED = "plugins_for_tests", Trust(everything=True)
BASE = Settings(
    data=f"{OWN}:blobs", model=f"{OWN}:small", budget="uniform", epsilon="0.1", attack="fgsm", batch_size=8, steps=12,
    ramp_end=0.5, log_every=1, validations=3, validation_epsilon="0", keep=1,
)  # fmt: skip
ALL = {"hidden": 256, "out": 48}  # what small has: 16 × 16 and 16 × 3


def settings(**changes) -> Settings:
    return BASE.changed(**changes)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A dense run, one at 50 %, and the files exported from it. Not to be changed."""
    folder = tmp_path_factory.mktemp("sources")
    train(settings(pruner="dense", seed=3), folder / "dense")
    train(settings(final_sparsity=0.5, seed=4), folder / "half")
    export_run(folder / "half", out=folder / "half.safetensors", trust=TRUSTED)
    return folder


def network_of(run, step=None):
    with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore_network(step)


def same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for mine, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(mine).tobytes() == np.asarray(theirs).tobytes()


def sparsities(run) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["sparsity"] for line in lines if "sparsity" in line]


class Stop(Exception):
    pass


def killed(at: int):
    """Progress that ends the run without another save."""

    def progress(done, total, metrics):
        if done == at:
            raise Stop

    return progress


def test_a_dense_run_is_pruned_and_its_network_is_the_checkpoint_of_step_0(sources, bap, tmp_path):
    given = ["--data", BASE.data, "--model", BASE.model, "--budget", "none", "--steps", 12, "--batch-size", 8, "--keep", 1]
    code, _, error = bap("train", *given, "--init-from", sources / "dense", "--log-every", 1, "--out", tmp_path / "x")
    assert code == 0, error
    first, last, source = network_of(tmp_path / "x", 0), network_of(tmp_path / "x"), network_of(sources / "dense")
    same_bits(first.params, source.params)
    same_bits(first.masks, source.masks)
    assert {name: int(mask.sum()) for name, mask in last.masks.items()} == {"hidden": 26, "out": 5}
    config = json.loads((tmp_path / "x" / "config.json").read_text())
    assert (config["init_from"], config["init_masks"]) == (str(sources / "dense"), "keep")
    assert config["init_digest"] == digest_of(source)
    record = evaluate_run(tmp_path / "x", AttackPlan(attack="fgsm", epsilon="0", checkpoint="0", controls=False), trust=TRUSTED)
    assert record["step"] == 0 and record["rows"][0]["arm"] == "clean, init from dense, checkpoint 0"


def test_kept_masks_bound_every_later_mask_and_the_ramp_begins_at_what_they_measure(sources, tmp_path):
    train(settings(init_from=str(sources / "half"), final_sparsity=0.75), tmp_path / "x")
    first, last = network_of(tmp_path / "x", 0), network_of(tmp_path / "x")
    for name, size in ALL.items():
        assert int(first.masks[name].sum()) == size // 2 and int(last.masks[name].sum()) == size // 4
        assert bool(np.all(last.masks[name] <= first.masks[name]))
    found = sparsities(tmp_path / "x")
    assert found == sorted(found) and found[0] >= 0.5 and found[-1] == 0.75


@pytest.mark.parametrize(("which", "begins"), [("nonzero", 0.5), ("none", 0.0)])
def test_which_masks_are_kept(which, begins, sources, tmp_path):
    run = tmp_path / which
    train(settings(init_from=str(sources / "half"), init_masks=which, final_sparsity=0.5, ramp_begin=0.5, steps=4), run)
    same_bits(network_of(run, 0).params, network_of(sources / "half").params)
    assert float(measured_sparsity(network_of(run, 0).masks)) == begins == sparsities(run)[0]
    assert sparsities(run)[-1] == 0.5


def test_a_sparse_network_is_fine_tuned_with_its_masks(sources, tmp_path):
    train(settings(init_from=str(sources / "half"), pruner="dense"), tmp_path / "x")
    first, last = network_of(tmp_path / "x", 0), network_of(tmp_path / "x")
    same_bits(last.masks, network_of(sources / "half").masks)
    for name, mask in last.masks.items():
        assert not np.any(np.asarray(last.params[name])[~np.asarray(mask)]) and np.any(last.params[name] != first.params[name])


def test_a_file_begins_as_the_run_that_it_was_exported_from(sources, left, tmp_path):
    for name in ("half", "half.safetensors"):
        train(settings(init_from=str(sources / name), final_sparsity=0.75), tmp_path / name)
    one, other = (left(tmp_path / name) for name in ("half", "half.safetensors"))
    one.same_as(other)
    assert one.config["init_digest"] == other.config["init_digest"]


def test_a_file_of_pytorch_has_no_masks_but_its_zeros(sources, tmp_path):
    file = torch_save(checkpoint("state_dict", read_tensors(sources / "half.safetensors")[0]), tmp_path / "half.pth")
    begun = settings(init_from=str(file), init_masks="nonzero", final_sparsity=0.75, steps=4)
    train(begun, tmp_path / "x")
    same_bits(network_of(tmp_path / "x", 0), network_of(sources / "half"))
    two = torch_save({"model": {}, "a": {"w": np.ones(2, np.float32)}, "b": {"w": np.ones(2, np.float32)}}, tmp_path / "two.pth")
    with pytest.raises(SettingError, match=r"--init-from = .*two.pth': expected one dict of tensors .* bap import takes it"):
        train(dataclasses.replace(begun, init_from=str(two)), tmp_path / "y")


def test_several_devices_start_from_the_same_network(sources, tmp_path):
    train(settings(init_from=str(sources / "half"), final_sparsity=0.75, steps=2), tmp_path / "x", devices=2)
    same_bits(network_of(tmp_path / "x", 0), network_of(sources / "half"))


@pytest.mark.parametrize("after", [0, 1, 8])
def test_a_killed_run_goes_on_without_its_source_to_the_same_bits(after, sources, left, tmp_path, monkeypatch):
    """Killed before the first step is saved, in the ramp, after it."""
    source = shutil.copytree(sources / "half", tmp_path / "half")
    begun = settings(init_from=str(source), final_sparsity=0.75)
    train(begun, tmp_path / "through")
    with pytest.raises(Stop):
        train(begun, tmp_path / "killed", progress=killed(after or 1), save_seconds=1e9 if after == 0 else 0.0)
    shutil.rmtree(source)
    with Checkpoints(tmp_path / "killed" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps()[0] == 0
    trained = train(begun, tmp_path / "killed", resume=True)
    assert trained.resumed_from is not None and trained.resumed_from < 12
    left(tmp_path / "killed").same_as(left(tmp_path / "through"))


def test_a_run_killed_before_anything_was_saved_asks_for_the_same_network(sources, left, tmp_path):
    source = shutil.copytree(sources / "half", tmp_path / "half")
    begun = settings(init_from=str(source), final_sparsity=0.75)
    train(begun, tmp_path / "x")
    shutil.rmtree(tmp_path / "x" / "checkpoints")
    shutil.rmtree(source)
    with pytest.raises(SettingError, match="--init-from = "):
        train(begun, tmp_path / "x", resume=True)
    shutil.copytree(sources / "dense", source)
    with pytest.raises(SettingError, match=r"init_digest = .* with which the run in .* was started"):
        train(begun, tmp_path / "x", resume=True)
    with pytest.raises(SettingError, match=r"--init-digest = 'ab': expected [0-9a-f]{64}, that of what .* holds now"):
        train(settings(init_from=str(source), init_digest="ab"), tmp_path / "y")


def test_a_configuration_repeats_the_run_and_another_source_drops_its_digest(sources, bap, tmp_path):
    train(settings(init_from=str(sources / "half"), final_sparsity=0.75), tmp_path / "x")
    config = ["--config", tmp_path / "x" / "config.json", "--trust"]
    code, _, error = bap("train", *config, "--out", tmp_path / "y")
    assert code == 0, error
    same_bits(network_of(tmp_path / "y"), network_of(tmp_path / "x"))
    code, _, error = bap("train", *config, "--init-from", sources / "dense", "--out", tmp_path / "z")
    assert code == 0, error
    assert json.loads((tmp_path / "z" / "config.json").read_text())["init_digest"] == digest_of(network_of(sources / "dense"))


def test_what_cannot_be_started_from_is_refused_and_leaves_no_folder(sources, refused, tmp_path):
    given = ["train", "--data", BASE.data, "--model", BASE.model, "--budget", "none", "--steps", 2, "--batch-size", 8]
    given += ["--out", tmp_path / "x"]
    half = ["--init-from", sources / "half"]
    cases = {
        "--init-from = 'nowhere': expected a run folder, or a file": ["--init-from", "nowhere"],
        "--init-checkpoint = '7': expected one of [": [*half, "--init-checkpoint", 7],
        "--init-checkpoint = 'newest': expected last, best or a step": [*half, "--init-checkpoint", "newest"],
        "--init-masks = 'none': expected nothing without --init-from": ["--init-masks", "none"],
        "--final-sparsity = 0.2: expected at least 0.5, the sparsity of what": [*half, "--final-sparsity", 0.2],
        "the checkpoint of step 12 in": [*half, "--model", "mlp"],
        "does not fit at": [*half, "--model", "mlp"],
        f"--pruner = '{OWN}:no_masks': expected one that begins with given masks": [*half, "--pruner", f"{OWN}:no_masks"],
        "expected a file with weights: neither safetensors nor": ["--init-from", sources / "half" / "config.json"],
    }
    for said, more in cases.items():
        assert said in refused(*given, *more), said
        assert not (tmp_path / "x").exists()


def test_an_own_pruner_that_takes_no_masks_starts_from_the_weights_alone(sources, tmp_path):
    own = settings(pruner=f"{OWN}:no_masks", init_from=str(sources / "dense"), init_masks="none", steps=2)
    train(own, tmp_path / "x")
    same_bits(network_of(tmp_path / "x", 0).params, network_of(sources / "dense").params)


def test_values_that_are_not_finite_are_refused(sources, tmp_path):
    network, source = restore_network(sources / "half"), tmp_path / "nan"
    shutil.copytree(sources / "half", source)
    network.params["out"] = np.full((16, 3), np.nan, np.float32)
    shutil.rmtree(source / "checkpoints")
    with Checkpoints(source / "checkpoints") as checkpoints:
        checkpoints.save(1, {"step": np.int32(1)}, network=network)
    with pytest.raises(CheckpointError, match="nan holds values that are not finite, in out"):
        train(settings(init_from=str(source)), tmp_path / "x")


def test_a_sweep_starts_its_cells_from_a_network_together_and_alone(sources, tmp_path):
    """Seeds share a step; another network to start from is another group. Together they agree with alone to rounding."""
    arms = [{"init_from": str(sources / name), "final_sparsity": 0.75} for name in ("half", "dense")]
    plan = AttackPlan(attack="fgsm", epsilon="0", controls=False)
    some = Sweep(base=BASE, arms=arms, processes=(Process(0.0, 0.5, 2),), seeds=(0, 1), plans=(plan,))
    absent = dataclasses.replace(some, arms=({"init_from": "nowhere"},))
    with pytest.raises(SettingError, match="--init-from = 'nowhere'"):
        execute.run_sweep(absent, tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    found = {}
    for together in ("vmap", "loop"):
        swept = execute.run_sweep(some, tmp_path / together, together=together)
        assert not swept.failed and len(swept.records) == 4
        found[together] = sorted((tmp_path / together).glob("cells/**/config.json"))
    groups = json.loads((tmp_path / "vmap" / "sweep.json").read_text())["groups"]
    assert [len(group["cells"]) for group in groups] == [2, 2] and {group["lanes"] for group in groups} == {2}
    for mine, theirs in zip(found["vmap"], found["loop"], strict=True):
        one, other = network_of(mine.parent), network_of(theirs.parent)
        same_bits(network_of(mine.parent, 0), network_of(theirs.parent, 0))
        for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
