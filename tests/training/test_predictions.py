"""Losses refuse what is no prediction: one logit, whose softmax is always 1, and labels that are no class."""

import jax
import jax.numpy as jnp
import optax
import pytest
from told import told

from bap_jax import budgets, losses, models, pruners
from bap_jax.errors import SettingError
from bap_jax.training import init_state, make_train_step
from bap_jax.types import Adversarial, Batch, Outputs

IMAGES = jnp.linspace(0, 1, 8).reshape(4, 2)
BATCH = Batch(IMAGES, jnp.array([0, 1, 2, 1]), jnp.arange(4), jnp.ones(4))
LOSSES = {"clean": losses.clean(), "mix": losses.mix(), "madry": losses.madry(), "trades": losses.trades(), "mart": losses.mart()}


def value(loss, num_classes, batch=BATCH):
    adversarial = Adversarial(IMAGES, jnp.zeros(4), jnp.ones((4, num_classes)) / num_classes, jnp.ones(4))

    def forward(*images):
        return tuple(Outputs(jnp.ones((4, num_classes)), {}) for _ in images)

    mean = lambda values, weight: jnp.sum(values * weight) / jnp.sum(weight)  # noqa: E731
    return loss.value(forward, batch, adversarial, loss.init(None, None, None), step=0, mean=mean, gather=lambda x: x)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_refuse_one_logit_and_labels_that_are_no_class(loss):
    assert jnp.isfinite(value(LOSSES[loss], 3)[0])
    with pytest.raises(SettingError, match=r"logits = .*two classes"):
        value(LOSSES[loss], 1, BATCH._replace(labels=jnp.zeros(4, int)))
    for label in (3, -1):
        with pytest.raises(SettingError, match=f"labels = {label} at position 3"):
            value(LOSSES[loss], 3, BATCH._replace(labels=BATCH.labels.at[3].set(label)))


def test_a_train_step_with_one_logit_is_refused_and_does_not_run_at_a_loss_of_zero():
    model = models.from_function(lambda key, x: {"w": jnp.ones((2, 1))}, lambda params, x: x @ params["w"])
    slots = optax.sgd(0.1), pruners.dense(), budgets.none(), losses.clean()
    state = init_state(model, *slots, key=jax.random.key(0), images=IMAGES, info=told(4))
    with pytest.raises(SettingError, match=r"logits_fn = .*two classes"):
        jax.eval_shape(make_train_step(model.apply, *slots), state, BATCH)
