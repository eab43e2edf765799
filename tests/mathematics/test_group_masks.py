"""Structured masks against a search by hand: which structures are kept, how many, and what a mask covers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.mathematics.channels import Family, Groups, Layer, Slice
from bap_jax.mathematics.group_masks import covered, group_masks, structures_pruned

RANDOM = np.random.default_rng(0)
PARAMS = {
    "conv": jnp.asarray(RANDOM.normal(size=(3, 3, 4, 8)), jnp.float32),  # HWIO
    "scale": jnp.asarray(RANDOM.normal(size=8), jnp.float32),
    "bias": jnp.zeros(8),
    "dense": jnp.asarray(RANDOM.normal(size=(5, 8)) * 3, jnp.float32),  # [out, in]
    "own": jnp.zeros(5),
    "head": jnp.ones((5, 3)),
}
GROUPS = Groups(
    (
        Family(
            "conv",
            (
                Slice("params", "conv", 3, np.arange(8)[:, None], "makes"),
                Slice("params", "scale", 0, np.arange(8)[:, None], "scales"),
                Slice("params", "bias", 0, np.arange(8)[:, None], "follows"),
                Slice("params", "dense", 1, np.arange(8)[:, None], "reads"),
            ),
        ),
        Family(
            "dense",
            (
                Slice("params", "dense", 0, np.array([[0], [1], [2], [4]]), "makes"),  # one of them is needed elsewhere
                Slice("params", "head", 0, np.array([[0], [1], [2], [4]]), "reads"),
            ),
        ),
    ),
    (
        Layer("conv", 3, 2, ("bias",), ("scale",), free_inputs=False),
        Layer("dense", 0, 1, ("own",)),
        Layer("head", 1, 0, free_outputs=False),
    ),
)
MATRICES = {"conv": np.asarray(PARAMS["conv"]).transpose(3, 2, 0, 1), "dense": np.asarray(PARAMS["dense"])[:, :, None, None]}


def masks_of(sparsity, groups=GROUPS, params=PARAMS, **options):
    return jax.jit(lambda params: group_masks(params, sparsity, groups, **options))(params)


def matrix(masks, name):
    """A layer's mask as [out, in, h, w]."""
    mask = np.asarray(masks[name])
    return mask.transpose(3, 2, 0, 1) if name == "conv" else mask[:, :, None, None]


SUMMED = {"filter": (1, 2, 3), "row": (1, 2, 3), "channel": (0, 2, 3), "kernel": (2, 3), "column": (0,)}
CRITERIA = {
    "l1": lambda w, axes: np.abs(w).sum(axes),
    "l2": lambda w, axes: np.sqrt((w**2).sum(axes)),
    "mean": lambda w, axes: np.abs(w).mean(axes),
}


@pytest.mark.parametrize(
    ("structure", "criterion"), [*((structure, "l1") for structure in SUMMED), ("kernel", "l2"), ("kernel", "mean")]
)
def test_every_layer_keeps_the_structures_of_highest_score(structure, criterion):
    masks = masks_of(0.4, structure=structure, criterion=criterion)
    for name in ("dense",) if structure == "channel" else ("conv", "dense"):
        scores = CRITERIA[criterion](MATRICES[name], SUMMED[structure])
        kept = matrix(masks, name)
        any_kept, all_kept = kept.any(SUMMED[structure]), kept.all(SUMMED[structure])
        np.testing.assert_array_equal(any_kept, all_kept)  # whole structures
        assert all_kept.sum() == round(scores.size * 0.6)
        assert scores[all_kept].min() >= scores[~all_kept].max()
    if structure == "channel":
        assert masks["conv"].ndim == 0  # its inputs are those of the image
    assert (masks["head"].ndim == 2) == (structure in ("channel", "kernel", "column"))
    assert masks["bias"].ndim == (structure == "filter")


