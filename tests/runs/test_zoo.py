"""The zoo: its files are those of its cards, and a network of it does again what its card says."""

import hashlib

import numpy as np
import pytest

import bap_jax as bap
from bap_jax.data import digits
from bap_jax.errors import SettingError
from bap_jax.runs import zoo
from tools.zoo import LARGEST, RECIPES


@pytest.mark.parametrize("name", zoo.names())
def test_cards_and_files_belong_together(name):
    card, folder = zoo.card(name), zoo._folder()
    content = (folder / f"{name}{zoo.NETWORK}").read_bytes()
    assert (card.name, card.num_bytes, card.sha256) == (name, len(content), hashlib.sha256(content).hexdigest())
    assert card.train == f"bap train {RECIPES[name].train} --out RUN"
    assert card.evaluate == f"bap evaluate RUN {RECIPES[name].evaluate}"
    assert not any(check["status"] == "failed" for check in card.checks) and len(card.checks) > 10
    assert card.versions["jax"] and "/" not in str(card.versions.get("executable", ""))
    net = zoo.load(name)
    sizes = [(mask.sum(), mask.size) for mask in map(np.asarray, _leaves(net.masks)) if mask.ndim >= 2]
    kept = sum(one for one, _ in sizes) / sum(size for _, size in sizes)
    assert 1 - kept == pytest.approx(card.sparsity, abs=0.02)
    assert zoo.FOLDER not in str(net.about["card"])


def _leaves(tree):
    import jax

    return jax.tree.leaves(tree)


def test_a_network_does_what_its_card_says():
    card = zoo.card("digits-mlp-bap-90")
    net = bap.load("digits-mlp-bap-90")
    told = {(row["attack"], row["epsilon"]): row["accuracy"] for row in card.accuracies}
    radii = sorted({epsilon for _, epsilon in told if epsilon})
    plan = {"attacks": "pgd", "norm": "linf", "epsilon": radii, "num_steps": 20, "controls": False}
    found = net.evaluate(**plan)
    few = 2.5 / found.num_examples  # another machine may round a logit otherwise
    assert found.num_examples == 359 and found.clean_accuracy == pytest.approx(card.clean, abs=few)
    for epsilon, accuracy in zip(radii, found.robust_accuracy["pgd-20-linf"], strict=True):
        assert accuracy == pytest.approx(told["pgd-20", epsilon], abs=few)
    images, labels = digits().test.read(np.arange(50))
    assert np.mean(np.asarray(net(images)).argmax(1) == labels) > 0.8


def test_names_that_are_none_and_files_that_were_changed(tmp_path, monkeypatch, bap, refused):
    for given in (("zoo", "show", "nobody"),):
        assert "one of digits-mlp-bap-90" in refused(*given)
    with pytest.raises(SettingError, match="zoo"):
        zoo.load("nobody")
    code, output, _ = bap("zoo", "list")
    assert code == 0 and all(name in output for name in zoo.names())
    code, output, _ = bap("zoo", "show", "digits-mlp-clean-90")
    assert code == 0 and "--budget none" in " ".join(output.split()) and "pgd-20 linf" in output
    name = zoo.names()[0]
    for ending in (zoo.NETWORK, zoo.CARD):
        (tmp_path / f"{name}{ending}").write_bytes((zoo._folder() / f"{name}{ending}").read_bytes())
    monkeypatch.setattr(zoo, "_folder", lambda: tmp_path)
    assert zoo.load(name).about["zoo"] == name
    file = tmp_path / f"{name}{zoo.NETWORK}"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(SettingError, match="its card is of"):
        zoo.load(name)


def test_the_zoo_is_small():
    assert sum(path.stat().st_size for path in zoo._folder().iterdir()) < LARGEST
    assert {"digits-mlp-clean-90", "digits-mlp-uniform-90", "digits-mlp-bap-90"} <= set(zoo.names()) <= RECIPES.keys()
