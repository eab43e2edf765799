"""What users plug in by name: small models, attacks, budgets, pruners, losses and data sets, good ones and bad ones."""

import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import bap_jax as bap
from bap_jax import data, models
from bap_jax.types import AttackResult, Outputs, Threat

WIDTH = 16  # of linear's hidden layer; a test changes it
seen: list[float] = []  # the final sparsities that own_pruner was called with


def small(num_classes, **_):
    """One hidden layer."""

    def init(key, images):
        first, second = jax.random.split(key)
        size = int(np.prod(images.shape[1:]))
        hidden = jax.random.normal(first, (size, WIDTH)) / size**0.5
        return {"hidden": hidden, "out": jax.random.normal(second, (WIDTH, num_classes)) / WIDTH**0.5}, {}

    def apply(params, model_state, images, *, train, key=None):
        hidden = jax.nn.relu(images.reshape(len(images), -1) @ params["hidden"])
        return Outputs(hidden @ params["out"], {}), model_state

    return bap.Model(init, apply)


def probabilities(num_classes, **options):
    """The same network with a softmax at its end, which training and attacks are not to be given."""
    model = small(num_classes, **options)

    def apply(params, model_state, images, *, train, key=None):
        outputs, model_state = model.apply(params, model_state, images, train=train, key=key)
        return Outputs(jax.nn.softmax(outputs.logits), {}), model_state

    return model._replace(apply=apply)


def one_class_too_few(num_classes, **options):
    return small(num_classes - 1, **options)


def no_model(num_classes, **_):
    return "a string"


def nan_once_pruned(num_classes, **options):
    """Finite until most of its last weights are zero."""
    model = small(num_classes, **options)

    def apply(params, model_state, images, *, train, key=None):
        outputs, model_state = model.apply(params, model_state, images, train=train, key=key)
        return Outputs(outputs.logits + jnp.where(jnp.mean(params["out"] == 0) > 0.5, jnp.nan, 0.0), {}), model_state

    return model._replace(apply=apply)


def nan_gradient(num_classes, **options):
    """The square root's value at zero is zero, its slope infinite."""
    model = small(num_classes, **options)

    def apply(params, model_state, images, *, train, key=None):
        outputs, model_state = model.apply(params, model_state, images, train=train, key=key)
        return Outputs(outputs.logits.at[:, 0].add(jnp.sqrt(jnp.sum(params["out"] * 0.0))), {}), model_state

    return model._replace(apply=apply)


def own_attack(settings, ramp, bounds):
    """One step of the length of the budget, away from the middle of the box."""

    def attack(logits_fn, keys, images, labels, *, epsilon):
        epsilon = jnp.broadcast_to(jnp.asarray(epsilon), labels.shape).reshape(-1, *[1] * (images.ndim - 1))
        moved = jnp.clip(images + epsilon * jnp.sign(images - 0.5), 0.0, 1.0)
        wrong = jnp.argmax(logits_fn(moved), -1) != labels
        return AttackResult(moved, wrong, jnp.zeros((1, len(labels))))

    return attack


def own_threat(norm, bounds):
    """The same as a threat, for evaluation."""

    def attack(logits_fn, keys, images, labels, epsilon):
        return own_attack(None, None, bounds)(logits_fn, keys, images, labels, epsilon=epsilon)

    return Threat("away", norm, bounds, False, attack)


def own_pruner(settings, ramp, bounds):
    seen.append(settings.final_sparsity)
    return bap.pruners.magnitude(bap.schedules.Ramp(0.0, settings.final_sparsity, 0, 2, 1))


def no_masks(settings, ramp, bounds):
    """A pruner as those were that could not begin with masks."""
    pruner = bap.pruners.dense()
    return pruner._replace(init=lambda key, params: pruner.init(key, params))


def own_budget(settings, ramp, bounds):
    return bap.budgets.uniform(functools.partial(bap.pgd, norm="linf", num_steps=1), float(settings.epsilon or 0.05))


def own_loss(settings, ramp, bounds):
    return bap.losses.mix(adversarial_weight=1.0)


def not_a_slot(settings, ramp, bounds):
    return 3


def _splits(change=lambda images, labels: (images, labels)):
    def split(name, seed):
        generator = np.random.default_rng(seed)
        labels = np.arange(24, dtype=np.int32) % 3
        images = np.clip(generator.normal(0.3 + 0.2 * labels[:, None, None, None], 0.1, (24, 4, 4, 1)), 0, 1)
        images, labels = change(images.astype(np.float32), labels)
        return data.Dataset(images, labels, 3, name="blobs", split=name)

    return data.Splits(split("train", 0), split("validation", 1), split("test", 2))


def blobs():
    return _splits()


def outside_bounds():
    return _splits(lambda images, labels: (images * 255, labels))


def nan_images():
    return _splits(lambda images, labels: (np.where(np.arange(24)[:, None, None, None] == 7, np.nan, images), labels))


def labels_out_of_range():
    return _splits(lambda images, labels: (images, labels + 1))


def float_labels():
    return _splits(lambda images, labels: (images, labels.astype(np.float32)))


def no_splits():
    return [1, 2, 3]


not_callable = models


def own_optimizer(settings, ramp, bounds):
    return optax.chain(optax.trace(settings.momentum), optax.scale_by_learning_rate(settings.learning_rate))


def no_optimizer(settings, ramp, bounds):
    return settings.learning_rate


ringed: list = []  # what rings was called with


def rings(info, *, radius: float, count=1):
    """A budget with options of its own."""
    ringed.append((info, radius, count))
    return bap.budgets.uniform(functools.partial(bap.pgd, norm="linf", num_steps=count, bounds=info.bounds), radius)


def scaled(num_classes, mean=None, *, alpha: float = 1.0, widths: tuple[int, ...] = (4,), **_):
    """What it is told besides, for a look at it."""
    return {"alpha": alpha, "mean": mean, "widths": widths}


class Beside(nn.Module):
    """Two branches side by side, and layers that take the width that they are told."""

    num_classes: int
    widths: Mapping[str, int] | None = None

    @nn.compact
    def __call__(self, images):
        width = {"one": 6, "other": 4, "mix": 8} | dict(self.widths or {})
        x = images.reshape(len(images), -1)
        x = jnp.concatenate([nn.relu(nn.Dense(width[name], name=name)(x)) for name in ("one", "other")], -1)
        return nn.Dense(self.num_classes, name="out")(nn.relu(nn.Dense(width["mix"], name="mix")(x)))


def beside(num_classes, widths: Mapping[str, int] | None = None, **_):
    return Beside(num_classes, widths)


def unbending(num_classes, **_):
    """The same with widths that nobody can change."""
    return Beside(num_classes)
