"""`bap compact`: what it writes is the same network, smaller, and a run like any other."""

import functools
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bap_jax
from bap_jax.checkpoint import Checkpoints, open_run
from bap_jax.errors import SettingError
from bap_jax.export.program import as_model, export_program, flat
from bap_jax.mathematics.group_masks import group_masks
from bap_jax.mathematics.masks import apply_masks, fitted_masks
from bap_jax.report.compactions import compactions_table
from bap_jax.runs.compaction import RECORD, checks_of, compact_run, compare
from bap_jax.runs.datasets import example_of
from bap_jax.runs.deployed import Deployed
from bap_jax.runs.recipe import model_of
from bap_jax.runs.report_inputs import compactions_of
from bap_jax.runs.settings import Settings
from bap_jax.runs.start import start_of
from bap_jax.runs.trust import Trust
from bap_jax.structure import compact, groups_of, sliced_apply
from bap_jax.types import Network

TRUST = Trust(everything=True)
MLP = {"data": "digits", "model": "mlp", "model.hidden": (12, 8)}


@functools.cache
def pruned(settings):
    """The network of settings with half of its coupled channels gone, and an example of its data."""
    source = example_of(settings)
    model = model_of(settings, source.num_classes)
    params, model_state = model.init(jax.random.key(0), jnp.zeros((1, *source.image_shape)))
    groups = groups_of(model, params, model_state, source.image_shape)
    masks = jax.jit(lambda params: group_masks(params, 0.5, groups, scope="coupled"))(params)
    return model, Network(apply_masks(params, masks), masks, model_state), source


def stored(folder, settings):
    """A run folder with that network, as training would have left it."""
    _, network, _ = pruned(settings)
    with open_run(folder, settings.as_dict()) as run, Checkpoints(run.checkpoints) as checkpoints:
        checkpoints.save(3, {"step": np.int32(3)}, network=network, metric=0.5, metadata={"finished": True, "phase": 0})
    return folder


@pytest.fixture(scope="module")
def mlp(tmp_path_factory):
    """A run and what compaction leaves of it."""
    run = stored(tmp_path_factory.mktemp("runs") / "half", Settings(**MLP, pruner="structured", final_sparsity=0.5))
    return run, compact_run(run, examples=8, epsilon=0.1, rounds=2)


def test_the_compact_run_is_the_same_network_with_its_own_widths(mlp):
    run, found = mlp
    assert found.out == run.parent / "half-compact" and found.trainable
    assert [check.status for check in found.checks] == ["passed"] * 4
    whole, small = bap_jax.load(run), bap_jax.load(found.out)
    images = np.random.default_rng(0).uniform(size=(5, 8, 8, 1)).astype(np.float32)
    np.testing.assert_allclose(small(images), whole(images), atol=1e-5)
    assert small.params["fc1"]["kernel"].shape == (64, 6) and small.params["head"]["kernel"].shape == (4, 10)
    config = json.loads((found.out / "config.json").read_text())
    assert config["model.widths"] == [["fc1", 6], ["fc2", 4]] and config["final_sparsity"] == 0
    assert small.about["step"] == 3 and small.about["metric"] == 0.5 and small.about["compact_of"] == str(run)


def test_the_record_counts_what_was_saved(mlp):
    _, found = mlp
    record = json.loads((found.out / RECORD).read_text())
    before, after = 64 * 12 + 12 + 12 * 8 + 8 + 8 * 10 + 10, 64 * 6 + 6 + 6 * 4 + 4 + 4 * 10 + 10
    assert [record[side]["num_parameters"] for side in ("before", "after")] == [before, after]
    assert record["real"] == before / after
    kept = 64 * 6 + 6 * 4 + 4 * 10  # biases begin at zero and are pruned with their channels
    assert record["nominal"] == pytest.approx((64 * 12 + 12 + 12 * 8 + 8 + 8 * 10) / (kept + 6 + 4))
    assert record["after"]["flops_dense"] == 2 * kept and record["zeros"] == 6 + 4 + 10
    assert record["before"]["flops_sparse"] == record["after"]["flops_dense"]
    for batch in ("1", "128"):
        assert record["after"]["memory"][batch] < record["before"]["memory"][batch]
        assert record["after"]["ratio"][batch]["low"] <= record["after"]["ratio"][batch]["median"]
    (read,) = compactions_of([{"run": str(found.out)}])
    line = [cell.text for cell in compactions_table([read]).rows[0]]
    assert line[:5] == ["half-compact", f"{before:,}", f"{after:,}", "2.10", "2.08"]


