"""Several phases as one run: what each begins with, what is kept of it, and that a stop in any of them changes nothing."""

import random
import signal
import subprocess
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from phases_for_tests import MODEL, PHASES, phases, slots, trained

import bap_jax as bap
from bap_jax.checkpoint import Checkpoints, read_metrics
from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import full_masks, magnitude_masks
from bap_jax.types import Length, Phase

HELPERS = Path(__file__).parents[1] / "helpers"


class Stop(Exception):
    """Ends a run, as a crash would."""


def stopping_at(step):
    def callback(done, total, metrics):
        if done == step:
            raise Stop

    return callback


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Never interrupted. Not to be changed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return trained(out=out), out


def kept(network):
    return [np.asarray(mask) for mask in jax.tree.leaves(network.masks) if mask.ndim]


def test_the_phases_follow_each_other_in_one_folder(whole):
    found, out = whole
    lines = read_metrics(out)
    assert found.metrics == lines and found.steps == 16
    assert {line["step"]: line["phase"] for line in lines} == {
        step: "pretrain" if step <= 6 else "prune" if step <= 13 else "finetune" for step in range(1, 17)
    }
    assert int(found.state.step) == 3  # within the phase
    with Checkpoints(out / "checkpoints", read_only=True) as checkpoints:
        assert {6, 13, 16} <= set(checkpoints.steps())
        about = checkpoints.metadata(13)
        assert (about["phase"], about["phase_name"], about["phase_begin"], about["finished"]) == (1, "prune", 6, False)
        assert checkpoints.metadata()["finished"] and checkpoints.best_step() == checkpoints.best_step(2) > 13
        assert checkpoints.best_step(0) <= 6 < checkpoints.best_step(1) <= 13
        pruned, last = checkpoints.restore_network(13), checkpoints.restore_network(16)
        best = checkpoints.restore_network(checkpoints.best_step(0))
    assert float(bap.measured_sparsity(pruned.masks)) == pytest.approx(0.5, abs=0.01)
    for mine, theirs in zip(kept(last), kept(pruned), strict=True):  # a dense phase keeps what it is given
        np.testing.assert_array_equal(mine, theirs)
    assert not np.array_equal(last.params["out"], pruned.params["out"]) and (best.params["out"] != 0).all()


def test_a_run_that_stops_in_every_phase_ends_the_same(whole, left, tmp_path):
    """Before the first checkpoint, before the end of a phase is saved, after it, within phases, before the end of all."""
    for step in (2, 6, 7, 10, 13, 14, 16):
        with pytest.raises(Stop):
            trained(out=tmp_path / "run", resume=True, callback=stopping_at(step))
    found = trained(out=tmp_path / "run", resume=True)
    assert found.resumed_from == 14 and found.steps == 16
    left(tmp_path / "run").same_as(left(whole[1]))
    assert trained(out=tmp_path / "run", resume=True).resumed_from == 16
    left(tmp_path / "run").same_as(left(whole[1]))


@pytest.mark.soak
@pytest.mark.timeout(1800)  # it starts a dozen processes
def test_a_run_that_was_killed_often_in_every_phase(left, environment, python, tmp_path):
    chance, run, landed = random.Random(0), tmp_path / "run", set()
    for _ in range(9):
        process = subprocess.Popen(
            [python, str(HELPERS / "fit_in_steps.py"), "10", str(run)], env=environment, stdout=subprocess.PIPE, text=True
        )
        said = [process.stdout.readline() for _ in range(chance.randrange(1, 40))]
        time.sleep(0.1 * chance.random())
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL and any(said):
            landed.add(next(line for line in reversed(said) if line))
        process.stdout.close()
    assert {0 if step <= 60 else 1 if step <= 130 else 2 for step in map(int, landed)} == {0, 1, 2}
    trained(phases(10), out=run, resume=True)
    trained(phases(10), out=tmp_path / "whole")
    left(run).same_as(left(tmp_path / "whole"))


