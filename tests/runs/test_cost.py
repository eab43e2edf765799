"""Passes per image are those that a step makes: backward ones to the number, forward ones but for what the compiler drops."""

import jax
import jax.numpy as jnp
import pytest
from told import told

from bap_jax.evaluation import Passes, count_passes
from bap_jax.report.tables import cost_table
from bap_jax.runs.cost import NOTHING, cost_of, mean_passes, step_passes, weighted
from bap_jax.runs.recipe import recipe_of
from bap_jax.runs.report_inputs import rows_of
from bap_jax.runs.settings import Settings
from bap_jax.types import Batch, Outputs

B, D, K = 4, 6, 3
WEIGHTS = jax.random.normal(jax.random.key(0), (D, K))
IMAGES = jax.random.uniform(jax.random.key(1), (B, D))
BATCH = Batch(IMAGES, jnp.arange(B) % K, jnp.arange(B), jnp.ones(B))
# settings and, of the forward passes, those that a compiled step leaves out: those that judge where PGD and attacks end, and the
# margin's on the image, where the only step of the search makes the same
CASES = {
    "uniform": ({"budget": "uniform", "epsilon": 0.1, "attack_steps": 3}, 1),
    "fgsm": ({"budget": "uniform", "epsilon": 0.1, "attack": "fgsm", "loss": "madry"}, 1),
    "rs-fgsm": ({"budget": "uniform", "epsilon": 0.1, "attack": "rs-fgsm"}, 1),
    "n-fgsm": ({"budget": "uniform", "epsilon": 0.1, "attack": "n-fgsm"}, 1),
    "kl": ({"budget": "uniform", "epsilon": 0.1, "loss": "trades", "attack_steps": 3}, 1),
    "blind": ({"attack_steps": 3}, 3),
    "blind, two steps, linear": ({"attack": "n-fgsm", "search_steps": 2, "halving": "linear"}, 2),
    "blind, L1": ({"norm": "l1", "epsilon_max": 3.0, "attack": "rs-fgsm", "search_steps": 2}, 2),
    "rescaled": ({"example": "rescaled", "adversarial_weight": 1.0}, 2),
    "mma": ({"budget": "mma", "attack_steps": 3}, 1),
    "cat": ({"budget": "cat", "attack_steps": 3}, 1),
    "fat": ({"budget": "fat", "attack_steps": 3}, 1),
    "none": ({"budget": "none"}, 0),
}


def counted(settings):
    """As they are asked for, by perturbation and loss."""
    recipe = recipe_of(settings, told(B, num_steps=2)._replace(image_shape=(D,), num_classes=K))
    info = told(B, num_steps=2)._replace(image_shape=(D,), num_classes=K)
    keys = jax.random.split(jax.random.key(2), B)

    def perturb(logits_fn, keys, images, labels):
        batch = BATCH._replace(images=images)
        return recipe.budget.perturb(keys, logits_fn, batch, recipe.budget.init(info), step=jnp.int32(0), gather=lambda x: x)[0]

    adversarial, made = count_passes(perturb, lambda images: images @ WEIGHTS, keys, IMAGES, BATCH.labels)
    looked_at = []

    def forward(*images):
        looked_at.extend(images)
        return tuple(Outputs(one @ WEIGHTS, {}) for one in images)

    mean = lambda values, weight: jnp.sum(values * weight) / jnp.sum(weight)  # noqa: E731
    state = recipe.loss.init(None, None, info)
    recipe.loss.value(forward, BATCH, adversarial, state, step=jnp.int32(0), mean=mean, gather=lambda x: x)
    return made, len(looked_at)


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_those_of_the_step(name):
    told_of, left_out = CASES[name]
    settings = Settings(**told_of).check()
    search, attack, training = step_passes(settings)
    made, images = counted(settings)
    assert training == Passes(images, images)
    assert made.backward == search.backward + attack.backward
    assert made.forward == search.forward + attack.forward + left_out


def test_a_teacher_looks_too_and_s2ap_takes_a_second_gradient():
    assert step_passes(Settings(budget="none", loss="distill_hsic")).training == Passes(2, 1)
    assert step_passes(Settings(method="s2ap", epsilon=0.1)).training == Passes(2, 2)


def test_of_phases_it_is_the_mean_over_steps():
    """Li20: FGSM at first, then PGD; what its lines say of lengths counts, and without lines what settings say."""
    settings = Settings(method="li20", epsilon=0.1, steps=20)  # 2 steps of 3 + 3, 18 of 30 + 3
    assert mean_passes(settings) == {"search": 0, "attack": pytest.approx((2 * 3 + 18 * 30) / 20), "training": 3}
    lines = [{"step": 1, "phase": "prune"}, {"step": 5, "phase": "prune"}, {"step": 10, "phase": "finetune"}]
    assert mean_passes(settings, lines)["attack"] == pytest.approx((5 * 3 + 5 * 30) / 10)
    assert cost_of(settings, lines)["passes"] == pytest.approx((5 * 6 + 5 * 33) / 10)


def test_what_settings_do_not_say_is_not_counted():
    for settings in (
        Settings(search="deepfool", norm="rms", example="rescaled"),
        Settings(budget="iaat"),
        Settings(attack="plugins_for_tests:anything"),
        Settings(budget="plugins_for_tests:rings"),
    ):
        assert step_passes(settings) is None
    assert step_passes(Settings(budget="none"))[:2] == (NOTHING, NOTHING) and weighted(Passes(1, 1)) == 3


def test_cost_is_in_the_rows_and_in_the_report():
    lines = [{"step": 10, "time_per_step": 1.0}, {"step": 20, "time_per_step": 0.1}, {"step": 25, "time_per_step": 0.1}]
    lines[1:1] = [{"step": 10, "mask_distance": 0.3}, {"step": 20, "mask_distance": 0.1}]
    lines.append({"step": 25, "late_mask_distance": 0.05, "peak_bytes_process": 2e9})
    cost = cost_of(Settings(budget="uniform", epsilon=0.1, attack="n-fgsm", batch_size=50), lines)
    assert cost["passes"] == 9 and cost["passes_attack"] == 3 and cost["passes_training"] == 6
    assert (cost["mask_distance"], cost["late_mask_distance"]) == (0.2, 0.05)
    assert (cost["peak_bytes_process"], cost["peak_bytes_device"]) == (2e9, None)
    assert cost["train_seconds"] == pytest.approx(11.5) and cost["train_images_per_second"] == 500
    assert set(cost_of(Settings(), []).values()) == {None}
    row = {"data": "d", "model": "m", "arm": "a", "process": "p", "sparsity": 0.9, "seed": 0, "norm": "", "split": "test"}
    row |= {"attack": "clean", "epsilon": 0.0, "accuracy": 0.5, "num_examples": 5}
    rows = rows_of([{"run": "x", "rows": [row], "cost": cost}])
    assert rows[0] == row | cost
    table = cost_table(rows)
    assert table.columns[1:3] == ("passes per image", "of the search") and table.rows[0][1].text == "9"
    assert cost_table([row]) is None and table.rows[0][5].text == "11.5"
    assert table.columns[-3:] == ("mask distance, per epoch", "mask distance, last tenth", "peak bytes, process")
    assert [cell.text for cell in table.rows[0][-3:]] == ["0.2", "0.05", "2,000,000,000"]
