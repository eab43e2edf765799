"""Pruners that find their masks before the first step: in a first phase and a later one, over a stop, on what budget makes."""

import jax
import numpy as np
import pytest

import bap_jax as bap
from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import full_masks
from bap_jax.pruners.saliency import adversarial_saliency, saliency_masks
from bap_jax.runs.datasets import load_data
from bap_jax.runs.loop import train
from bap_jax.runs.restore import restore_checkpoint
from bap_jax.runs.run import prepare
from bap_jax.runs.scoring import scoring_of
from bap_jax.runs.settings import Settings
from bap_jax.types import Network

SMALL = {
    "model.hidden": (12,),
    "limit": 64,
    "batch_size": 16,
    "steps": 4,
    "final_sparsity": 0.5,
    "validation_limit": 16,
    "validations": 1,
    "validation_steps": 1,
    "validation_epsilon": "0.1",
    "attack.num_steps": 1,
    "log_every": 1,
}
SPLITS = load_data(Settings(**SMALL))


def test_mad_is_its_saliency_on_the_examples_of_its_budget():
    """Of none these are the batches themselves; the saliency is averaged over as many as are counted."""
    settings = Settings(**SMALL | {"pruner": "mad", "pruner.batches": 2, "pruner.mask_steps": 3, "budget": "none"})
    run = prepare(settings, SPLITS, 1)
    params, statistics = run.model.init(jax.random.key(0), run.example)
    network = Network(params, full_masks(params), statistics)

    def found(settings):
        batches = run.batches(0, 0, 4)
        return jax.tree.leaves(scoring_of(settings)(run.info(), network, batches, jax.random.key(1)))

    def saliency(batch):
        return adversarial_saliency(run.model.apply, network, batch.images, batch.labels, batch.weight, num_steps=3)

    scores = [jax.jit(saliency)(batch) for batch in run.batches(0, 0, 2)]
    expected = saliency_masks(jax.tree.map(lambda *leaves: sum(leaves), *scores), 0.5)
    for mine, theirs in zip(found(settings), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    attacked = found(settings.changed(budget="uniform", epsilon=0.3, attack="fgsm"))
    assert any((mine != theirs).any() for mine, theirs in zip(attacked, jax.tree.leaves(expected), strict=True))
    assert scoring_of(settings.changed(pruner="fixed")) is None


def test_filters_go_whole_as_many_as_asked_for_and_a_stop_changes_nothing(tmp_path):
    class Stop(Exception):
        pass

    def stop(done, total, line):
        if done == 3:
            raise Stop

    own = {"method": "sensitive_filters", "pruner.batches": 1, "model.hidden": (12, 8), "optimizer": "adam"}
    settings = Settings(**SMALL | own | {"budget": "uniform", "budget.epsilon": 0.1})
    with pytest.raises(Stop):
        train(settings, tmp_path / "stopped", splits=SPLITS, save_seconds=0.0, progress=stop)
    for name in ("whole", "stopped"):
        train(settings, tmp_path / name, splits=SPLITS, save_seconds=0.0, resume=True)
    found, other = (restore_checkpoint(tmp_path / name, "last")[0] for name in ("whole", "stopped"))
    for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    kept = {len(filters): filters for filters in (mask.any(0) for mask in jax.tree.leaves(found.masks) if mask.ndim)}
    assert sorted(kept) == [8, 10, 12] and kept[10].all()  # logits stay
    assert int(kept[8].sum() + kept[12].sum()) == pytest.approx(10, abs=1) and kept[8].any() and kept[12].any()


def test_a_first_phase_is_scored_too_and_begins_with_the_masks_that_it_is_given(tmp_path):
    own = {"pruner": "mad", "pruner.batches": 1, "pruner.mask_steps": 1, "budget": "none"}
    for name, more in (("new", {"final_sparsity": 0.3}), ("on", {"init_from": str(tmp_path / "new")})):
        train(Settings(**SMALL | own | more), tmp_path / name, splits=SPLITS)
    first, second = (restore_checkpoint(tmp_path / name, "last")[0].masks for name in ("new", "on"))
    assert float(bap.measured_sparsity(first)) == pytest.approx(0.3, abs=0.02)
    assert float(bap.measured_sparsity(second)) == pytest.approx(0.5, abs=0.02)
    for mine, theirs in zip(jax.tree.leaves(second), jax.tree.leaves(first), strict=True):
        assert not (np.asarray(mine) & ~np.asarray(theirs)).any()


def test_a_phase_of_objects_may_begin_with_a_score():
    from phases_for_tests import MODEL, OPTIONS, slots
    from plugins_for_tests import blobs

    def keep_largest(info, network, batches, key):
        return bap.mathematics.masks.magnitude_masks(network.params, 0.5)

    phase = bap.Phase("train", slots(bap.pruners.fixed()), bap.Length(steps=2), score=keep_largest)
    found = bap.runs.fit(MODEL, (phase,), blobs(), options=OPTIONS)
    assert float(bap.measured_sparsity(found.network.masks)) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("wrong", [{"pruner.batches": 0}, {"pruner.mask_rate": 0.0}])
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong)).replace("_", "-")):
        Settings(**SMALL | {"pruner": "mad"} | wrong).check()