def test_a_filter_takes_its_bias_and_its_batch_norm_along():
    masks = masks_of(0.5)
    filters = matrix(masks, "conv").all((1, 2, 3))
    np.testing.assert_array_equal(masks["scale"], filters)
    np.testing.assert_array_equal(masks["bias"], filters)
    np.testing.assert_array_equal(masks["own"], masks["dense"].all(1))
    scaled = Groups((), GROUPS.layers[:1])
    kept = masks_of(0.5, scaled, criterion="batch_norm")["scale"]
    assert np.abs(PARAMS["scale"])[kept].min() > np.abs(PARAMS["scale"])[~kept].max()


def test_a_coupled_group_goes_everywhere_or_nowhere():
    masks = masks_of(0.5, scope="coupled")
    channels = matrix(masks, "conv").all((1, 2, 3))
    assert channels.sum() == 4
    scores = np.abs(MATRICES["conv"]).sum((1, 2, 3))
    assert scores[channels].min() > scores[~channels].max()
    np.testing.assert_array_equal(masks["scale"], channels)
    rows = np.asarray(masks["head"]).all(1)
    assert rows[3] and rows.sum() == 3  # what is in no family stays
    np.testing.assert_array_equal(masks["dense"], rows[:, None] & channels[None, :])
    np.testing.assert_array_equal(masks["bias"], channels)
    assert masks["own"].ndim == 0


@pytest.mark.parametrize("scope", ["layer", "coupled"])
def test_all_together_compete_but_for_the_last_of_each(scope):
    """The dense layer's weights are so large that it would keep all, and the convolution nothing."""
    options = {"scope": scope, "ranking": "global", "criterion": "mean"}
    for sparsity, expected in ((0.0, (8, 5)), (0.5, None), (0.9, (1, 1)), (1.0, (1, 1))):
        masks = masks_of(sparsity, **options)
        made = matrix(masks, "conv").any((1, 2, 3)).sum(), np.asarray(masks["dense"]).any(1).sum()
        total = 13 if scope == "layer" else 12
        assert sum(made) - (scope == "coupled") == max(round(total * (1 - sparsity)), 2)
        assert expected is None or made == (expected[0], expected[1] + (scope == "coupled" and sparsity > 0))
    nothing = masks_of(1.0, keep_one=False, **options)
    assert not np.asarray(nothing["conv"]).any()


def test_counts_round_half_to_even_also_when_traced():
    layers = Groups((), GROUPS.layers[:2])
    traced = jax.jit(lambda sparsity: group_masks(PARAMS, sparsity, layers, keep_one=False))
    for sparsity in (0.1, 0.3, 0.5, 0.7, 0.9):
        for masks in (traced(jnp.float32(sparsity)), group_masks(PARAMS, sparsity, layers, keep_one=False)):
            assert int(masks["scale"].sum()) == round(8 * (1 - sparsity)) and int(masks["own"].sum()) == round(5 * (1 - sparsity))


def test_ties_go_to_the_earlier_structure():
    groups = Groups((), (Layer("w", 1, 0), Layer("v", 1, 0)))
    params = {"v": jnp.ones((2, 4)), "w": jnp.ones((2, 4))}
    masks = masks_of(0.5, groups, params)
    assert masks["w"][0].tolist() == masks["v"][0].tolist() == [True, True, False, False]
    masks = masks_of(0.5, groups, params, ranking="global")
    assert masks["w"][0].tolist() == [True] * 3 + [False] and masks["v"][0].tolist() == [True] + [False] * 3


def test_two_of_four_along_the_inputs_in_torchs_order():
    masks = masks_of(0.5, structure="2:4")
    for name in ("conv", "dense"):
        flat, kept = MATRICES[name].reshape(len(MATRICES[name]), -1), matrix(masks, name).reshape(len(MATRICES[name]), -1)
        fours, kept = np.abs(flat).reshape(-1, 4), kept.reshape(-1, 4)
        assert np.all(kept.sum(1) == 2)
        np.testing.assert_array_equal(kept, np.argsort(np.argsort(-fours, 1), 1) < 2)
    assert masks["head"].ndim == 0  # five inputs are not fours
    on_the_way = masks_of(0.25, structure="2:4")
    assert np.all(matrix(on_the_way, "dense").reshape(-1, 4).sum(1) == 3)


