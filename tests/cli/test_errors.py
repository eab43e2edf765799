"""Every error that a user can mend: one line with the setting, its value and what would be right, before any work starts."""

import json
import sys

import numpy as np
import pytest

from bap_jax.errors import NonFiniteError
from bap_jax.runs import datasets, loop
from bap_jax.runs.loop import train
from bap_jax.runs.settings import Settings

OWN = "plugins_for_tests"
SMALL = ("--model", f"{OWN}:small", "--data", f"{OWN}:blobs", "--budget", "none", "--batch-size", 8, "--steps", 2)
TINY = Settings(model=f"{OWN}:small", data=f"{OWN}:blobs", budget="none", batch_size=8, steps=8, log_every=1)

BAD_SETTINGS = {
    "sparsity_above_one": (["--final-sparsity", 1.5], ["--final-sparsity = 1.5", "[0, 1]"]),
    "sparsity_below_zero": (["--initial-sparsity", -0.1], ["--initial-sparsity = -0.1", "[0, 1]"]),
    "sparsity_nan": (["--final-sparsity", "nan"], ["--final-sparsity = nan", "[0, 1]"]),
    "sparsity_falls": (["--initial-sparsity", 0.95], ["--final-sparsity = 0.9", "--initial-sparsity = 0.95"]),
    "negative_epsilon": (["--budget", "uniform", "--epsilon=-0.1"], ["--budget.epsilon = -0.1", "at least 0"]),
    "epsilon_no_number": (["--budget", "uniform", "--epsilon", "big"], ["budget.epsilon = 'big'", "8/255"]),
    "epsilon_list_in_training": (["--budget", "uniform", "--epsilon", "0.1,0.2"], ["budget.epsilon = '0.1,0.2'", "a number"]),
    "uniform_without_epsilon": (["--budget", "uniform"], ["--budget.epsilon = None", "--budget uniform"]),
    "epsilon_with_blind": (["--epsilon", "0.3"], ["--epsilon = '0.3'", "nothing with --budget cutoff-scale"]),
    "epsilon_with_none": (["--budget", "none", "--epsilon", "0.3"], ["--epsilon = '0.3'", "--budget none"]),
    "unknown_model": (["--model", "lenet6"], ["--model = 'lenet6'", "lenet5", "package.module:factory"]),
    "unknown_attack": (["--attack", "pgdd"], ["--attack = 'pgdd'", "pgd", "package.module:factory"]),
    "unknown_pruner": (["--pruner", "magic"], ["--pruner = 'magic'", "magnitude"]),
    "unknown_budget": (["--budget", "unifrom"], ["--budget = 'unifrom'", "uniform"]),
    "unknown_loss": (["--loss", "trade"], ["--loss = 'trade'", "mix"]),
    "unknown_cutoff": (["--cutoff", "median"], ["cutoff = 'median'", "quantile:LEVEL"]),
    "cutoff_without_level": (["--cutoff", "quantile"], ["cutoff = 'quantile", "quantile:0.5"]),
    "cutoff_no_number": (["--cutoff", "constant:x"], ["cutoff = 'constant:x'", "number"]),
    "cutoff_decay_of_one": (["--cutoff", "running-mean:1"], ["cutoff = 'running-mean:1'", "[0, 1)"]),
    "ramp_reversed": (["--ramp-begin", 0.7], ["--ramp-end = 0.6", "--ramp-begin = 0.7"]),
    "no_steps": (["--steps", 0], ["--steps = 0", "at least 1"]),
    "learning_rate_nan": (["--learning-rate", "nan"], ["--optimizer.learning-rate = nan", "above 0"]),
    "batch_above_data": (["--batch-size", 2000], ["batch_size = 2000", "1259"]),
    "chunks_that_do_not_divide": (["--microbatches", 3], ["--microbatches = 3", "--batch-size = 128 divides into"]),
    "chunks_of_a_loss_that_is_no_mean": (
        ["--method", "pwoa", "--model", "lenet5", "--microbatches", 2],
        ["--microbatches = 2", "no mean over examples, as distill_hsic"],
    ),
    "one_device_to_spread_over": (["--shard", "state"], ["--shard = 'state'", "--devices takes several"]),
    "too_many_devices": (["--devices", 8, "--batch-size", 100], ["--batch-size = 100", "8 devices", "96 or 104"]),
    "module_missing": (["--model", "no_such_package.module:net"], ["--model = 'no_such_package.module:net'", "PYTHONPATH"]),
    "attribute_missing": (["--pruner", f"{OWN}:nothing"], [f"--pruner = '{OWN}:nothing'", "no 'nothing'"]),
    "factory_not_callable": (["--budget", f"{OWN}:not_callable"], [f"--budget = '{OWN}:not_callable'", "a function"]),
    "no_model": (["--model", f"{OWN}:no_model"], [f"{OWN}:no_model", "Model"]),
    "no_pruner": (["--pruner", f"{OWN}:not_a_slot"], [f"--pruner = '{OWN}:not_a_slot'", "Pruner, not a int"]),
    "no_attack": (["--attack", f"{OWN}:not_a_slot"], [f"--attack = '{OWN}:not_a_slot'", "Callable, not a int"]),
    "probabilities": (["--model", f"{OWN}:probabilities"], [f"{OWN}:probabilities", "logits", "probabilities"]),
    "too_few_logits": (["--model", f"{OWN}:one_class_too_few"], ["logits of shape [B, 10]", "(32, 9)"]),
    "images_outside_bounds": (["--data", f"{OWN}:outside_bounds"], ["image 0 leaves its bounds [0, 1]", "scale the images"]),
    "nan_in_data": (["--data", f"{OWN}:nan_images"], ["blobs (train): image 7 holds NaN"]),
    "labels_out_of_range": (["--data", f"{OWN}:labels_out_of_range"], ["label 3 of example 2", "[0, 2]"]),
    "labels_of_wrong_dtype": (["--data", f"{OWN}:float_labels"], ["labels have dtype float32", "int32"]),
    "no_splits": (["--data", f"{OWN}:no_splits"], [f"{OWN}:no_splits", "list", "Splits"]),
    "not_prepared": (["--data", "mnist", "--data-dir", "/nowhere"], ["mnist", "bap data prepare mnist", "/nowhere"]),
    "unknown_data": (["--data", "nosuchset"], ["nosuchset"]),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_a_bad_setting_is_refused_before_the_run_folder_is_made(name, refused, tmp_path):
    arguments, expected = BAD_SETTINGS[name]
    message = refused("train", "--out", tmp_path / "run", *arguments)
    assert message.startswith("bap: error: ")
    for part in expected:
        assert part in message
    assert not (tmp_path / "run").exists()


BAD_PLANS = {
    "negative_epsilon": (["--epsilon=-0.1,0.2"], ["--epsilon = '-0.1,0.2'", "at least 0"]),
    "unknown_attack": (["--attack", "pgd,cv"], ["--attack = 'cv'", "deepfool"]),
    "unknown_in_a_cascade": (["--attack", "cascade:pgd+autoattack"], ["cascade:pgd+autoattack", "apgd-ce"]),
    "autoattack_rand_in_l1": (["--attack", "autoattack-rand", "--norm", "l1"], ["--norm = 'l1'", "linf or l2"]),
    "radii_of_other_norms": (["--norm", "l2", "--epsilon", "linf=0.1"], ["--epsilon = 'linf=0.1'", "each norm of --norm l2"]),
    "restarts_of_none": (["--attack", "fmn", "--restarts", 3], ["--restarts = 3", "--attack fmn"]),
    "queries_of_none": (["--queries", 10], ["--queries = 10", "--attack pgd"]),
    "unknown_norm": (["--norm", "l3"], ["--norm = 'l3'", "linf"]),
    "deepfool_in_l1": (["--attack", "deepfool", "--norm", "l1"], ["--norm = 'l1'", "l2 or linf"]),
    "unknown_split": (["--split", "train"], ["--split = 'train'", "validation"]),
    "no_steps": (["--steps", 0], ["--steps = 0", "at least 1"]),
    "step_size_zero": (["--step-size", 0], ["--step-size = '0'", "above 0"]),
    "no_threat": (["--attack", f"{OWN}:no_model_threat"], [f"{OWN}:no_model_threat", "no 'no_model_threat'"]),
    "checkpoint_no_step": (["--checkpoint", "latest"], ["--checkpoint = 'latest'", "last, best, ema or a step"]),
    "no_run": ([], ["run folder", "config.json", "bap train"]),
}


@pytest.mark.parametrize("name", BAD_PLANS)
def test_a_bad_evaluation_is_refused(name, refused, tmp_path):
    arguments, expected = BAD_PLANS[name]
    message = refused("evaluate", tmp_path, *arguments)
    for part in expected:
        assert part in message


def test_a_typo_in_a_flag_is_named_with_the_flag_that_was_meant(bap, tmp_path):
    code, _, error = bap("train", "--out", tmp_path, "--final-sparcity", 0.9)
    assert code == 2 and "--final-sparcity" in error and "--final-sparsity" in error
    assert "Traceback" not in error


def test_an_occupied_folder_is_refused_before_data_is_read(refused, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(datasets.data_layer, "load", lambda *_, **__: pytest.fail("read data first"))
    message = refused("train", *SMALL, "--out", tmp_path)
    assert "--out" in message and str(tmp_path) in message and "--resume" in message
    message = refused("train", *SMALL, "--out", tmp_path, "--resume")
    assert "notes.txt" in message and "config.json" in message
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("folder", ["file/run", "/proc/no/run"])
def test_an_unwritable_folder_is_refused(folder, refused, tmp_path):
    (tmp_path / "file").write_text("")
    message = refused("train", *SMALL, "--out", tmp_path / folder)
    assert "--out" in message and "can be written" in message


def test_a_report_that_cannot_be_written_or_has_nothing_to_say(refused, bap, tmp_path):
    assert "at least one run folder" in refused("report", "--out", tmp_path / "report")
    assert "config.json" in refused("report", tmp_path, "--out", tmp_path / "report")
    (tmp_path / "config.json").write_text("{}")
    message = refused("report", tmp_path, "--out", tmp_path / "report")
    assert f"bap evaluate {tmp_path}" in message


def test_an_address_is_no_run_folder(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "--out = 'gs:/bucket/x': expected a path in the file system" in refused("train", *SMALL, "--out", "gs://bucket/x")
    message = refused("train", *SMALL, "--out", "s3://bucket/x")
    assert "the checkpoint library writes no S3" in message
    assert "--data-dir" in refused("train", *SMALL, "--out", tmp_path / "run", "--data-dir", "s3://bucket/sets")
    assert not any(tmp_path.iterdir())


def test_tensorboard_without_its_package_is_refused(refused, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    message = refused("train", *SMALL, "--out", tmp_path / "run", "--tensorboard")
    assert "--tensorboard = True" in message and "pip install 'bap_jax[tensorboard]'" in message
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run_with_status_3(bap, tmp_path):
    settings = ("--optimizer", "sgd", "--optimizer.learning-rate", "1e30", "--steps", 50)
    code, _, error = bap("train", *SMALL[:-2], *settings, "--out", tmp_path / "run")
    assert code == 3
    assert error.startswith("bap: stopped: the loss of step ") and "--learning-rate" in error
    assert "there is no earlier checkpoint" in error


def test_weights_that_are_not_finite_are_never_saved(bap, tmp_path):
    code, _, error = bap("train", *SMALL, "--model", f"{OWN}:nan_gradient", "--steps", 1, "--out", tmp_path / "run")
    assert code == 3
    assert "step 1 left weights that are not finite" in error
    assert "there is no earlier checkpoint" in error


def test_the_last_good_checkpoint_outlives_a_loss_that_is_not_finite(tmp_path):
    settings = TINY.changed(model=f"{OWN}:nan_once_pruned", steps=20, ramp_begin=0.5, ramp_end=0.5)
    with pytest.raises(NonFiniteError, match=r"the loss of step 12 is nan; the checkpoint of step \d+ is kept") as stopped:
        train(settings, tmp_path / "run", save_seconds=0.0)
    kept = int(str(stopped.value).split("checkpoint of step ")[1].split()[0])
    with loop.Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.latest_step() == kept
        network = checkpoints.restore_network()
    assert all(np.isfinite(leaf).all() for leaf in network.params.values())
    with pytest.raises(NonFiniteError):  # the same again, not something silent
        train(settings, tmp_path / "run", save_seconds=0.0, resume=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One small finished run (not to be changed)."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(TINY, folder)
    return folder


def test_a_differing_setting_is_named_on_resume(trained, refused):
    given = ("--data", TINY.data, "--model", TINY.model, "--budget", "none", "--batch-size", 8, "--steps", 8, "--log-every", 1)
    message = refused("train", *given, "--final-sparsity", 0.8, "--out", trained, "--resume")
    assert "final_sparsity = 0.8" in message and "0.9" in message and str(trained) in message


def copy(run, to):
    import shutil

    shutil.copytree(run, to)
    return to


def test_a_checkpoint_of_another_model_names_the_first_leaf_that_differs(trained, refused, plugins, monkeypatch, tmp_path):
    run = copy(trained, tmp_path / "run")
    monkeypatch.setattr(plugins, "WIDTH", 20)  # the user's factory has changed since
    from bap_jax.runs import deployed, recipe

    for cached in (recipe._cached_model, recipe._cached_step, deployed.predictor):
        cached.cache_clear()
    try:
        given = ("--data", TINY.data, "--model", TINY.model, "--budget", "none", "--batch-size", 8, "--steps", 8)
        messages = [refused("evaluate", run, "--trust"), refused("train", *given, "--log-every", 1, "--out", run, "--resume")]
    finally:
        for cached in (recipe._cached_model, recipe._cached_step, deployed.predictor):
            cached.cache_clear()
    assert "params/hidden" in messages[0] and "float32[16,16]" in messages[0] and "float32[16,20]" in messages[0]
    assert "trainable/hidden" in messages[1] and "float32[16,16]" in messages[1] and "float32[16,20]" in messages[1]


def test_probabilities_are_found_in_an_evaluation(trained, bap, tmp_path):
    run = copy(trained, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"model": f"{OWN}:probabilities"}))
    plan = ("evaluate", run, "--epsilon", "0,0.1", "--steps", 2)
    code, output, _ = bap(*plan, "--trust")
    assert code == 0 and "failed: outputs are logits" in output and "leave the softmax out" in output
    assert bap(*plan, "--strict")[0] == 1


def test_a_checkpoint_that_is_not_there(trained, refused):
    assert "one of [" in refused("evaluate", trained, "--checkpoint", 5000)


def test_evaluating_a_run_that_has_no_checkpoint_yet(trained, refused, tmp_path):
    import shutil

    run = copy(trained, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    message = refused("evaluate", run, "--trust")
    assert "--checkpoint = 'last'" in message and "none yet" in message


def test_two_runs_in_one_folder(trained, refused):
    given = ("--data", TINY.data, "--model", TINY.model, "--budget", "none", "--batch-size", 8, "--steps", 8, "--log-every", 1)
    config = Settings(**json.loads((trained / "config.json").read_text())).as_dict()
    with loop.open_run(trained, config, resume=True):
        message = refused("train", *given, "--out", trained, "--resume")
    assert "--out" in message and "no other process" in message


def test_data_that_is_not_there_is_named(refused):
    assert "nosuchset" in refused("data", "show", "nosuchset")


def test_digits_are_described(bap):
    code, output, _ = bap("data", "show", "digits")
    assert code == 0
    for part in ("train", "1259", "179", "359", "8×8×1"):
        assert part in output
