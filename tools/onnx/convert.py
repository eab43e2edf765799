"""A network to ONNX, and what onnxruntime answers: runs in the environment of ``tools/onnx/requirements.txt``.

    python -m tools.onnx.convert NETWORK.npz OUT.onnx

The file holds the weights by name, ``images`` to answer, and in ``told`` what the network is (``bap_jax.models.build``). The
logits are written to ``OUT.logits.npy``.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bap_jax.mathematics.masks import leaf_paths
from bap_jax.models import build


def network(told: dict[str, Any], weights: dict[str, np.ndarray]) -> Callable:
    """The network as a function of images, its weights inside."""
    model = build(told["model"], num_classes=told["num_classes"], conv="plain", **told["options"])
    images = jax.ShapeDtypeStruct((1, *told["image_shape"]), np.float32)
    params, model_state = jax.eval_shape(model.init, jax.random.key(0), images)
    tree = {"params": params, "model_state": model_state}
    leaves = [weights[path.replace("/", ".")] for path in leaf_paths(tree)]
    found = jax.tree.unflatten(jax.tree.structure(tree), leaves)

    def logits(images):
        return model.apply(found["params"], found["model_state"], images, train=False)[0].logits

    return logits


def main(source: str, out: str) -> None:
    import onnx
    import onnxruntime
    from jax2onnx import to_onnx

    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # of shapes that it leaves out
    with np.load(source) as stored:
        arrays = {name: stored[name] for name in stored.files}
    told, images = json.loads(str(arrays.pop("told"))), arrays.pop("images")
    function = network(told, arrays)
    model = to_onnx(function, inputs=[("batch", *told["image_shape"])], model_name=told["model"])
    # It moves images to NCHW and keeps the shapes that they had before, over which onnxruntime stumbles; it finds them itself.
    del model.graph.value_info[:]
    onnx.save(model, out)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(out, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    answers = [session.run(None, {name: part})[0] for part in (images[:1], images[1:])]  # two sizes of a batch
    np.save(out + ".logits.npy", np.concatenate(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
