"""Pruning to 90 % inside a loop of one's own: the optimiser prunes, nothing else of it changes."""

import flax.linen as nn
import jax
import optax

import bap_jax as bap


def main(steps=400):
    digits, net = bap.data.load("digits"), nn.Sequential([nn.Dense(128), nn.relu, nn.Dense(10)])
    images, labels = digits.train.images.reshape(len(digits.train), -1), digits.train.labels
    ramp = bap.Ramp(initial_sparsity=0.0, final_sparsity=0.9, begin_step=0, end_step=steps // 2, frequency=10)
    tx = bap.pruners.wrap_optax(optax.adam(3e-3), bap.pruners.magnitude(ramp))

    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(net.apply(params, images), labels).mean()

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params = net.init(jax.random.key(0), images[:1])
    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return bap.measured_sparsity(state.prune.masks), loss(params)


if __name__ == "__main__":
    print(*main())
