"""An NNX network, a schedule and arrays of one's own: blind adversarial pruning to 90 % in memory, AutoAttack at the end."""

import functools

import optax
from flax import nnx

import bap_jax as bap


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.out = nnx.Linear(64, 128, rngs=rngs), nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, images):
        return self.out(nnx.relu(self.hidden(images.reshape(len(images), -1))))


def recipe(info):
    rate = optax.warmup_cosine_decay_schedule(0.0, 3e-3, info.num_steps // 10, info.num_steps)
    pruner = bap.pruners.magnitude(bap.Ramp(0.0, 0.9, begin_step=0, end_step=info.num_steps * 6 // 10, frequency=10))
    budget = bap.budgets.cutoff_scale(bap.budgets.pgd_search(), functools.partial(bap.pgd, norm="linf", num_steps=7))
    return bap.Recipe(optax.adam(rate), pruner, budget, bap.losses.mix())


def main(steps=600, limit=100):
    digits = bap.data.load("digits")
    net = bap.runs.fit(Net, recipe, (digits.train.images, digits.train.labels), steps=steps).network
    return net, net.evaluate(digits.test, attacks="autoattack", epsilon=0.1, limit=limit)


if __name__ == "__main__":
    net, result = main()
    print(bap.measured_sparsity(net.masks), result.clean_accuracy, result.robust_accuracy)