def test_blocks_and_what_is_left_of_them_at_the_edges():
    masks = masks_of(0.5, structure="block", block=(2, 3))
    kept = np.asarray(masks["dense"])
    blocks = {(r, c): kept[r : r + 2, c : c + 3] for r in range(0, 5, 2) for c in range(0, 8, 3)}
    scores = {place: np.abs(PARAMS["dense"][place[0] : place[0] + 2, place[1] : place[1] + 3]).sum() for place in blocks}
    assert all(block.all() or not block.any() for block in blocks.values())
    chosen = {place for place, block in blocks.items() if block.any()}
    assert chosen == set(sorted(scores, key=scores.get)[-4:])  # 9 blocks, half to even


def test_random_structures_depend_on_the_key_alone_and_keep_within_a_bound():
    options = {"criterion": "random"}
    one = masks_of(0.5, key=jax.random.key(0), **options)
    same = group_masks(jax.tree.map(lambda leaf: leaf + 1, PARAMS), 0.5, GROUPS, key=jax.random.key(0), **options)
    jax.tree.map(np.testing.assert_array_equal, one, same)
    others = [masks_of(0.5, key=jax.random.key(seed), **options) for seed in (1, 2, 3)]
    assert len({tuple(each["scale"].tolist()) for each in others}) > 1
    further = masks_of(0.75, key=jax.random.key(2), within=one, **options)
    assert bool(jnp.all(further["scale"] <= one["scale"])) and int(further["scale"].sum()) == 2
    assert float(structures_pruned(PARAMS, one, GROUPS, structure="filter")) == pytest.approx(1 - 6 / 13)


def test_a_bound_that_keeps_fewer_is_kept_whole_and_cuts_into_structures():
    bound = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), PARAMS)
    bound |= {"dense": jnp.arange(5)[:, None] * jnp.ones((5, 8), int) == 3, "conv": jnp.bool_(True)}
    masks = masks_of(0.2, within=bound)
    np.testing.assert_array_equal(masks["dense"], bound["dense"])
    assert int(masks["scale"].sum()) == 6
    masks = masks_of(0.9, within=bound, ranking="global")
    assert np.asarray(masks["dense"]).any(1).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"structure": "filters"}, "structure = 'filters'"),
        ({"structure": "4:2"}, "structure = '4:2'"),
        ({"structure": "N:M"}, "structure = 'N:M'"),
        ({"scope": "global"}, "scope = 'global'"),
        ({"ranking": "layer"}, "ranking = 'layer'"),
        ({"criterion": "L1"}, "criterion = 'L1'"),
        ({"criterion": "random"}, "key = None"),
        ({"criterion": "batch_norm"}, "no BatchNorm scale follows dense"),
        ({"criterion": "batch_norm", "structure": "kernel"}, "criterion = 'batch_norm'"),
        ({"structure": "2:4", "ranking": "global"}, "ranking = 'global'"),
        ({"structure": "kernel", "scope": "coupled"}, "structure = 'kernel'"),
        ({"structure": "block", "block": (0, 2)}, "block = "),
        ({"within": {"conv": jnp.bool_(True)}}, "masks/"),
    ],
)
def test_what_makes_no_sense_is_refused(options, named):
    with pytest.raises(SettingError, match=named):
        group_masks(PARAMS, 0.5, GROUPS, **options)
    with pytest.raises(SettingError, match="groups"):
        group_masks(PARAMS, 0.5, Groups((), ()))


def test_what_is_covered_is_what_has_an_array():
    for structure, scope in ((*each, "layer") for each in itertools.product(("filter", "row", "channel", "2:4"))):
        masks = jax.eval_shape(lambda structure=structure, scope=scope: masks_of(0.5, structure=structure, scope=scope))
        prunable = covered(GROUPS, structure=structure, scope=scope)
        assert {path: mask.ndim > 0 for path, mask in masks.items()} == {
            path: prunable(path, leaf) for path, leaf in PARAMS.items()
        }