def test_in_memory_it_ends_the_same(whole):
    found = trained()
    assert found.folder is None
    for mine, theirs in zip(jax.tree.leaves(found.state), jax.tree.leaves(whole[0].state), strict=True):
        if not jnp.issubdtype(mine.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(mine, theirs)
    assert [line for line in found.metrics if "loss" in line][-1]["loss"] == whole[0].metrics[-2]["loss"]
    for mine, theirs in ((found.network, whole[0].network), (found.best, whole[0].best)):
        np.testing.assert_array_equal(mine.params["out"], theirs.params["out"])


def test_one_phase_is_what_it_is_without_phases():
    alone = trained(PHASES[0].slots, steps=6)
    first = trained(PHASES[:1])
    np.testing.assert_array_equal(alone.network.params["hidden"], first.network.params["hidden"])


def test_another_run_is_refused_in_its_folder(whole):
    with pytest.raises(SettingError, match="resume"):
        trained(out=whole[1])
    with pytest.raises(SettingError, match=r"objects.phases.2.steps|objects.phases"):
        trained((*PHASES[:2], PHASES[2]._replace(length=Length(steps=2))), out=whole[1], resume=True)


def test_a_phase_begins_with_what_it_names(tmp_path):
    """The lottery ticket: the start's weights, the masks of the phase before. What a phase is told of, by name."""
    told = []

    def keep_largest(info, network, batches, key):
        assert next(iter(batches)).labels.shape == (8,)
        told.append({name: np.asarray(found.params["out"]) for name, found in info.networks.items()})
        return magnitude_masks(network.params, 0.5)

    still = slots(bap.pruners.dense(), rate=0.0)
    phases = (
        Phase("dense", PHASES[0].slots, Length(steps=3)),
        Phase("choose", still, Length(steps=1), score=keep_largest),
        Phase("rewind", still, Length(steps=1), weights="start"),
    )
    params, _ = MODEL.init(jax.random.key(7), jnp.zeros((1, 4, 4, 1)))
    start = bap.Network(params, full_masks(params), {})
    found = trained(phases, start=start, out=tmp_path / "run")
    assert told[0].keys() == {"start", "dense"}
    np.testing.assert_array_equal(told[0]["start"], start.params["out"])
    masks = magnitude_masks({"out": told[0]["dense"]}, 0.5)["out"]
    np.testing.assert_array_equal(found.network.masks["out"], masks)
    np.testing.assert_array_equal(found.network.params["out"], np.where(masks, start.params["out"], 0))


def test_a_phase_may_end_itself(tmp_path):
    phases = (PHASES[0]._replace(length=Length(epochs=9), until=lambda prune: True), PHASES[2])
    seen = []
    found = trained(phases, out=tmp_path / "run", callback=lambda done, total, metrics: seen.append((done, total)))
    assert found.steps == 6 and seen[:4] == [(1, 30), (2, 30), (3, 6), (4, 6)]
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.metadata(3)["phase_ended"] and checkpoints.metadata(6)["phase_begin"] == 3


def test_a_phase_ends_when_validation_is_no_better_for_as_long_as_it_has_patience(left, tmp_path):
    """Its loss per epoch stands in the lines; a stop between epochs, or at the end of one, forgets nothing of the wait."""
    waiting = (PHASES[0]._replace(slots=slots(bap.pruners.dense(), rate=0.5), length=Length(epochs=40), patience=2), PHASES[2])
    found = trained(waiting, out=tmp_path / "whole")
    losses = [line["validation_clean_loss"] for line in found.metrics if "validation_clean_loss" in line]
    steps = [line["step"] for line in found.metrics if "validation_clean_loss" in line]
    assert steps == list(range(3, 3 * len(steps) + 1, 3)) and found.steps == steps[-1] + 3 < 120
    best = int(np.argmin(losses))
    assert best == len(losses) - 3 and min(losses[best:]) == losses[best]
    with Checkpoints(tmp_path / "whole" / "checkpoints", read_only=True) as checkpoints:
        about = checkpoints.metadata(steps[-1])
        assert about["phase_ended"] and (about["best_loss"], about["waited"]) == (losses[best], 2)
    for stop in (steps[best] + 1, steps[best] + 4, steps[-1], steps[-1] + 1):
        with pytest.raises(Stop):
            trained(waiting, out=tmp_path / "run", resume=True, callback=stopping_at(stop))
    trained(waiting, out=tmp_path / "run", resume=True)
    left(tmp_path / "run").same_as(left(tmp_path / "whole"))


def test_what_is_not_settled_is_not_waited_for():
    late = bap.pruners.dense()._replace(settled=lambda step, state: step > 9)
    phase = Phase("one", slots(late, rate=0.0), Length(epochs=9), patience=1)  # every epoch like the one before
    assert trained((phase,)).steps == 15


def test_a_pruner_observes_its_validation_and_only_a_settled_network_is_the_best():
    seen = []

    def observe(state, measures):
        seen.append(measures)
        return state

    pruner = bap.pruners.dense()._replace(observe=observe, settled=lambda step, state: step == 2)
    found = trained(slots(pruner), steps=3)
    assert len(seen) == 3 and {"loss", "validation_mean", "validation_accuracy_0", "validation_loss"} <= seen[0].keys()
    assert found.best.about["step"] == 2
    never = (Phase("one", slots(pruner._replace(settled=lambda step, state: False)), Length(steps=1)), PHASES[1])
    with pytest.raises(SettingError, match="last: no validated network of one was as sparse"):
        trained(never)


@pytest.mark.parametrize(
    ("phases", "told"),
    [
        ((), "phases"),
        ((PHASES[0], PHASES[0]), "name of a phase"),
        ((PHASES[0]._replace(name="start"),), "name of a phase"),
        ((PHASES[0]._replace(length=None),), "length of the phase pretrain"),
        ((PHASES[0]._replace(length=Length(1, 1)),), "length of the phase pretrain"),
        ((PHASES[0]._replace(weights="first"),), "weights of the phase pretrain"),
        ((PHASES[0]._replace(slots={"optimiser": 1}),), "slot of the phase pretrain"),
        ((PHASES[0]._replace(slots={"optimizer": optax.sgd(0.1)}),), "pruner of the phase pretrain"),
        ((PHASES[0]._replace(slots={"pruner": ("dense", {"size": 3})}),), "slots of the phase pretrain"),
        ((PHASES[0]._replace(slots=lambda info: 3),), "slots of the phase pretrain"),
    ],
)
def test_phases_that_make_no_sense_are_refused(phases, told):
    with pytest.raises(SettingError, match=f"^{told} = "):
        trained(phases)


def test_slots_by_name_and_as_objects():
    named = {
        "optimizer": optax.adam(0.1),
        "pruner": ("magnitude", {"final_sparsity": 0.5, "ramp_end": 3 / 7, "frequency": 2}),
        "budget": ("uniform", {"epsilon": "0.1", "attack_steps": 1}),
        "loss": lambda info: bap.losses.mix(),
    }
    found = trained((Phase("prune", named, Length(steps=7)),))
    made = trained((PHASES[1]._replace(weights="last"),))
    np.testing.assert_allclose(found.network.params["out"], made.network.params["out"], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found.network.masks["out"], made.network.masks["out"])
