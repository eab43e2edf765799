"""Projections on structured sparsity against brute force: no other choice of groups is nearer."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import apply_masks, convolutions
from bap_jax.mathematics.structured import structured_masks

KERNEL = np.random.default_rng(0).normal(size=(1, 2, 2, 4)).astype(np.float32)  # 4 filters, 4 columns


def groups_of(shape, structure):
    """Every group as the flat indices of its weights."""
    index = np.arange(np.prod(shape)).reshape(shape)
    if structure == "irregular":
        return [[i] for i in index.ravel()]
    return list(index.reshape(-1, shape[-1]).T if structure == "filter" else index.reshape(-1, shape[-1]))


@pytest.mark.parametrize(("structure", "sparsity"), [("filter", 0.5), ("filter", 0.75), ("column", 0.5), ("irregular", 0.875)])
def test_the_projection_is_the_nearest_network_of_its_structure(structure, sparsity):
    masks = structured_masks({"conv": jnp.asarray(KERNEL), "bias": jnp.ones(4)}, sparsity, structure=structure)
    assert masks["bias"].shape == ()
    groups = groups_of(KERNEL.shape, structure)
    keep = round(len(groups) * (1 - sparsity))
    distances = {}
    for chosen in itertools.combinations(range(len(groups)), keep):
        kept = np.zeros(KERNEL.size, bool)
        kept[np.concatenate([groups[i] for i in chosen])] = True
        distances[chosen] = (np.where(kept, 0, KERNEL.ravel()) ** 2).sum(), kept
    best = min(distances.values(), key=lambda found: found[0])[1]
    np.testing.assert_array_equal(np.ravel(masks["conv"]), best)
    cut = apply_masks({"conv": jnp.asarray(KERNEL), "bias": jnp.ones(4)}, masks)["conv"]
    assert int((np.asarray(cut) != 0).sum()) == keep * len(groups[0])


def test_ties_go_to_the_lower_index_and_tiny_weights_count():
    ones = {"w": jnp.full((2, 5), 1e-30)}
    assert structured_masks(ones, 0.6, structure="filter")["w"][0].tolist() == [True, True, False, False, False]
    tiny = {"w": ones["w"] * jnp.arange(1.0, 6.0)[None]}
    assert structured_masks(tiny, 0.6, structure="filter")["w"][0].tolist() == [False, False, False, True, True]
    assert not structured_masks({"w": jnp.zeros((2, 5))}, 1.0, structure="filter")["w"].any()


def test_a_bound_counts_as_zero_and_is_never_passed():
    kernel = {"w": jnp.array([[9.0, 1.0, 3.0], [1.0, 1.0, 3.0]])}
    bound = {"w": jnp.array([[False, True, True], [True, True, True]])}
    masks = structured_masks(kernel, 2 / 3, structure="filter", within=bound)
    assert masks["w"].tolist() == [[False, False, True], [False, False, True]]
    assert structured_masks(kernel, 0.0, structure="filter", within=bound)["w"].tolist() == bound["w"].tolist()
    one = {"w": jnp.array([[True, False, False]] * 2)}
    assert structured_masks(kernel, 1 / 3, structure="filter", within=one)["w"].tolist() == one["w"].tolist()


def test_only_convolutions_where_asked():
    masks = structured_masks(
        {"conv": jnp.asarray(KERNEL), "fc": jnp.ones((2, 2))}, 0.5, structure="filter", prunable=convolutions
    )
    assert masks["fc"].shape == () and masks["conv"].shape == KERNEL.shape


def test_refusals():
    with pytest.raises(SettingError, match="structure = 'rows'"):
        structured_masks({"w": jnp.ones((2, 2))}, 0.5, structure="rows")
    with pytest.raises(SettingError, match="two dimensions"):
        structured_masks({"w": jnp.ones(2)}, 0.5, structure="filter", prunable=lambda path, leaf: True)
