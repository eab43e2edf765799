"""`bap report` on one network: images that were kept, images made on the spot, distances and cascades, and what cannot be had."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from bap_jax.data import digits
from bap_jax.errors import SettingError
from bap_jax.runs import samples
from bap_jax.runs.evaluate import evaluate_run
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.records import evaluations_of
from bap_jax.runs.report_inputs import distances_of, layers_of, stages_of, stored_arrays
from bap_jax.runs.samples import samples_of
from bap_jax.runs.weights import import_run

PLAN = AttackPlan(attack="fmn,cascade:fgsm+pgd", epsilon="0,0.1,0.3", steps=2, limit=12, controls=False)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A network of random features with a fitted last layer, evaluated once with its images kept. Not to be changed."""
    folder, random = tmp_path_factory.mktemp("evaluated"), np.random.default_rng(0)
    images, labels = digits().train.read(np.arange(1000))
    tensors, features = {}, images.reshape(1000, 64)
    for name, width in (("fc1", 256), ("fc2", 128)):
        weight = random.normal(0, (2 / features.shape[1]) ** 0.5, (width, features.shape[1]))
        tensors |= {f"{name}.weight": weight, f"{name}.bias": np.zeros(width)}
        features = np.maximum(features @ weight.T, 0)
    head = np.linalg.lstsq(features, np.eye(10)[labels], rcond=None)[0].T
    tensors |= {"head.weight": np.ascontiguousarray(head), "head.bias": np.zeros(10)}
    save_file({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, folder / "x.safetensors")
    import_run(folder / "x.safetensors", model="mlp", data="digits", out=folder / "run")
    evaluate_run(folder / "run", PLAN, batch_size=12, save_examples=True)
    return folder / "run"


@pytest.fixture
def run(evaluated, tmp_path):
    return Path(shutil.copytree(evaluated, tmp_path / "run"))


def test_images_that_were_kept_are_shown_as_they_were(evaluated):
    records = evaluations_of(evaluated)
    samples, notes = samples_of(records, 5)
    assert notes == []
    assert [s.title for s in samples] == [
        "imported run, 0 % sparse: fmn-2 (L∞), the nearest points found",
        "imported run, 0 % sparse: fgsm+pgd (L∞), ε = 0.3",
    ]
    stored, told = (stored_arrays(records[0], ending) for ending in (".examples.npz", ".npz"))
    clean, labels = digits().test.read(np.arange(5))
    for sample, name, at in zip(samples, ("fmn-2-linf", "fgsm+pgd-linf"), (0, 1), strict=True):
        assert np.array_equal(sample.adversarial, stored[name][at, :5]) and np.allclose(sample.clean, clean)
        assert list(sample.labels) == [str(label) for label in labels]
        assert list(sample.clean_predictions) == [str(number) for number in told["prediction"][:5]]
        assert np.allclose(sample.distances, np.abs(stored[name][at, :5] - clean).reshape(5, -1).max(1), atol=1e-6)
    fooled = [said != label for said, label in zip(samples[1].predictions, samples[1].labels, strict=True)]
    assert fooled == told["success/fgsm+pgd-linf"][2, :5].tolist()  # the network answers now as it did then


def test_images_are_made_where_none_were_kept(run):
    next((run / "evaluations").glob("*.examples.npz")).unlink()
    (sample,), notes = samples_of(evaluations_of(run), 6)
    assert notes == [] and sample.title == "imported run, 0 % sparse: pgd-20 (L∞), ε = 0.3, made for this report"
    delta = np.abs(np.asarray(sample.adversarial) - sample.clean)
    assert delta.shape == (6, 8, 8, 1) and 0.29 < delta.max() <= 0.3 + 1e-6
    assert samples_of(evaluations_of(run), 0) == ([], [])


def test_what_cannot_be_had_is_said_and_the_report_is_written(run, bap, tmp_path):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"data": "mnist", "data_dir": str(tmp_path / "nowhere")}))
    code, _, error = bap("report", run, "--out", tmp_path / "report")
    assert code == 0, error
    text = (tmp_path / "report" / "report.md").read_text()
    assert "No sample images of “imported run”" in text and "nowhere" in text
    for part in ("## Minimal distances", "## Cascades, attack by attack", "after pgd-2, %", "## Every attack beside the others"):
        assert part in text
    assert not (tmp_path / "report" / "samples.png").exists() and (tmp_path / "report" / "distances.svg").exists()


def test_distances_and_stages_are_those_of_the_evaluation(evaluated):
    records = evaluations_of(evaluated)
    assert records[0]["rows"][0]["accuracy"] > 0.8
    (found,) = distances_of(records)
    assert (found.attack, found.norm, found.arm, found.sparsity, found.networks) == ("fmn-2", "linf", "imported run", 0.0, 1)
    summary = records[0]["distances"]["fmn-2-linf"]
    assert (found.right.size, int(np.isinf(found.right).sum())) == (summary["attacked"], summary["not_found"])
    assert summary["median"] in (None, found.median)
    stages = stages_of(records)
    assert [(row["stage"], row["epsilon"]) for row in stages] == [
        (stage, epsilon) for epsilon in (0.1, 0.3) for stage in ("clean", "fgsm", "pgd-2")
    ]
    assert {row["cascade"] for row in stages} == {"fgsm+pgd (L∞)"}
    last = {row["epsilon"]: row["accuracy"] for row in stages if row["stage"] == "pgd-2"}
    assert last == pytest.approx({row["epsilon"]: row["accuracy"] for row in records[0]["rows"] if row["attack"] == "fgsm+pgd"})
    pooled = distances_of(records * 2)[0]
    assert pooled.networks == 2 and pooled.values.size == 2 * found.values.size and pooled.median == found.median


def test_damaged_files_and_absurd_numbers_are_refused(run, bap, refused, tmp_path):
    assert "--samples" in refused("report", run, "--samples", -1, "--out", tmp_path / "report")
    records = evaluations_of(run)
    next((run / "evaluations").glob("*[0-9a-f].npz")).write_bytes(b"not an archive")
    with pytest.raises(SettingError, match="as bap evaluate writes it"):
        distances_of(records)
    assert layers_of(records)["imported run"] == dict.fromkeys(("fc1/kernel", "fc2/kernel", "head/kernel"), 0.0)


def test_of_very_many_arms_the_blind_one_is_among_those_shown(monkeypatch, tmp_path):
    def record(arm, budget):
        row = {"arm": arm, "attack": "clean", "sparsity": 0.9, "budget": budget}
        return {"run": str(tmp_path / arm), "step": 1, "name": "none", "rows": [row]}

    arms = [*((f"uniform 0.{i}", "uniform") for i in range(1, 9)), ("blind", "cutoff-scale")]
    monkeypatch.setattr(samples, "_samples", lambda arm, *_: [arm])
    shown, notes = samples.samples_of([record(*arm) for arm in arms], 1)
    assert shown == ["uniform 0.1", "blind"]
    assert notes == ["Sample images are of 2 of 9 arms, uniform budgets last."]