def test_it_is_started_from_and_cut_no_further(mlp):
    _, found = mlp
    settings = Settings(**json.loads((found.out / "config.json").read_text()))
    start = start_of(settings.changed(init_from=str(found.out), pruner="fixed"), example_of(settings))
    assert start.network.params["fc2"]["kernel"].shape == (6, 4)
    with pytest.raises(SettingError, match="a network with channels that are wholly zero"):
        compact_run(found.out)


def test_a_network_of_ones_own_takes_widths_or_becomes_a_program(tmp_path, monkeypatch):
    named = {"data": "plugins_for_tests:blobs", "pruner": "structured"}
    run = stored(tmp_path / "own", Settings(**named, model="plugins_for_tests:beside"))
    found = compact_run(run, examples=8, epsilon=0.1, rounds=0, trust=TRUST)
    assert found.trainable and all(check.status == "passed" for check in found.checks)
    assert bap_jax.load(found.out, trust=TRUST).params["mix"]["kernel"].shape == (5, 4)
    run = stored(tmp_path / "fixed", Settings(**named, model="plugins_for_tests:unbending"))
    if importlib.util.find_spec("flatbuffers") is None:
        with pytest.raises(SettingError, match="flatbuffers"):
            compact_run(run, examples=8, trust=TRUST)
        assert not (tmp_path / "fixed-compact").exists()
        return
    found = compact_run(run, examples=8, epsilon=0.1, rounds=0, trust=TRUST)
    assert not found.trainable and all(check.status == "passed" for check in found.checks)
    net, images = bap_jax.load(found.out, trust=TRUST), np.ones((3, 4, 4, 1), np.float32)
    np.testing.assert_allclose(net(images), bap_jax.load(run, trust=TRUST)(images), atol=1e-5)
    with pytest.raises(SettingError, match="cannot be trained further"):
        net.model.apply(*net.weights, images, train=True)


def test_a_program_has_the_smaller_shapes_for_a_batch_of_any_size(plugins):
    model, network, source = pruned(Settings(data="plugins_for_tests:blobs", model="plugins_for_tests:unbending"))
    small, _, report = compact(model, network, source.image_shape)
    apply = sliced_apply(model, network.params, network.model_state, report.cut)  # of code that asks for len(images)
    program = as_model(export_program(apply, small.params, small.model_state, source.image_shape))
    weights = flat(small.params), {}
    shapes = jax.eval_shape(program.init, jax.random.key(0), None)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, weights) and shapes[0]["mix/kernel"].shape == (5, 4)
    for count in (1, 7):
        images = np.random.default_rng(count).uniform(size=(count, *source.image_shape)).astype(np.float32)
        whole = model.apply(network.params, {}, images, train=False)[0].logits
        np.testing.assert_allclose(program.apply(*weights, images, train=False)[0].logits, whole, atol=1e-5)
    with pytest.raises(SettingError, match="cannot be trained further"):
        program.apply(*weights, images, train=True)


def test_another_network_does_not_pass():
    settings = Settings(**MLP)
    model, network, source = pruned(settings)
    before = Deployed(model, network, source.image_shape)
    other = jax.tree.map(lambda leaf: leaf[::-1], network.params)
    after = Deployed(model, Network(other, fitted_masks(other, network.masks), {}), source.image_shape)
    compared = compare(before, after, source, examples=1, epsilon=0.1, norm="linf")
    assert compared["examples"] == 1 and compared["logits"] > 0.1
    assert checks_of(compared, settings)[0].status == "failed"
    assert [
        check.status for check in checks_of(compared | {"logits": 0.0, "clean": 0, "attacked": 0, "transferred": 1}, settings)
    ] == [
        "passed",
        "failed",
        "passed",
        "warned",
    ]


def test_the_command_shows_before_and_after(bap, refused, mlp, tmp_path, monkeypatch):
    run, found = mlp
    assert "expected an empty folder" in refused("compact", run)
    assert "--rounds = -1" in refused("compact", run, "--out", tmp_path / "other", "--rounds", -1)
    monkeypatch.setattr("bap_jax.cli.commands.compact.compact_run", lambda run, **given: found)
    code, output, _ = bap("compact", run, "--rounds", 2)
    assert code == 0 and "4 passed, 0 warned, 0 failed" in output and "zeros that remain" in output
    assert "2.08" in output and "--init-from" in output
    failed = found._replace(checks=(found.checks[0]._replace(status="failed"),), trainable=False)
    monkeypatch.setattr("bap_jax.cli.commands.compact.compact_run", lambda run, **given: failed)
    code, output, _ = bap("compact", run)
    assert code == 1 and "cannot be trained further" in output
