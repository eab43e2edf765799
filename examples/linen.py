"""A Linen network, a schedule and arrays of one's own: blind adversarial pruning to 90 %, checkpoints, AutoAttack at the end."""

import functools

import flax.linen as nn
import optax

import bap_jax as bap


class Net(nn.Module):
    @nn.compact
    def __call__(self, images):
        return nn.Dense(10)(nn.relu(nn.Dense(128)(images.reshape(len(images), -1))))


def recipe(info):
    rate = optax.warmup_cosine_decay_schedule(0.0, 3e-3, info.num_steps // 10, info.num_steps)
    pruner = bap.pruners.magnitude(bap.Ramp(0.0, 0.9, begin_step=0, end_step=info.num_steps * 6 // 10, frequency=10))
    budget = bap.budgets.cutoff_scale(bap.budgets.pgd_search(), functools.partial(bap.pgd, norm="linf", num_steps=7))
    return bap.Recipe(optax.adam(rate), pruner, budget, bap.losses.mix())


def main(steps=600, limit=100, out="runs/linen"):
    digits = bap.data.load("digits")
    arrays = digits.train.images, digits.train.labels  # [N, 8, 8, 1] in [0, 1] and [N]
    bap.runs.fit(Net(), recipe, arrays, steps=steps, out=out, resume=True)  # called again, it goes on where it stopped
    net = bap.load(out, checkpoint="best", model=Net())
    return net, net.evaluate(digits.test, attacks="autoattack", epsilon=0.1, limit=limit)


if __name__ == "__main__":
    net, result = main()
    print(bap.measured_sparsity(net.masks), result.clean_accuracy, result.robust_accuracy)
