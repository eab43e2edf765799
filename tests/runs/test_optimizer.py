"""Optimisers of runs: the shape of the rate, what a step does, and that runs share no schedule but their own."""

import dataclasses
import json
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from earlier import schema_1
from safetensors.numpy import load_file
from told import told

from bap_jax.checkpoint import Checkpoints, as_target
from bap_jax.errors import CheckpointError, SettingError
from bap_jax.runs.datasets import load_data
from bap_jax.runs.loop import check_out, train
from bap_jax.runs.naming import arm_of
from bap_jax.runs.optimizer import rate_shape, shape_at
from bap_jax.runs.recipe import recipe_of
from bap_jax.runs.records import evaluations_of
from bap_jax.runs.run import prepare
from bap_jax.runs.settings import Settings
from bap_jax.runs.stored import settings_in
from bap_jax.sweeps import vmapped
from bap_jax.sweeps.grid import cell_name

OWN = "plugins_for_tests"
BASE = Settings(
    data=f"{OWN}:blobs", model=f"{OWN}:small", budget="none", pruner="dense", optimizer="sgd", momentum=0.0,
    learning_rate=0.1, batch_size=8, steps=4, rate_schedule="linear",
)  # fmt: skip
NEW = {
    "momentum": 0.5, "nesterov": True, "gradient_clip": 1.0, "rate_schedule": "cosine", "rate_warmup": 0.1,
    "rate_boundaries": "1/4", "rate_factors": "0.5", "rate_cycles": 3,
    "ema": 0.9,
}  # fmt: skip
T = 40


def triangles(cycles, top):
    length = T // cycles
    rise, fall = round(length * top), length - round(length * top)
    turns = [optax.linear_schedule(0, 1, rise), optax.linear_schedule(1, 0, fall)] * cycles
    return optax.join_schedules(turns, [at for cycle in range(cycles) for at in (cycle * length, cycle * length + rise)][1:])


