"""FLOPs against counts by hand, and everything that a forward pass may be wrapped in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.models import build
from bap_jax.models.flops import count_flops

_random = np.random.RandomState(0)


def flops_of(model, image_shape, keep=None, **options):
    """Of a network of this package with all weights 1, or a random share of each kernel."""
    network = build(model, num_classes=10, **options)
    trees = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *image_shape)))
    masks = jax.tree.map(lambda leaf: _random.rand(*leaf.shape) < (keep or 1) if leaf.ndim > 1 else np.ones(leaf.shape), trees)
    params = jax.tree.map(lambda mask: np.asarray(mask, np.float32), masks)
    shape = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    found = count_flops(lambda tree, images: network.apply(*tree, images, train=False)[0].logits, params, shape)
    assert found.uncounted == ()
    return found, params[0]


def count(forward, params, *shape):
    return count_flops(forward, params, jax.ShapeDtypeStruct(shape, jnp.float32))


BY_HAND = {
    "mlp": ((8, 8, 1), 2 * (64 * 256 + 256 * 128 + 128 * 10)),
    "lenet5": ((28, 28, 1), 2 * (28**2 * 32 * 25 + 14**2 * 64 * 25 * 32 + 49 * 64 * 84 + 84 * 10)),
    # stem; four convolutions of 64 channels at 32²; per later stage one that halves, three more, and a shortcut of 1×1
    "resnet18": (
        (32, 32, 3),
        2 * (32**2 * 64 * 27 + 4 * 32**2 * 64 * 576
             + sum(side**2 * c * (9 * c // 2 + 3 * 9 * c + c // 2) for side, c in ((16, 128), (8, 256), (4, 512)))
             + 512 * 10),
    ),
}  # fmt: skip


@pytest.mark.parametrize("conv", ["plain", "fast"])
@pytest.mark.parametrize("name", BY_HAND)
def test_networks_by_hand(name, conv):
    shape, expected = BY_HAND[name]
    found, _ = flops_of(name, shape, conv=conv)
    assert (found.dense, found.sparse) == (expected, expected)


def test_resnet18_has_its_published_size():
    assert flops_of("resnet18", (32, 32, 3))[0].dense / 1e9 == pytest.approx(1.11, abs=0.005)  # 0.56 G multiply-adds


def test_each_kernel_counts_by_its_own_density():
    found, params = flops_of("lenet5", (28, 28, 1), keep=0.3)
    positions = {"conv1": 28**2, "conv2": 14**2, "fc1": 1, "head": 1}
    expected = sum(2 * times * int(np.count_nonzero(params[layer]["kernel"])) for layer, times in positions.items())
    assert found.sparse == expected and 0.2 < found.sparse / found.dense < 0.4


def test_strides_groups_batches_and_valid_padding():
    def forward(params, images):
        return jax.lax.conv_general_dilated(
            images, params, (2, 2), "VALID", feature_group_count=2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    kernel = np.ones((3, 3, 2, 6), np.float32)
    kernel[..., :3] = 0
    found = count(forward, {"kernel": kernel}["kernel"], 5, 9, 9, 4)
    assert (found.dense, found.sparse) == (2 * 5 * 4 * 4 * 6 * 9 * 2, 5 * 4 * 4 * 6 * 9 * 2)


W = {"a": np.diag([1.0, 2, 3, 0]).astype(np.float32), "b": np.ones((4, 4), np.float32)}
ONE = 2 * 4 * 4  # a product of a row of four with a 4 × 4 kernel
masked = np.array([[1, 0, 0, 0]] * 4, bool)

WRAPPED = {
    "jit": (lambda p, x: jax.jit(lambda y: y @ p["a"])(x) @ p["b"], 2 * ONE, 2 * 3 + ONE),
    "checkpoint": (lambda p, x: jax.checkpoint(lambda y: jnp.tanh(y @ p["a"]))(x) @ p["b"], 2 * ONE, 6 + ONE),
    "custom_jvp": (lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"], 2 * ONE, 6 + ONE),
    "transposed kernel": (lambda p, x: x @ p["a"].T @ p["b"], 2 * ONE, 6 + ONE),
    "kernel on the left": (lambda p, x: p["b"] @ (p["a"] @ x.T), 2 * ONE, 6 + ONE),
    "a masked kernel": (lambda p, x: x @ jnp.where(masked, p["b"], 0) + 0 * x @ p["a"], 2 * ONE, 6 + ONE // 4),
    "a product of parameters": (lambda p, x: x @ (p["a"] * p["b"]), ONE, 6),  # TwinRep's W = A ⊙ B
    "folded once, not per image": (lambda p, x: x @ (p["a"] @ p["b"]), ONE, 2 * 3 * 4),
    "unused work": (lambda p, x: (x @ p["a"] @ p["b"], x @ p["b"])[0], 2 * ONE, 6 + ONE),
    "a known branch": (
        lambda p, x: jax.lax.cond(p["a"][3, 3] < 1, lambda y: y @ p["a"], lambda y: y, x) @ p["b"], 2 * ONE, 6 + ONE
    ),
    "images alone": (lambda p, x: (x.T @ x)[:1] @ p["a"] @ p["b"], 2 * ONE + 2 * 16, 6 + ONE + 2 * 16),
    "a loop of pixels": (
        lambda p, x: jax.lax.while_loop(lambda y: jnp.sum(y) < 9, lambda y: y + 1, x) @ p["a"] @ p["b"], 2 * ONE, 6 + ONE
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped(name):
    forward, dense, sparse = WRAPPED[name]
    found = count(forward, W, 1, 4)
    assert (found.dense, found.sparse, found.uncounted) == (dense, sparse, ())


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_counts_every_turn_with_its_own_kernel(reverse):
    stack = np.stack([W["a"], W["b"], np.zeros((4, 4), np.float32)])

    def forward(params, images):
        def layer(x, kernels):
            return x @ kernels + shift, kernels * 2

        shift = images * 2  # closed over: a constant of the loop
        last, doubled = jax.lax.scan(layer, images, params["stack"], reverse=reverse)
        return last @ doubled[0]

    assert count(forward, {"stack": stack}, 1, 4)[:2] == (4 * ONE, 2 * 3 + ONE + 0 + 2 * 3)


def test_what_is_not_counted_is_said():
    def forward(params, images):  # a matrix product in disguise
        return jnp.sum(images[:, :, None] * params["a"][None], axis=1) @ params["b"]

    found = count(forward, W, 1, 4)
    assert found.uncounted == ("a",) and found.dense == ONE


REFUSED = {
    "while": lambda p, x: jax.lax.while_loop(lambda y: jnp.sum(y) < 9, lambda y: y @ p["a"], x),
    "branches": lambda p, x: jax.lax.cond(x[0, 0] > 0, lambda y: y @ p["a"], lambda y: y @ p["a"] @ p["b"], x),
    "transposed": lambda p, x: jax.lax.conv_transpose(x[None, :, :, None], p["a"][:2, :2, None, None], (2, 2), "SAME"),
    "cholesky": lambda p, x: jnp.linalg.cholesky(p["a"] + x.T @ x),
    "callback": lambda p, x: jax.pure_callback(lambda y: y, jax.ShapeDtypeStruct((1, 4), jnp.float32), x @ p["a"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_work_that_is_not_known_is_an_error(name):
    with pytest.raises(SettingError, match="forward"):
        count(REFUSED[name], W, 1, 4)
