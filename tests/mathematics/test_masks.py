import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import (
    apply_masks,
    apply_masks_straight_through,
    compression_ratio,
    count_kept,
    count_prunable,
    full_masks,
    layer_sparsity,
    magnitude_masks,
    masks_from_scores,
    measured_sparsity,
)
from bap_jax.mathematics.sparsity import kept_count

PARAMS = {
    "conv": {"kernel": jnp.arange(16.0).reshape(4, 4) - 8, "bias": jnp.ones(4)},
    "dense": {"kernel": 10 + jnp.arange(24.0).reshape(4, 6)},
}


@pytest.mark.parametrize(
    ("scope", "kept"),
    # |conv| = 8 7 ... 0 ... 7, all below every |dense|
    [("layer", (4, 6)), ("global", (0, 10))],
)
def test_layer_and_global_counts(scope, kept):
    masks = magnitude_masks(PARAMS, 0.75, scope=scope)
    assert (int(masks["conv"]["kernel"].sum()), int(masks["dense"]["kernel"].sum())) == kept
    assert masks["conv"]["bias"].shape == () and bool(masks["conv"]["bias"])
    assert jax.tree.structure(masks) == jax.tree.structure(PARAMS)


def test_ties_go_to_the_lower_index():
    masks = magnitude_masks({"kernel": jnp.ones((2, 3))}, 0.5)
    assert masks["kernel"].tolist() == [[True, True, True], [False, False, False]]


def test_erk_counts_add_up():
    masks = magnitude_masks(PARAMS, 0.6, distribution="erk")
    assert int(count_kept(masks)) == int(kept_count(40, 0.6)) == 16
    assert float(layer_sparsity(masks)["conv/kernel"]) < float(layer_sparsity(masks)["dense/kernel"])


@pytest.mark.parametrize("sparsity", [0.0, 0.33, 0.9, 1.0])
@pytest.mark.parametrize("options", [{"scope": "layer"}, {"scope": "global"}, {"distribution": "erk"}])
def test_traced_and_python_sparsity_agree(sparsity, options):
    eager = magnitude_masks(PARAMS, sparsity, **options)
    traced = jax.jit(lambda s: magnitude_masks(PARAMS, s, **options))(jnp.float32(sparsity))
    jax.tree.map(np.testing.assert_array_equal, eager, traced)


def test_masks_under_vmap():
    sparsities = jnp.array([0.0, 0.5, 0.9])
    batched = jax.vmap(lambda s: magnitude_masks(PARAMS, s, scope="global"))(sparsities)
    for i, s in enumerate(sparsities):
        one = magnitude_masks(PARAMS, s, scope="global")
        jax.tree.map(lambda many, single, i=i: np.testing.assert_array_equal(many[i], single), batched, one)


def test_no_sort_in_the_compiled_program():
    text = jax.jit(lambda s: magnitude_masks(PARAMS, s, scope="global")).lower(jnp.float32(0.5)).as_text()
    assert "sort" not in text


def test_a_nan_in_a_pruned_weight_does_not_leak():
    masked = apply_masks({"w": jnp.array([jnp.nan, 2.0])}, {"w": jnp.array([False, True])})
    assert masked["w"].tolist() == [0.0, 2.0]


def test_straight_through_passes_the_gradient_of_pruned_weights():
    weights, masks = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([True, False])}
    through = jax.grad(
        lambda w: jnp.sum(apply_masks_straight_through(w, masks)["w"] ** 2 + apply_masks_straight_through(w, masks)["w"])
    )
    cut = jax.grad(lambda w: jnp.sum(apply_masks(w, masks)["w"] ** 2 + apply_masks(w, masks)["w"]))
    assert through(weights)["w"].tolist() == [7.0, 1.0]
    assert cut(weights)["w"].tolist() == [7.0, 0.0]


def test_measures():
    masks = magnitude_masks(PARAMS, 0.75)
    assert count_prunable(masks) == 40 and int(count_kept(masks)) == 10
    assert float(measured_sparsity(masks)) == 0.75 and float(compression_ratio(masks)) == 4.0
    assert float(measured_sparsity(full_masks(PARAMS))) == 0.0


def test_refusals():
    with pytest.raises(SettingError, match="scope = 'network'"):
        magnitude_masks(PARAMS, 0.5, scope="network")
    with pytest.raises(SettingError, match="distribution"):
        magnitude_masks(PARAMS, 0.5, distribution="lamp")
    with pytest.raises(SettingError, match="distribution"):
        magnitude_masks(PARAMS, 0.5, scope="global", distribution="erk")
    with pytest.raises(SettingError, match="prunable"):
        masks_from_scores({"bias": jnp.ones(3)}, 0.5)
    with pytest.raises(SettingError, match=r"sparsity = -0\.1"):
        magnitude_masks(PARAMS, -0.1)
