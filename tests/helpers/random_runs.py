"""Run folders as training leaves them, with random weights; nothing is trained."""

import jax
import numpy as np

from bap_jax.checkpoint import Checkpoints, Network, open_run
from bap_jax.models import build
from bap_jax.runs.settings import Settings


def make_run(folder, model="mlp", data="digits", image_shape=(8, 8, 1), **more):
    """A run folder as training leaves one, with random weights of which about half are pruned; ``more`` are settings."""
    settings = Settings(data=data, model=model, budget="none", final_sparsity=0.5, seed=4, data_dir="/home/somebody", **more)
    network = build(model, num_classes=10 if data == "digits" else 3)
    params, model_state = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, *image_shape), np.float32))
    generator = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: generator.standard_normal(leaf.shape, np.float32), params)
    masks = jax.tree.map(lambda leaf: generator.random(leaf.shape) < 0.5 if leaf.ndim > 1 else np.array(True), params)
    params = jax.tree.map(lambda leaf, mask: np.where(mask, leaf, np.float32(0)), params, masks)
    model_state = jax.tree.map(lambda leaf: generator.random(leaf.shape, np.float32) + np.float32(0.5), model_state)
    with open_run(folder, settings.as_dict()) as run, Checkpoints(run.checkpoints) as checkpoints:
        for step in (3, 7):
            scaled = jax.tree.map(lambda leaf, step=step: leaf * np.float32(step), params)
            checkpoints.save(
                step,
                {"step": np.int32(step)},
                network=Network(scaled, masks, model_state),
                metric=10.0 - step,
                metadata={"finished": step == 7, "phase": 0},
            )
    return folder
