"""The worker with this package's attacks: restores a run's network, attacks, predicts, takes times."""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.mathematics.masks import leaf_paths
from bap_jax.mathematics.objectives import dlr
from bap_jax.parallel import data_mesh, replicate, shard_batch
from bap_jax.runs.datasets import split_of
from bap_jax.runs.restore import stored_network
from bap_jax.runs.trust import Trust
from tools.crosscheck.catalogue import Case, by_name, start
from tools.crosscheck.protocol import serve

_BATCH = 20  # of AutoAttack: what is left of the examples is packed into batches of this size
_MODULES = {"fab_targeted": "fab"}  # the others live in a file of their own name


class Ours:
    """A network and the examples, and what can be asked about them; on as many devices as the worker has cores."""

    def prepare(self, run: str, out: str, limit: int, data_dir: str | None, trust: bool = False) -> dict[str, Any]:
        """Restores a run and writes weights, images, labels and logits for the other side."""
        stored = stored_network(run, "last", Trust(trust))
        settings = stored.settings
        data = split_of(settings, "test", data_dir)
        net = stored.on(data)
        self.mesh = data_mesh()
        self.weights = replicate(self.mesh, net.weights)
        self.predict = net.predict
        raw, labels = data.read(np.arange(min(limit, len(data))))
        self.images = (raw / np.float32(255) if raw.dtype == np.uint8 else raw).astype(np.float32)
        self.labels = np.asarray(labels, np.int32)
        arrays = {"images": self.images, "labels": self.labels, "logits": self._logits(self.images)}
        for name, tree in (("params", net.params), ("state", net.model_state)):
            leaves = zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True)
            arrays |= {f"{name}/{path}": np.asarray(leaf) for path, leaf in leaves}
        np.savez(out, allow_pickle=False, **arrays)
        return {"data": settings.data, "model": settings.model, "step": stored.step, "examples": len(self.labels)}

    def predict_images(self, path: str, out: str) -> dict[str, Any]:
        """Logits of stored images."""
        np.save(out, self._logits(np.load(path)))
        return {}

    def attack(self, case: str, rows: list[int], epsilon: float, seed: int, out: str) -> dict[str, Any]:
        """Attacks the given examples and writes the points."""
        which = by_name(case)
        taken = self.images[rows]
        began = time.perf_counter()
        run = self._program(which, epsilon, seed, taken, self.labels[rows], np.array(rows))
        self.standing: list[tuple[str, int]] = []
        images, queries = run()
        found = {"images": images} if queries is None else {"images": images, "queries": queries}
        np.savez(out, allow_pickle=False, **found)
        return {"seconds": time.perf_counter() - began, "standing": self.standing}

    def time(self, case: str, rows: list[int], epsilon: float, settings: dict[str, int], warm: bool) -> dict[str, Any]:
        """Seconds of one run; ``warm`` compiles and runs it once before."""
        which = by_name(case)
        which = which._replace(settings={**which.settings, **settings})
        run = self._program(which, epsilon, 0, self.images[rows], self.labels[rows], np.array(rows))
        if warm:
            run()
        began = time.perf_counter()
        run()
        return {"seconds": time.perf_counter() - began}

    def _logits(self, images: np.ndarray) -> np.ndarray:
        predict = _compiled(self.predict)
        chunks = [predict(self.weights, jnp.asarray(chunk)) for chunk in np.array_split(images, max(1, len(images) // 100))]
        return np.concatenate([np.asarray(chunk) for chunk in chunks])

    def _program(
        self, case: Case, epsilon: float, seed: int, images: np.ndarray, labels: np.ndarray, rows: np.ndarray
    ) -> Callable[[], tuple[np.ndarray, np.ndarray | None]]:
        if case.ours == "autoattack":
            return functools.partial(self._autoattack, case, epsilon, seed, images, labels, rows)
        begin = start(self.images, case.norm, epsilon, seed)[rows] if case.start == "given" else None
        program = _attack(case.ours, case.norm, case.start, case.name, tuple(sorted(case.settings.items())), self.predict)

        def run() -> tuple[np.ndarray, np.ndarray | None]:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.asarray(rows))
            filled = np.resize(np.arange(len(rows)), len(rows) + -len(rows) % self.mesh.size)  # every device has as many
            parts = [part if part is None else part[filled] for part in (keys, images, labels, begin)]
            result = program(self.weights, *shard_batch(self.mesh, parts), epsilon)
            attacked = np.asarray(result.images)[: len(rows)]
            return attacked, _queries(result)[: len(rows)] if case.ours == "square" else None

        return run

    def _autoattack(
        self, case: Case, epsilon: float, seed: int, images: np.ndarray, labels: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, None]:
        from bap_jax.evaluation import autoattack, evaluate_batches
        from bap_jax.evaluation.examples import Examples

        threat = _cascade(autoattack, case.norm, int(case.settings["num_steps"]))
        examples = Examples(images, labels, np.asarray(rows, np.int32), _BATCH)
        batches = [batch for _, batch in examples.batches(np.arange(len(rows)))]
        settings: dict[str, Any] = {"controls": False, "keep_examples": True}
        settings["put"] = functools.partial(shard_batch, self.mesh)
        result = evaluate_batches(self.predict, self.weights, batches, [threat], [epsilon], jax.random.key(seed), **settings)
        stages = result.stages[threat.name].items()
        self.standing = [(stage, round(float(accuracy[-1]) * len(rows))) for stage, accuracy in stages]
        found = np.asarray(result.success[threat.name])[-1]
        attacked = np.asarray(result.examples[threat.name])[-1]
        return np.where(found[:, None, None, None], attacked, images), None


def _queries(result: Any) -> np.ndarray:
    """How many points were judged until the first misclassified one (all, where none was)."""
    beyond = np.asarray(result.loss) > 0
    return np.where(beyond.any(axis=0), beyond.argmax(axis=0) + 1, len(beyond))


@functools.lru_cache
def _compiled(predict: Callable) -> Callable:
    return jax.jit(predict)


@functools.lru_cache
def _cascade(autoattack: Callable, norm: str, num_steps: int) -> Any:
    return autoattack(norm, num_steps=num_steps)


@functools.lru_cache
def _attack(
    function: str, norm: str, begin: str, name: str, settings: tuple[tuple[str, float], ...], predict: Callable
) -> Callable:
    """The compiled attack of one case, as a function of (weights, keys, images, labels, start, epsilon)."""
    attack = getattr(importlib.import_module(f"bap_jax.attacks.{_MODULES.get(function, function)}"), function)
    given: dict[str, Any] = {key: int(value) for key, value in settings if key != "relative_step"}
    if function not in ("ddn", "sigma_zero", "carlini_wagner"):  # those have a norm of their own
        given["norm"] = norm
    if "-dlr-" in name:
        given["objective"] = dlr
    if function == "pgd":
        given["random_start"] = False
    if function == "deepfool" and name.endswith("torchattacks"):
        given |= {"reference": "label", "distance_slack": 0.0}
    relative = dict(settings).get("relative_step")
    takes_epsilon = function in ("fgsm", "pgd", "apgd", "apgd_targeted", "square")

    def run(weights, keys, images, labels, points, epsilon):
        own = dict(given)
        if takes_epsilon:
            own["epsilon"] = epsilon
        if relative is not None:
            own["step_size"] = relative * epsilon
        if begin == "given":
            own["start"] = points
        return attack(functools.partial(predict, weights), keys, images, labels, **own)

    return jax.jit(run)


def main() -> None:
    """Serves until standard input ends."""
    ours = Ours()
    serve({"prepare": ours.prepare, "attack": ours.attack, "predict": ours.predict_images, "time": ours.time})


if __name__ == "__main__":
    main()
