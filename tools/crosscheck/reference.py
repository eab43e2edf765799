"""The worker with public implementations, in an environment of its own (requirements.txt): the same network in torch."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tools.crosscheck.catalogue import COMPARED_NORMS, Case, by_name, noise
from tools.crosscheck.protocol import serve
from tools.crosscheck.torch_network import TorchNetwork

_ORDERS = dict(zip(COMPARED_NORMS, (float("inf"), 2, 1, 0), strict=True))
_CAPITALS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def stub_modules() -> None:
    """Stands in for modules that the libraries import and that nothing run here uses."""

    class Nothing(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return object

    for name in ("torchvision", "torchvision.transforms", "visdom"):
        sys.modules[name] = Nothing(name)


class Reference:
    """The other side of :class:`tools.crosscheck.ours.Ours`, with the same operations."""

    def load(self, path: str) -> dict[str, Any]:
        """Rebuilds the network, and says how far its logits are from ours."""
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        with np.load(path) as stored:
            arrays = dict(stored)
        self.images, self.labels = arrays["images"], arrays["labels"].astype(np.int64)
        self.network, self.timed = TorchNetwork(arrays).eval(), TorchNetwork(arrays, share_ties=False).eval()
        difference = np.abs(self._logits(self.images) - arrays["logits"]).max()
        return {"difference": float(difference), "torch": torch.__version__}

    def predict_images(self, path: str, out: str) -> dict[str, Any]:
        """Logits of stored images."""
        np.save(out, self._logits(np.load(path)))
        return {}

    def attack(self, case: str, rows: list[int], epsilon: float, seed: int, out: str) -> dict[str, Any]:
        """Attacks the given examples and writes the points."""
        run = self._program(by_name(case), rows, epsilon, seed, self.network)
        began = time.perf_counter()
        images, queries = run()
        seconds = time.perf_counter() - began
        np.savez(out, images=_channels_last(images), **({} if queries is None else {"queries": queries}))
        return {"seconds": seconds, "standing": getattr(run, "standing", [])}

    def time(self, case: str, rows: list[int], epsilon: float, settings: dict[str, int], warm: bool) -> dict[str, Any]:
        """Seconds of one run; ``warm`` runs it once before."""
        which = by_name(case)
        run = self._program(which._replace(settings={**which.settings, **settings}), rows, epsilon, 0, self.timed)
        if warm:
            run()
        began = time.perf_counter()
        run()
        return {"seconds": time.perf_counter() - began}

    def _logits(self, images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return torch.cat([self.network(chunk) for chunk in _channels_first(images).split(100)]).numpy()

    def _program(self, case: Case, rows: list[int], epsilon: float, seed: int, network: TorchNetwork) -> Callable:
        images, labels = _channels_first(self.images[rows]), torch.from_numpy(self.labels[rows])
        torch.manual_seed(seed)
        if case.library == "pyautoattack":
            return _pyautoattack(network, case, epsilon, seed, images, labels, noise(self.images, case.norm, seed)[rows])
        if case.library == "torchattacks":
            attack = _torchattacks(network, case, epsilon, seed)
            if case.start == "given":
                _begin_at(attack, images, _channels_first(noise(self.images, case.norm, seed)[rows]))
            asked = _count_queries(attack) if case.ours == "square" else None

            def run() -> tuple[Tensor, np.ndarray | None]:
                return attack(images, labels), None if asked is None else np.concatenate(asked)[-len(rows) :]

            return run
        make = _adv_lib if case.library == "adv-lib" else _foolbox
        found = make(network, case, epsilon)
        return lambda: (found(images.clone(), labels), None)


def _channels_first(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _channels_last(images: Tensor) -> np.ndarray:
    return images.detach().numpy().transpose(0, 2, 3, 1)


def _torchattacks(network: TorchNetwork, case: Case, epsilon: float, seed: int) -> Any:
    import torchattacks

    steps, norm = int(case.settings.get("num_steps", 0)), _CAPITALS[case.norm]
    common: dict[str, Any] = {"norm": norm, "eps": epsilon, "steps": steps, "seed": seed}
    if case.ours == "fgsm":
        return torchattacks.FGSM(network, eps=epsilon)
    if case.ours == "pgd":
        step = epsilon * case.settings["relative_step"]
        kind = torchattacks.PGD if case.norm == "linf" else torchattacks.PGDL2
        return kind(network, eps=epsilon, alpha=step, steps=steps, random_start=False)
    if case.ours == "apgd":
        return torchattacks.APGD(network, loss="dlr" if "-dlr-" in case.name else "ce", **common)
    if case.ours == "apgd_targeted":
        return torchattacks.APGDT(network, **common)
    if case.ours == "fab":
        return torchattacks.FAB(network, **{**common, "eps": 1e10})  # whatever is found counts; nothing here is random
    if case.ours == "fab_targeted":
        return torchattacks.FAB(network, multi_targeted=True, **common)
    queries = int(case.settings.get("num_queries", 5000))
    square = torchattacks.Square(network, norm=norm, eps=epsilon, n_queries=queries, seed=seed, resc_schedule=False)
    if case.ours == "square":
        return square
    if case.ours == "deepfool":
        return torchattacks.DeepFool(network, steps=steps)
    # Its AutoAttack takes 10 steps where the published one takes 100, so the four are put together here.
    return torchattacks.MultiAttack([
        torchattacks.APGD(network, loss="ce", **common),
        torchattacks.APGDT(network, **common),
        torchattacks.FAB(network, multi_targeted=True, **common),
        square,
    ])  # fmt: skip


def _pyautoattack(
    network: TorchNetwork, case: Case, epsilon: float, seed: int, images: Tensor, labels: Tensor, drawn: np.ndarray
) -> Callable:
    """AutoAttack as its authors have it, whole or one of its attacks, with the settings of its standard version."""
    from pyautoattack import AutoAttack

    whole = AutoAttack(network, eps=epsilon, norm=_CAPITALS[case.norm], seed=seed, version="standard")
    if case.ours == "autoattack":
        heard = _Standing(len(images))
        whole.logger.addHandler(heard)
        whole.logger.setLevel(logging.DEBUG)

        def run() -> tuple[Tensor, None]:
            heard.standing.clear()
            return whole.run_standard_evaluation(images, labels, batch_size=100)[0], None

        run.standing = heard.standing  # type: ignore[attr-defined]
        return run
    attack = {"apgd": whole.apgd, "apgd_targeted": whole.apgd_targeted, "fab_targeted": whole.fab, "square": whole.square}[
        case.ours
    ]
    attack.seed = seed
    if case.ours == "apgd":
        attack.loss = "dlr" if "-dlr-" in case.name else "ce"
    if case.ours == "fab_targeted":
        attack.targeted = True
    if case.start == "given":
        _begin_at(attack, images, _channels_first(drawn))
    return lambda: (attack.perturb(images, labels), None)


class _Standing(logging.Handler):
    """Hears how many images stand after each attack of the package's AutoAttack, which tells nobody else."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self.total, self.standing = total, list[tuple[str, int]]()

    def emit(self, record: logging.LogRecord) -> None:
        found = re.match(r"robust accuracy after (\S+): ([\d.]+)%", record.getMessage())
        if found:
            self.standing.append((found[1].lower(), round(float(found[2]) * self.total / 100)))


