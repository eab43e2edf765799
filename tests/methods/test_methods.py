"""Published methods: names, settings and phases; each trains, prunes as far as asked for, and goes on after a stop."""

import inspect
import json

import jax
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.mathematics.quantize import fake_quantize
from bap_jax.methods import METHODS, method_of
from bap_jax.runs import factories
from bap_jax.runs.datasets import load_data
from bap_jax.runs.loop import train
from bap_jax.runs.restore import restore_checkpoint
from bap_jax.runs.settings import General, Settings

SMALL = {
    "model": "networks_for_tests:not_normalised",
    "limit": 80,
    "batch_size": 16,
    "steps": 6,
    "final_sparsity": 0.5,
    "validation_limit": 16,
    "validations": 1,
    "validation_steps": 1,
    "validation_epsilon": "0.1",
    "log_every": 1,
}
SINGLE = ("flying_bird", "flying_bird_plus", "twin_rep", "rst")
SEVERAL = ("s2ap", "radmm", "harp", "robust_bird", "li20", "mad", "adversarial_finetuning", "merkle")
SPLITS = load_data(Settings(**SMALL))


def small(method: str | None, **more) -> Settings:
    """Settings of a few steps; every kernel may be pruned, as in a network without convolutions nothing else can."""
    own = {"pruner.prunable": "kernels"} if method in ("pwoa", "robust_bird") else {}
    return Settings(method=method, **SMALL | {"attack.num_steps": 1} | own | more)


def trained(folder, settings, **more):
    return train(settings, folder, splits=SPLITS, save_seconds=0.0, **more)


def phases_of(folder) -> list[str]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return list(dict.fromkeys(line["phase"] for line in lines))


def weights(folder):
    return jax.tree.leaves(restore_checkpoint(folder, "last")[0])


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_data_that_makes_settings(name):
    method = method_of(name)
    given = {"budget.epsilon": 0.1} if name == "ap" else {}
    settings = Settings(method=name, **given)
    assert method.name == name and method.reference and method.differs.endswith(".")
    assert f"`{name}`" in " ".join(inspect.getsource(General).split())
    for setting, value in (method.settings | given).items():
        assert settings.value(setting) == value
    assert Settings(**settings.check().as_dict()) == settings == Settings().changed(method=name, **given)
    assert [phase.name for phase, _ in settings.in_phases()] == [phase.name for phase in method.phases]
    assert settings.attacks == any(own.row("budget").attacks for _, own in settings.in_phases() or [(None, settings)])


def test_there_is_no_other_method():
    with pytest.raises(SettingError, match="--method = 'hidra': expected one of nt, ap, bap"):
        Settings(method="hidra")


def test_bap_is_what_is_trained_by_without_a_method(tmp_path):
    bare, named = small(None), small("bap")
    differing = {name for name, value in named.as_dict().items() if bare.as_dict()[name] != value}
    assert differing == {"method"}
    for folder, settings in (("bare", bare), ("named", named)):
        trained(tmp_path / folder, settings)
    for one, other in zip(weights(tmp_path / "bare"), weights(tmp_path / "named"), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", [*SINGLE, *SEVERAL])
def test_a_method_prunes_as_far_as_asked_for(name, tmp_path):
    found = trained(tmp_path / "run", small(name))
    assert phases_of(tmp_path / "run") == ([own.name for own in method_of(name).phases] or ["train"])
    moves = name in ("harp", "flying_bird_plus")  # a density that training moves, here for two steps
    assert found.sparsity == pytest.approx(0.5, abs=0.2 if moves else 0.02)


def test_integers_are_finetuned_under_attack(tmp_path):
    settings = small("adversarial_finetuning_int8")
    assert [(own.weight_bits, own.attacks) for _, own in settings.in_phases()] == [(32, False), (8, True)]
    trained(tmp_path / "run", settings)
    for kernel in (leaf for leaf in jax.tree.leaves(restore_checkpoint(tmp_path / "run", "last")[0].params) if leaf.ndim > 1):
        np.testing.assert_array_equal(jax.jit(fake_quantize)(kernel), kernel)


def test_hydra_and_pwoa_from_end_to_end(tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stopping_at(step):
        def stop(done, total, line):
            if done == step:
                raise Stop

        return stop

    hydra = small("hydra", phases={"prune": {"steps": 3}, "finetune": {"budget": "none", "loss": "clean"}})
    found = trained(tmp_path / "whole", hydra)
    assert phases_of(tmp_path / "whole") == ["pretrain", "prune", "finetune"]
    assert found.sparsity == pytest.approx(0.5, abs=0.02)
    with pytest.raises(Stop):
        trained(tmp_path / "stopped", hydra, progress=stopping_at(4))
    trained(tmp_path / "stopped", hydra, resume=True)
    for one, other in zip(weights(tmp_path / "whole"), weights(tmp_path / "stopped"), strict=True):
        np.testing.assert_array_equal(one, other)

    made = []
    for attack in ("pgd", "fgsm"):
        monkeypatch.setattr(factories, attack, lambda *given, **more: made.append(given))
    start = {"init_from": str(tmp_path / "whole"), "init_masks": "none"}
    found = trained(tmp_path / "pwoa", small("pwoa", **start))
    assert phases_of(tmp_path / "pwoa") == ["prune", "finetune"] and not made
    assert found.sparsity == pytest.approx(0.5, abs=0.02)
    assert not small("pwoa", **start).attacks


def test_a_pruner_without_anything_to_prune_is_refused_before_the_first_phase(tmp_path):
    pwoa = Settings(method="pwoa", steps=30, **{"budget.epsilon": 0.1})
    with pytest.raises(SettingError) as error:
        train(pwoa, tmp_path / "run")
    assert "--prune.pruner = 'admm'" in str(error.value) and "--prune.pruner.prunable kernels" in str(error.value)
    assert not (tmp_path / "run").exists()
