"""Programs of functions that are no networks of ours: what is written, and what cannot be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.export import read_program, write_program

pytest.importorskip("flatbuffers")
WEIGHTS = {"b": np.float32([1, -1]), "w": np.float32([[1, 2], [3, 4], [5, 6]])}


def affine(weights, images):
    return jnp.tanh(images) @ weights["w"] + weights["b"][None]


@pytest.mark.parametrize("inside", [True, False])
def test_value_and_gradient_come_back(inside, tmp_path):
    path, images = tmp_path / "net.stablehlo", np.float32([[0.1, -0.2, 0.3], [1, 0, -1], [2, 2, 2]])
    write_program(path, affine, WEIGHTS, (3,), inside=inside, gradients=True)
    found = read_program(path)
    assert (found.image_shape, found.num_classes, found.gradients) == ((3,), 2, True)
    assert found.weights.keys() == (set() if inside else WEIGHTS.keys())
    for batch in (images, images[:1]):
        wanted = np.tanh(batch) @ WEIGHTS["w"] + WEIGHTS["b"][None]
        np.testing.assert_allclose(found.call(found.weights, batch), wanted, rtol=1e-6)
    gradient = jax.grad(lambda x: found.call(found.weights, x)[:, 1].sum())(images)
    np.testing.assert_allclose(gradient, (1 - np.tanh(images) ** 2) * WEIGHTS["w"][:, 1][None], rtol=1e-5)
    _, pull = jax.vjp(lambda x: found.call(found.weights, x), images)
    both = jax.vmap(pull)(jnp.eye(2)[:, None] * jnp.ones((1, 3, 1)))[0]  # of all classes, as DeepFool and FAB ask for them
    np.testing.assert_allclose(both[1], gradient, rtol=1e-6)
    if not inside:
        moved = jax.grad(lambda weights: found.call(weights, images).sum())(found.weights)
        np.testing.assert_allclose(moved["w"], np.tanh(images).sum(0)[:, None] * np.ones((1, 2)), rtol=1e-5)


def test_other_weights_and_other_functions_are_refused(tmp_path):
    path = tmp_path / "net.stablehlo"
    write_program(path, affine, WEIGHTS, (3,), inside=False)
    np.savez(tmp_path / "net.stablehlo.npz", w=WEIGHTS["w"])
    with pytest.raises(SettingError, match="npz"):
        read_program(path)
    (tmp_path / "net.stablehlo.npz").write_bytes(b"PK no archive")
    with pytest.raises(SettingError, match="npz"):
        read_program(path)
    path.write_bytes(b"no program at all" * 10)
    with pytest.raises(SettingError, match="serialised"):
        read_program(path)
    with pytest.raises(SettingError, match="logits"):
        write_program(path, lambda weights, images: images.sum(0), {}, (3,))