def _begin_at(attack: Any, images: Tensor, drawn: Tensor) -> None:
    """Replaces the random numbers of an Auto-PGD by given ones, those of the rows that it still attacks."""
    module = sys.modules[type(attack).__module__]
    rows = {image.numpy().tobytes(): row for row, image in enumerate(images)}
    original = attack.attack_single_run

    def single_run(x: Tensor, y: Tensor) -> Any:
        taken = drawn[[rows[image.numpy().tobytes()] for image in x.detach()]]

        class Given(types.ModuleType):
            def __getattr__(self, name: str) -> Any:
                if name in ("rand", "randn"):  # rand is taken to [−1, 1] by its caller
                    return lambda shape: (taken + 1) / 2 if name == "rand" else taken
                return getattr(torch, name)

        module.torch = Given("torch")  # type: ignore[attr-defined]
        try:
            return original(x, y)
        finally:
            module.torch = torch  # type: ignore[attr-defined]

    attack.attack_single_run = single_run


def _count_queries(attack: Any) -> list[np.ndarray]:
    """Remembers how many queries every example took."""
    counts: list[np.ndarray] = []
    original = attack.attack_single_run

    def single_run(x: Tensor, y: Tensor) -> Any:
        result = original(x, y)
        counts.append(result[0].detach().numpy().copy())
        return result

    attack.attack_single_run = single_run
    return counts


def _adv_lib(network: TorchNetwork, case: Case, epsilon: float) -> Callable[[Tensor, Tensor], Tensor]:
    from adv_lib import attacks

    steps, order = int(case.settings["num_steps"]), _ORDERS[case.norm]
    if case.ours == "apgd":
        return lambda x, y: attacks.apgd(network, x, y, eps=epsilon, norm=order, n_iter=steps, loss_function="ce")
    if case.ours in ("fab", "fab_targeted"):
        targeted = case.ours == "fab_targeted"
        return lambda x, y: attacks.fab(network, x, y, norm=order, n_iter=steps, targeted_restarts=targeted)
    if case.ours == "ddn":
        return lambda x, y: attacks.ddn(network, x, y, steps=steps, levels=None)
    if case.ours == "fmn":
        return lambda x, y: attacks.fmn(network, x, y, norm=order, steps=steps)
    if case.ours == "sigma_zero":
        return lambda x, y: attacks.sigma_zero(network, x, y, num_steps=steps)
    search = {"binary_search_steps": int(case.settings["search_steps"]), "max_iterations": steps, "abort_early": False}
    return lambda x, y: attacks.carlini_wagner_l2(network, x, y, **search)


def _foolbox(network: TorchNetwork, case: Case, epsilon: float) -> Callable[[Tensor, Tensor], Tensor]:
    import foolbox

    model = foolbox.PyTorchModel(network, bounds=(0, 1))
    steps, capital = int(case.settings["num_steps"]), {**_CAPITALS, "l0": "L0"}[case.norm]
    if case.ours == "pgd":
        kind = getattr(foolbox.attacks, f"{capital}ProjectedGradientDescentAttack")
        attack = kind(rel_stepsize=case.settings["relative_step"], steps=steps, random_start=False)
        return lambda x, y: attack(model, x, y, epsilons=epsilon)[1]
    if case.ours == "fmn":
        attack = getattr(foolbox.attacks, f"{capital.replace('Linf', 'LInf')}FMNAttack")(steps=steps)
    elif case.ours == "deepfool":
        attack = getattr(foolbox.attacks, f"{capital}DeepFoolAttack")(steps=steps)
    elif case.ours == "ddn":
        attack = foolbox.attacks.DDNAttack(steps=steps)
    else:
        search = int(case.settings["search_steps"])
        attack = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=search, steps=steps, abort_early=False)
    return lambda x, y: attack(model, x, y, epsilons=None)[0]


def main() -> None:
    """Serves until standard input ends."""
    stub_modules()
    reference = Reference()
    serve({"load": reference.load, "attack": reference.attack, "predict": reference.predict_images, "time": reference.time})


if __name__ == "__main__":
    main()
