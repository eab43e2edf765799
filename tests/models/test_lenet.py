"""LeNet-5: counts, taps, and the two forms of its convolutions inside PGD."""

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.attacks.pgd import pgd
from bap_jax.models import LeNet5, build, count_parameters


def kernels(params):
    return [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == "kernel"]


def shapes(model, images):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(images))[0]


def test_counts():
    params = shapes(build("lenet5", num_classes=10), (1, 28, 28, 1))
    # 5·5·1·32 + 5·5·32·64 + 7·7·64·84 + 84·10, and biases 32 + 64 + 84 + 10
    assert count_parameters(kernels(params)) == 316_264
    assert count_parameters(params) == 316_264 + 190


def test_wide_hidden_layer():
    params = shapes(build("lenet5", num_classes=10, hidden=1024), (1, 28, 28, 1))
    assert count_parameters(kernels(params)) == 800 + 51_200 + 7 * 7 * 64 * 1024 + 10_240


def test_taps_are_taken_after_the_activation_and_before_the_pool():
    images = jnp.zeros((3, 9, 8, 1))  # an odd height is pooled as VALID
    outputs, _ = jax.eval_shape(LeNet5(num_classes=4).init_with_output, jax.random.key(0), images)
    sizes = {name: tap.shape for name, tap in outputs.taps.items()}
    assert sizes == {"conv1": (3, 9, 8, 32), "conv2": (3, 4, 4, 64), "fc1": (3, 84)}
    assert outputs.logits.shape == (3, 4)


def test_unused_taps_cost_nothing_under_jit():
    images = jnp.zeros((2, 8, 8, 1))
    model = LeNet5(num_classes=10)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def memory(pick):
        return jax.jit(lambda v, x: pick(model.apply(v, x))).lower(variables, images).compile().memory_analysis()

    without, one, all_of_them = (memory(pick) for pick in (lambda o: o.logits, lambda o: o.taps["conv1"], lambda o: o))
    assert without.output_size_in_bytes == 2 * 10 * 4
    assert one.output_size_in_bytes == 2 * 8 * 8 * 32 * 4
    assert all_of_them.output_size_in_bytes >= 4 * 2 * (10 + 8 * 8 * 32 + 4 * 4 * 64 + 84)


def test_fast_and_plain_attack_to_the_same_images():
    images, labels = jax.random.uniform(jax.random.key(1), (4, 8, 8, 1)), jnp.arange(4)
    attacked = {}
    params, state = jax.jit(build("lenet5", num_classes=10).init)(jax.random.key(0), images)
    for conv in ("fast", "plain"):
        model = build("lenet5", num_classes=10, conv=conv)

        @jax.jit
        def attack(params, images, model=model, state=state):
            def logits(x):
                return model.apply(params, state, x, train=False)[0].logits

            return pgd(logits, None, images, labels, epsilon=0.1, num_steps=3, random_start=False).images

        attacked[conv] = attack(params, images)
    assert not np.allclose(attacked["fast"], images)
    np.testing.assert_allclose(attacked["fast"], attacked["plain"], atol=1e-6)


def test_half_precision_computes_and_answers_in_float32():
    images = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))
    wide, half = LeNet5(num_classes=10), LeNet5(num_classes=10, dtype=jnp.bfloat16, conv="fast")

    @jax.jit
    def run():
        variables = wide.init(jax.random.key(0), images)
        return wide.apply(variables, images), half.apply(variables, images)

    expected, outputs = run()
    assert outputs.logits.dtype == jnp.float32 and outputs.taps["conv1"].dtype == jnp.bfloat16
    np.testing.assert_allclose(outputs.logits, expected.logits, atol=0.05)
