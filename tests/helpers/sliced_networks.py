"""Zeroing groups of channels, cutting them, and networks whose shapes follow their parameters."""

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.mathematics.masks import leaf_paths
from bap_jax.types import Model, Outputs


def random_tree(tree, seed=0):
    """The same structure with random numbers, all of them positive enough for a variance."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(random.uniform(0.2, 1.0, jnp.shape(leaf)), jnp.float32), tree)


def narrow(layers, width=6):
    """A width for every layer of a network, the later ones a little wider."""
    return {layer: width + place % 3 for place, layer in enumerate(layers)}


def signed(tree, seed=0):
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape) / np.sqrt(leaf.size) * 4, jnp.float32), tree)


def zeroed(tree, which, families, cut):
    """A tree with the entries of the cut groups set to zero."""
    arrays = dict(zip(leaf_paths(tree), map(np.array, jax.tree.leaves(tree)), strict=True))
    for family, out in zip(families, cut, strict=True):
        for piece in family.slices:
            if piece.tree == which:
                np.moveaxis(arrays[piece.path], piece.axis, 0)[piece.indices[out].ravel()] = 0
    return jax.tree.unflatten(jax.tree.structure(tree), [arrays[path] for path in leaf_paths(tree)])


def without(tree, entries):
    """A tree without some entries: {(path, axis): indices}."""
    arrays = dict(zip(leaf_paths(tree), map(np.asarray, jax.tree.leaves(tree)), strict=True))
    for (path, axis), indices in entries.items():
        arrays[path] = np.delete(arrays[path], indices, axis)
    return jax.tree.unflatten(jax.tree.structure(tree), [arrays[path] for path in leaf_paths(tree)])


def convolve(x, kernel, groups=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


def along(vector, x):
    """A vector with one entry per channel, for x [..., C]."""
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


def normalise(x, params, name):
    mean, scale = (along(params[f"{name}_{part}"], x) for part in ("mean", "scale"))
    return (x - mean) * scale


def _norm(name, size):
    return {f"{name}_{part}": (size,) for part in ("mean", "scale")}


def _biased(x, bias):
    return x + along(bias, x)


def _residual(params, x):
    x = jax.nn.relu(normalise(convolve(x, params["stem"]), params, "bn"))
    x = jax.nn.relu(x + convolve(jax.nn.relu(_biased(convolve(x, params["conv1"]), params["bias1"])), params["conv2"]))
    return jnp.mean(x, (1, 2)) @ params["head"]


def _flattened(params, x):
    x = jax.nn.relu(convolve(x, params["conv"]))
    x = jnp.max(x.reshape(len(x), 2, 2, 2, 2, -1), (2, 4))
    return jnp.tanh(_biased(x.reshape(len(x), -1) @ params["dense"], params["bias"])) @ params["head"]


def _concatenated(params, x):
    one, other = jax.nn.relu(convolve(x, params["one"])), jax.nn.sigmoid(convolve(x, params["other"]))
    both = jnp.concatenate([one, x, other], -1)
    return jnp.mean(jax.nn.relu(convolve(both, params["mix"])), (1, 2)) @ params["head"]


def _depthwise(params, x):
    x = jax.nn.relu(convolve(x, params["wide"]))
    x = jax.nn.relu(_biased(convolve(x, params["depthwise"], groups=x.shape[-1]), params["bias"]))
    return jnp.mean(x, (1, 2)) @ params["head"]


def _grouped(params, x):
    x = jax.nn.relu(convolve(x, params["wide"]))
    x = jax.nn.relu(convolve(x, params["grouped"], groups=2))
    return jnp.mean(x, (1, 2)) @ params["head"]


def _gated(params, x):
    x = convolve(x, params["conv"])
    half = x.shape[-1] // 2
    return jnp.mean(x[..., :half] * jax.nn.sigmoid(x[..., half:]), (1, 2)) @ params["head"]


# Each reads its sizes off its parameters: cut to shapes that fit, it runs; to any others, it does not.
NETWORKS = {
    "residual": (
        _residual,
        {"stem": (3, 3, 2, 4), **_norm("bn", 4), "conv1": (3, 3, 4, 3), "bias1": (3,), "conv2": (3, 3, 3, 4), "head": (4, 3)},
        [(4, 6), (3, 3)],
    ),
    "flattened": (_flattened, {"conv": (3, 3, 2, 3), "dense": (12, 5), "bias": (5,), "head": (5, 3)}, [(3, 2), (5, 3)]),
    "concatenated": (
        _concatenated,
        {"one": (3, 3, 2, 3), "other": (1, 1, 2, 4), "mix": (3, 3, 9, 3), "head": (3, 3)},
        [(3, 2), (4, 2), (3, 2)],
    ),
    "depthwise": (
        _depthwise,
        {"wide": (3, 3, 2, 4), "depthwise": (3, 3, 1, 8), "bias": (8,), "head": (8, 3)},
        [(4, 4)],
    ),
    "grouped": (_grouped, {"wide": (3, 3, 2, 6), "grouped": (3, 3, 3, 4), "head": (4, 3)}, [(3, 2), (2, 2)]),
    "gated": (_gated, {"conv": (3, 3, 2, 6), "head": (3, 3)}, [(3, 2)]),
}
IMAGES = np.random.default_rng(7).normal(size=(2, 4, 4, 2)).astype(np.float32)


def as_model(function):
    def apply(params, model_state, images, *, train, key=None):
        return Outputs(function(params, images), {}), model_state

    return Model(lambda key, images: ({}, {}), apply)


def parameters(shapes, seed=0):
    random = np.random.default_rng(seed)
    return {name: jnp.asarray(random.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
