"""A kind of budget, attack, pruner, optimiser or loss is one row; what it is told, refuses and is called comes from there."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from told import told

from bap_jax.errors import SettingError
from bap_jax.models import from_linen
from bap_jax.plugins import import_object
from bap_jax.runs.network_options import keywords_of
from bap_jax.runs.options import CAT, MMA, Own, Uniform, radius_options
from bap_jax.runs.parsing import Widths, format_radius, parse_number
from bap_jax.runs.recipe import recipe_of
from bap_jax.runs.settings import Settings
from bap_jax.runs.slots import DEFAULTS, MOVED, SLOTS, holders, old_default, parameters_of
from bap_jax.types import Bounds, Budget

OWN = "plugins_for_tests"


def test_every_row_has_a_factory_a_default_and_leaves_that_are_its_options():
    assert set(DEFAULTS) == set(SLOTS)
    for rows in SLOTS.values():
        for row in rows.values():
            assert callable(import_object("factory", row.factory))
            assert set(row.leaves) <= set(row.options().values())
    for slot, option in MOVED.values():
        assert holders(slot, option), f"{slot}.{option}"


def test_the_settings_that_moved_are_answered_by_their_old_names():
    settings = Settings(budget="uniform", epsilon="8/255", attack_steps=3, optimizer="sgd", momentum=0.5)
    assert settings.budget_options == Uniform(8 / 255) and settings.attack_options.num_steps == 3
    assert (settings.epsilon, settings.attack_steps, settings.momentum, settings.scale) == ("8/255", 3, 0.5, 1.2)
    assert {name: getattr(Settings(), name) for name in MOVED} == {name: old_default(name) for name in MOVED}
    with pytest.raises(AttributeError, match="no attribute 'epsilons'"):
        settings.epsilons  # noqa: B018


def test_another_kind_takes_over_what_means_the_same():
    settings = Settings(epsilon_max=0.5, learning_rate=0.2, label_smoothing=0.0, adversarial_weight=1.0, objective="kl")
    other = settings.changed(budget="mma", optimizer="sgd")
    assert other.budget_options == MMA() and other.optimizer_options.learning_rate == 0.2  # d_max is another thing
    assert other.loss_name == "mma" and other.loss_options.label_smoothing == 0.0
    assert dataclasses.replace(settings, attack="fgsm").attack_options.objective == "kl"
    assert Settings(budget="iaat", epsilon="0.1").changed(budget="uniform").budget_options == Uniform(0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"budget": "uniform", "scale": 1.0},
            "budget.scale = 1.0: expected nothing with --budget uniform; it is an option of cutoff-s",
        ),
        ({"budget.alpha": 1.0}, "budget.alpha = 1.0: expected nothing with --budget cutoff-scale; there is no such option"),
        ({"scale": "much"}, "budget.scale = 'much': expected a number"),
        ({"budget": "uniform", "epsilon": "1/0"}, "budget.epsilon = '1/0': expected a number or a fraction such as 8/255"),
        ({"sede": 1}, "sede = 1: expected a setting of bap train"),
        ({"schema": 1}, "expected 3"),
    ],
)
def test_what_there_is_not_is_refused_by_its_name(given, message):
    with pytest.raises(SettingError) as refused:
        Settings(**given)
    assert message in str(refused.value)


def test_numbers_are_numbers_and_print_as_people_write_them():
    assert radius_options(CAT) == ("epsilon_step", "epsilon_max")
    for text in ("0.3", "8/255", "16/255", "0.031", "1", "0.05"):
        assert format_radius(parse_number("radius", text)) == text
    assert float(format_radius(0.1 + 0.2)) == 0.1 + 0.2


def test_a_factory_of_ones_own_is_called_with_the_info_and_its_options(monkeypatch, plugins):
    monkeypatch.setattr(plugins, "ringed", [])
    settings = Settings(budget=f"{OWN}:rings", **{"budget.radius": 0.125}).check()
    assert settings.budget_options == Own((("radius", 0.125),)) and Settings(**settings.as_dict()) == settings
    info = told(4, num_steps=2)._replace(bounds=Bounds(0.0, 2.0))
    assert isinstance(recipe_of(settings, info).budget, Budget)
    assert plugins.ringed == [(info, 0.125, 1)]
    for option, message in (("radios", r"--budget\.radios = 1: expected an option of .*rings: radius, count"),):
        with pytest.raises(SettingError, match=message):
            Settings(budget=f"{OWN}:rings", **{f"budget.{option}": 1}).check()
    with pytest.raises(SettingError, match=r"--budget\.radius = None: expected a value"):
        Settings(budget=f"{OWN}:rings").check()


def test_a_factory_of_the_first_form_is_given_settings_and_warned_of():
    settings = Settings(budget=f"{OWN}:own_budget", epsilon="0.25").check()
    with pytest.warns(FutureWarning, match=r"own_budget is called as factory\(settings, ramp, bounds\) for one release more"):
        budget = recipe_of(settings, told(4, num_steps=2)).budget
    assert float(budget.init(told(4)).epsilon) == 0.25


def test_a_structured_pruner_finds_the_structures_of_a_network_of_ones_own(plugins):
    model = from_linen(plugins.Beside(3))
    info = told(4, num_steps=4, apply=model.apply)._replace(image_shape=(4, 4, 1), init=model.init)
    params, _ = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 4, 4, 1), np.float32))

    def kept(**options):
        given = {f"pruner.{name}": value for name, value in options.items()}
        settings = Settings(pruner="structured", schedule="one-shot", final_sparsity=0.5, ramp_end=0.0, **given).check()
        pruner = recipe_of(settings, info).pruner
        trained, state = pruner.init(jax.random.key(0), params)
        assert bool(pruner.due(jnp.int32(0), state))
        masks = pruner.update(jax.random.key(1), jnp.int32(0), trained, None, state)[1].masks
        return {name: np.asarray(layer["kernel"]) for name, layer in masks.items()}

    masks = kept(scope="coupled")
    assert {name: mask.any(0).sum() for name, mask in masks.items()} == {"one": 3, "other": 2, "mix": 4, "out": 3}
    np.testing.assert_array_equal(masks["mix"].any(1), np.concatenate([masks[name].any(0) for name in ("one", "other")]))
    assert masks["out"].any(1).sum() == 4
    masks = kept(structure="2:4", criterion="random")
    assert all((masks[name].reshape(-1, 4, masks[name].shape[1]).sum(1) == 2).all() for name in ("one", "other", "out"))
    assert masks["mix"].ndim == 0  # ten inputs are no multiple of four
    with pytest.raises(SettingError, match=r"--pruner\.criterion = 'batch_norm': expected another one: no BatchNorm scale"):
        kept(criterion="batch_norm")
    with pytest.raises(SettingError, match=r"--pruner\.block = \(4,\): expected two positive integers"):
        Settings(pruner="structured", **{"pruner.block": "4"}).check()


def test_widths_of_a_factory_of_ones_own_are_told_by_their_layers():
    settings = Settings(model=f"{OWN}:beside", **{"model.widths": {"one": 3, "mix": 5}}).check()
    assert Settings(**settings.as_dict()) == settings and keywords_of(settings.model_options) == {"widths": {"mix": 5, "one": 3}}
    assert parameters_of("model", import_object("--model", settings.model))["widths"].annotation == Widths | None