SHAPES = {
    "warm-up": ({"rate_warmup": 0.2}, optax.warmup_constant_schedule(0, 1, 8)),
    "linear": ({"rate_schedule": "linear"}, optax.linear_schedule(1, 0, T)),
    "cosine": ({"rate_schedule": "cosine"}, optax.cosine_decay_schedule(1, T)),
    "cosine after a warm-up": (
        {"rate_schedule": "cosine", "rate_warmup": 0.1},
        optax.warmup_cosine_decay_schedule(0, 1, 4, T),
    ),
    "piecewise": ({"rate_schedule": "piecewise"}, optax.piecewise_constant_schedule(1.0, {20: 0.1, 30: 0.1})),
    "piecewise, each its own": (
        {"rate_schedule": "piecewise", "rate_boundaries": "1/4,0.5,3/4", "rate_factors": "0.5,0.2,0"},
        optax.piecewise_constant_schedule(1.0, {10: 0.5, 20: 0.2, 30: 0.0}),
    ),
    "one-cycle": ({"rate_schedule": "one-cycle"}, optax.cosine_onecycle_schedule(T, 1.0)),
    "one-cycle, early": ({"rate_schedule": "one-cycle", "rate_warmup": 0.1}, optax.cosine_onecycle_schedule(T, 1.0, 0.1)),
    "cyclic": ({"rate_schedule": "cyclic"}, triangles(1, 0.5)),
    "cyclic, twice": ({"rate_schedule": "cyclic", "rate_cycles": 2, "rate_warmup": 0.4}, triangles(2, 0.4)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_optaxs_own_schedule_at_a_rate_of_one(name):
    changes, schedule = SHAPES[name]
    steps = jnp.arange(T + 1)
    shape = rate_shape(Settings(**changes).check(), T)
    found = jax.vmap(lambda step: shape_at(shape, step))(steps)
    np.testing.assert_allclose(found, [schedule(step) for step in range(T + 1)], atol=2e-6)
    assert found.min() >= 0 and found.max() == 1


def after(optimizer, steps=5):
    """Two weights after a few steps down a bowl that is steep in one of them."""
    params = {"w": jnp.array([1.0, -2.0])}
    state = optimizer.init(params)
    for _ in range(steps):
        gradients = jax.tree.map(lambda w: w * jnp.array([4.0, 0.5]), params)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params["w"]


RATE = optax.cosine_decay_schedule(0.1, 5)
CLIP, DECAY = optax.clip_by_global_norm(0.7), optax.add_decayed_weights(0.05)
BY_HAND = {
    "momentum": ({"optimizer": "sgd", "momentum": 0.5}, optax.sgd(0.1, 0.5)),
    "no momentum": ({"optimizer": "sgd", "momentum": 0.0}, optax.sgd(0.1)),
    "nesterov": ({"optimizer": "sgd", "nesterov": True}, optax.sgd(0.1, 0.9, nesterov=True)),
    "adamw": ({"optimizer": "adamw", "weight_decay": 0.05}, optax.adamw(0.1, weight_decay=0.05)),
    "L2": ({"optimizer": "adam", "weight_decay": 0.05}, optax.chain(DECAY, optax.adam(0.1))),
    "clip": ({"optimizer": "sgd", "gradient_clip": 0.7}, optax.chain(CLIP, optax.sgd(0.1, 0.9))),
    "all": (
        {"optimizer": "sgd", "gradient_clip": 0.7, "weight_decay": 0.05, "rate_schedule": "cosine"},
        optax.chain(CLIP, DECAY, optax.sgd(RATE, 0.9)),
    ),
    "adamw, scheduled": (
        {"optimizer": "adamw", "weight_decay": 0.05, "gradient_clip": 0.7, "rate_schedule": "cosine"},
        optax.chain(CLIP, optax.adamw(RATE, weight_decay=0.05)),
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_an_optimiser_is_optaxs_run_by_hand(name):
    changes, by_hand = BY_HAND[name]
    found = after(recipe_of(Settings(learning_rate=0.1, **changes).check(), told(num_steps=5)).optimizer)
    np.testing.assert_allclose(found, after(by_hand), rtol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_the_defaults_have_the_state_and_the_step_of_earlier_runs(name, decay):
    def at(learning_rate):
        base = optax.sgd(learning_rate, momentum=0.9) if name == "sgd" else optax.adam(learning_rate)
        return optax.chain(*([optax.add_decayed_weights(decay)] if decay else []), base)

    earlier = optax.inject_hyperparams(at)(learning_rate=1e-3)
    settings, params = Settings(optimizer=name, weight_decay=decay), {"w": jnp.ones(2)}
    for built in (settings, settings.traced()):
        optimizer = recipe_of(built, told(num_steps=2)).optimizer
        states = optimizer.init(params), earlier.init(params)
        assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
        programs = [str(jax.make_jaxpr(tx.update)(params, states[1], params)) for tx in (optimizer, earlier)]
        assert programs[0] == programs[1]


REFUSED = {
    "optimizer.momentum": [{"momentum": 0.5}, {"momentum": 0.5, "optimizer": "adamw"}],
    "--optimizer.momentum": [{"momentum": 1.0, "optimizer": "sgd"}],
    "optimizer.nesterov": [{"nesterov": True}],
    "--optimizer.nesterov": [{"nesterov": True, "momentum": 0.0, "optimizer": "sgd"}],
    "--optimizer": [{"optimizer": "rmsprop"}],
    "--gradient-clip": [{"gradient_clip": 0.0}, {"gradient_clip": float("inf")}],
    "--rate-warmup": [{"rate_warmup": 1.0}, {"rate_warmup": -0.1}, {"rate_warmup": float("nan")}],
    "--rate-boundaries": [
        {"rate_boundaries": "1/4"},
        {"rate_schedule": "piecewise", "rate_boundaries": "0.5,0.5"},
        {"rate_schedule": "piecewise", "rate_boundaries": "0.5,0.25"},
        {"rate_schedule": "piecewise", "rate_boundaries": ""},
        {"rate_schedule": "piecewise", "rate_boundaries": "0,0.5"},
        {"rate_schedule": "piecewise", "rate_warmup": 0.6},
    ],
    "--rate-factors": [
        {"rate_factors": "0.5"},
        {"rate_schedule": "piecewise", "rate_factors": "0.1,0.1,0.1"},
        {"rate_schedule": "piecewise", "rate_factors": "2"},
        {"rate_schedule": "piecewise", "rate_factors": "x"},
    ],
    "--ema": [{"ema": 1.0}, {"ema": -0.1}],
    "--rate-cycles": [{"rate_cycles": 2}, {"rate_schedule": "cyclic", "rate_cycles": 0}],
}


@pytest.mark.parametrize(("name", "changes"), [(name, changes) for name, several in REFUSED.items() for changes in several])
def test_what_makes_no_sense_is_refused_by_its_name(name, changes):
    with pytest.raises(SettingError, match=f"^{name} = "):
        Settings(**changes).check()


def prepared(**changes):
    settings = dataclasses.replace(BASE, **changes).check()
    return prepare(settings, load_data(settings), 1)


def test_runs_of_other_lengths_share_a_step_and_no_schedule():
    runs = [prepared(steps=steps, rate_schedule=name) for steps, name in ((4, "linear"), (8, "linear"), (4, "cosine"))]
    steps = [run.compiled(0, run.recipe()) for run in runs]
    assert steps[0] is steps[1] is steps[2]
    assert vmapped.group_key(runs[0]) != vmapped.group_key(runs[2])
    constant = prepared(rate_schedule="constant")
    assert constant.compiled(0, constant.recipe()) is not steps[0]
    batch = jax.tree.map(lambda leaf: leaf[0], next(vmapped.Lanes.of(runs[:1]).batches(runs[0], 0, 1)))
    moved = []
    for run, step in zip(runs, steps, strict=True):
        first, _ = step(vmapped._first_state(run), batch)
        weights = np.asarray(first.trainable["out"])
        moved.append(np.asarray(step(first, batch)[0].trainable["out"]) - weights)
    for change, factor in zip(moved, (3 / 4, 7 / 8, (1 + np.cos(np.pi / 4)) / 2), strict=True):
        np.testing.assert_allclose(change / factor, moved[0] * 4 / 3, rtol=1e-3, atol=1e-6)
    assert np.abs(moved[0]).max() > 1e-3


def test_runs_in_one_group_follow_the_schedule_at_their_own_rates():
    runs = [prepared(learning_rate=rate, ema=0.5) for rate in (0.1, 0.2)]
    assert vmapped.group_key(runs[0]) == vmapped.group_key(runs[1]) != vmapped.group_key(prepared())
    lanes = vmapped.Lanes.of(runs)
    states = [vmapped._first_state(run) for run in runs]
    batch, state = next(lanes.batches(runs[0], 0, 1)), vmapped.stack(states, vmapped.shared_in(runs[0].recipe(), states[0]))
    step = vmapped.group_step(runs[0]).compiled(state, batch, lanes.which)
    alone = runs[1].compiled(0, runs[1].recipe())
    own = vmapped._first_state(runs[1])
    for _ in range(3):
        state, _ = step(state, batch, lanes.which)
        own, _ = alone(own, jax.tree.map(lambda leaf: leaf[0], batch))
    np.testing.assert_allclose(state.trainable["out"][1], own.trainable["out"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.average.params["out"][1], own.average.params["out"], rtol=1e-5, atol=1e-6)
    assert np.abs(state.trainable["out"][0] - own.trainable["out"]).max() > 1e-3


def test_a_scheduled_run_that_stopped_goes_on_along_its_schedule(left, tmp_path):
    settings = dataclasses.replace(
        BASE, steps=9, rate_schedule="cyclic", rate_cycles=2, momentum=0.9, gradient_clip=0.5, log_every=1
    )
    train(settings, tmp_path / "whole", save_seconds=0.0)

    def fail(done, total, metrics):
        if done == 5:  # an epoch is 3 steps: it was saved after 3
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        train(settings, tmp_path / "run", save_seconds=0.0, progress=fail)
    assert train(settings, tmp_path / "run", resume=True, save_seconds=0.0).resumed_from == 3
    left(tmp_path / "run").same_as(left(tmp_path / "whole"))


def test_a_schedule_without_a_length_is_an_error():
    with pytest.raises(ValueError, match="number of steps"):
        recipe_of(BASE, told())


def test_arms_that_are_trained_by_other_optimisers_have_other_names():
    runs = [dataclasses.replace(BASE, **{name: value}) for name, value in NEW.items()]
    assert len({arm_of(run) for run in [BASE, *runs]}) == len({cell_name(run) for run in [BASE, *runs]}) == len(runs) + 1
    assert arm_of(Settings(optimizer="sgd", learning_rate=0.1, weight_decay=1e-4)) == (
        "blind, optimizer sgd, learning rate 0.1, weight decay 0.0001"
    )


def test_a_configuration_from_before_means_the_optimiser_of_then(tmp_path):
    told = Settings(optimizer="sgd", weight_decay=1e-4)
    config = {name: value for name, value in schema_1(told).items() if name not in NEW}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = settings_in(tmp_path / "config.json")
    assert found == told and found.momentum == 0.9 and not found.scheduled()
    check_out(told, tmp_path, resume=True)
    with pytest.raises(SettingError, match=r"momentum = 0\.5"):
        check_out(dataclasses.replace(told, momentum=0.5), tmp_path, resume=True)


def test_a_run_with_the_users_own_optimiser_and_a_schedule_is_that_of_optax(bap, left, refused, tmp_path):
    data = ("--data", f"{OWN}:blobs", "--model", f"{OWN}:small", "--batch-size", 8, "--steps", 6, "--log-every", 1)
    own = (*data, "--budget", "none", "--learning-rate", 0.1, "--rate-schedule", "one-cycle", "--gradient-clip", 1)
    ends = []
    for name in (f"{OWN}:own_optimizer", "sgd"):
        code, _, error = bap("train", *own, "--optimizer", name, "--out", tmp_path / name[-3:])
        assert code == 0, error
        ends.append([line["loss"] for line in left(tmp_path / name[-3:]).metrics if "loss" in line])
    assert len(ends[0]) == 6 and ends[0] == pytest.approx(ends[1], rel=1e-4)  # both have momentum 0.9
    line = refused("train", *own, "--optimizer", f"{OWN}:no_optimizer", "--out", tmp_path / "no")
    assert "--optimizer" in line and "returns a GradientTransformation" in line


def test_the_average_is_of_the_pruned_weights_and_is_evaluated_and_exported(bap, refused, left, tmp_path):
    changes = {
        "pruner": "magnitude",
        "final_sparsity": 0.5,
        "frequency": 1,
        "steps": 7,
        "ema": 0.8,
        "ramp_end": 0.9,
        "log_every": 1,
    }
    run = prepared(**changes)
    state = vmapped._first_state(run)
    plain = prepared(**changes | {"ema": 0.0})
    step = run.compiled(0, run.recipe())
    assert step is plain.compiled(0, plain.recipe())
    by_hand = np.asarray(state.trainable["hidden"])
    for batch in vmapped.Lanes.of([run]).batches(run, 0, 7):
        state, _ = step(state, jax.tree.map(lambda leaf: leaf[0], batch))
        masks = np.asarray(state.prune.masks["hidden"])
        by_hand = np.where(masks, 0.8 * by_hand + 0.2 * np.asarray(state.trainable["hidden"]), 0)
    average = np.asarray(state.average.params["hidden"])
    np.testing.assert_allclose(average, by_hand, rtol=1e-5, atol=1e-7)
    assert (average == 0).mean() == pytest.approx(0.5, abs=0.01) and np.abs(average - state.trainable["hidden"]).max() > 1e-3

    for name, one in (("run", run), ("plain", plain)):
        train(one.settings, tmp_path / name, save_seconds=0.0)
    assert left(tmp_path / "run").metrics == left(tmp_path / "plain").metrics
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        saved = checkpoints.restore_network(7, item="average")
        assert checkpoints.restore_network(7).masks["hidden"].tolist() == saved.masks["hidden"].tolist() == masks.tolist()
    np.testing.assert_allclose(saved.params["hidden"], average, rtol=1e-5, atol=1e-7)

    attack = ("--attack", "fgsm", "--epsilon", "0,0.1", "--no-controls")
    code, _, error = bap("evaluate", tmp_path / "run", "--checkpoint", "ema", *attack)
    assert code == 0, error
    assert {row["arm"] for record in evaluations_of(tmp_path / "run") for row in record["rows"]} == {
        "clean, optimizer sgd, momentum 0.0, learning rate 0.1, rate schedule linear, ema 0.8, checkpoint ema"
    }
    out = tmp_path / "ema.safetensors"
    code, _, error = bap("export", tmp_path / "run", "--checkpoint", "ema", "--layout", "jax", "--out", out)
    assert code == 0, error
    exported = load_file(out)
    np.testing.assert_allclose(next(v for k, v in exported.items() if "hidden" in k), average, rtol=1e-5, atol=1e-7)
    assert "was saved without an average" in refused("evaluate", tmp_path / "plain", "--checkpoint", "ema", *attack)


def test_a_run_with_an_average_goes_on_to_the_same_end(left, tmp_path):
    settings = dataclasses.replace(BASE, steps=8, ema=0.5, log_every=1)
    train(settings, tmp_path / "whole", save_seconds=0.0)

    def fail(done, total, metrics):
        if done == 5:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        train(settings, tmp_path / "run", save_seconds=0.0, progress=fail)
    train(settings, tmp_path / "run", resume=True, save_seconds=0.0)
    left(tmp_path / "run").same_as(left(tmp_path / "whole"))


def test_a_checkpoint_from_before_the_average_is_gone_on_from(tmp_path):
    state = vmapped._first_state(prepared())
    fields = {name: value for name, value in state._asdict().items() if name != "average"}
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(3, namedtuple("TrainState", fields)(**fields))
        checkpoints.wait()
        found = checkpoints.restore(as_target(state), 3)
        assert type(found) is type(state) and found.average == ()
        assert found.trainable["out"].tobytes() == state.trainable["out"].tobytes()
        with pytest.raises(CheckpointError, match="average/decay: the checkpoint has no such leaf"):
            checkpoints.restore(as_target(vmapped._first_state(prepared(ema=0.5))), 3)
