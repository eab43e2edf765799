"""A kind of budget, attack, pruner, optimiser or loss is one row; what it is told, refuses and is called comes from there."""

import dataclasses

import pytest
from told import told

from bap_jax.errors import SettingError
from bap_jax.plugins import import_object
from bap_jax.runs.options import CAT, MMA, Own, Uniform, radius_options
from bap_jax.runs.parsing import format_radius, parse_number
from bap_jax.runs.recipe import recipe_of
from bap_jax.runs.settings import Settings
from bap_jax.runs.slots import DEFAULTS, MOVED, SLOTS, holders, old_default
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
