"""What XLA makes of a blind step: no work that nobody needs, least of all inside the attack, and one compile for a whole run.

Every convolution of the compiled program is counted. For a network with n of them, forward or backward to the images each:
2 n − 1 in a step of the attack, n in a bisection, and outside of both loops 2 n − 1 for the search's own step and 3 n − 1 for
training. The gradient to images of few channels is a matrix product, and so is that to a kernel of 1×1, which training lacks too.
Not counted twice: the clean pass, which the search's step, the margin and what wrong examples get share. Not there: a pass at the
search's far end, which halving in logarithms does not ask, the forward pass that judges the attack's last point, and gradients of
the weights in an attack.
"""

import re
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from told import told

from bap_jax import budgets, losses, models, pruners
from bap_jax.attacks import pgd
from bap_jax.mathematics.schedules import Ramp
from bap_jax.parallel import jit_step
from bap_jax.training import init_state, make_train_step
from bap_jax.types import Batch

B, K, SHAPE = 6, 4, (12, 12, 1)
RAMP = Ramp(0.0, 0.5, 2, 9, 3)
NETWORKS = {
    "lenet5": (2, partial(models.build, "lenet5", hidden=8)),
    "resnet8": (6, partial(models.build, "resnet8", blocks=(1, 1), widths=(4, 8))),
}
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # the same HLO, less work after it


def slots():
    attack = partial(pgd, norm="linf", num_steps=3)
    budget = budgets.cutoff_scale(budgets.pgd_search(), attack)
    return optax.adam(1e-3), pruners.magnitude(RAMP), budget, losses.mix()


def state_of(model, filled):
    return init_state(model, *filled, key=jax.random.key(0), images=jnp.zeros((1, *SHAPE)), info=told(B))


def batch_of(seed=0):
    images = jax.random.uniform(jax.random.key(seed), (B, *SHAPE))
    return Batch(images, jnp.arange(B) % K, jnp.arange(B), jnp.ones(B))


class Loop(NamedTuple):
    line: str  # of the while itself, with the shapes that it carries
    inside: list[str]  # all instructions of its body


class Program:
    """The instructions of an HLO text, by computation."""

    def __init__(self, text: str):
        self.computations: dict[str, list[str]] = {}
        self.entry = name = ""
        for line in text.splitlines():
            opened = re.match(r"(ENTRY )?%(\S+) \(.*\{$", line)
            if opened:
                name = opened[2]
                self.entry = name if opened[1] else self.entry
                self.computations[name] = []
            elif name and line.startswith("  "):
                self.computations[name].append(line.strip())

    def reached(self, name: str, *, into_loops: bool = True) -> list[str]:
        """The instructions of a computation and of those it calls, each as often as it is called."""
        found = []
        for line in self.computations[name]:
            found.append(line)
            if into_loops or " while(" not in line:
                for called in _called(line):
                    found += self.reached(called, into_loops=into_loops)
        return found

    def loops(self) -> list[Loop]:
        """Those with a convolution in them."""
        lines = {line for lines in self.computations.values() for line in lines if " while(" in line}
        bodies = [(line, self.reached(re.search(r"body=%([\w.\-]+)", line)[1])) for line in sorted(lines)]
        return [Loop(line, inside) for line, inside in bodies if convolutions(inside)]


def _called(line: str) -> list[str]:
    single = re.findall(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%([\w.\-]+)", line)
    several = re.findall(r"(?:branch_computations|calls|called_computations)=\{([^}]*)\}", line)
    return single + [name.strip().lstrip("%") for names in several for name in names.split(",")]


def convolutions(lines: list[str]) -> list[tuple[int, ...]]:
    """The shapes that the convolutions among these instructions return."""
    found = [re.search(r"= \w+\[([\d,]+)\]\S* convolution\(", line) for line in lines]
    return [tuple(int(size) for size in one[1].split(",")) for one in found if one]


@pytest.fixture(scope="module", params=sorted(NETWORKS))
def compiled(request):
    """(number of convolutions, the shapes of the weights, the program)."""
    count, build = NETWORKS[request.param]
    model, filled = build(num_classes=K, conv="fast"), slots()
    state = jax.eval_shape(lambda: state_of(model, filled))
    step = jax.jit(make_train_step(model.apply, *filled), donate_argnums=0)
    text = step.lower(state, jax.eval_shape(batch_of)).compile(compiler_options=QUICK).as_text()
    kernels = [leaf.shape for leaf in jax.tree.leaves(state.trainable) if leaf.ndim > 1]
    assert sum(len(shape) == 4 for shape in kernels) == count
    return count, kernels, Program(text)


def pointwise(kernels: list[tuple[int, ...]]) -> int:
    return sum(len(shape) == 4 and shape[:2] == (1, 1) for shape in kernels)


def attack_loop(program: Program) -> Loop:
    return max(program.loops(), key=lambda loop: len(convolutions(loop.inside)))


def test_two_loops_and_no_convolution_too_many(compiled):
    count, kernels, program = compiled
    inside = sorted(len(convolutions(loop.inside)) for loop in program.loops())
    assert inside == [count, 2 * count - 1]
    outside = convolutions(program.reached(program.entry, into_loops=False))
    assert len(outside) == 2 * count - 1 + 3 * count - 1 - pointwise(kernels)


def test_attacks_take_no_gradient_of_the_weights(compiled):
    """The first axis of a convolution's result is the batch; of a weight gradient, one of channels."""
    count, kernels, program = compiled
    for loop in program.loops():
        assert {shape[0] for shape in convolutions(loop.inside)} == {B}
    outside = convolutions(program.reached(program.entry, into_loops=False))
    assert len([shape for shape in outside if shape[0] not in (B, 2 * B)]) == count - pointwise(kernels)  # training's own


def test_weights_are_masked_outside_the_attack(compiled):
    """Nothing of a mask's shape and type enters a loop or is made there; a mask of a loop's own would be selected with."""
    _, kernels, program = compiled
    masks = ["pred[" + ",".join(map(str, shape)) + "]" for shape in kernels]
    everywhere = program.reached(program.entry, into_loops=False)
    assert all(any(mask in line for line in everywhere) for mask in masks)
    for loop in program.loops():
        assert not [line for line in (loop.line, *loop.inside) if any(mask in line for mask in masks)]


def test_kernels_are_turned_outside_the_attack(compiled):
    """The input gradient's flipped kernels depend on nothing in the loop."""
    _, _, program = compiled
    turned = [line for line in program.reached(program.entry, into_loops=False) if re.search(r"\breverse\(", line)]
    assert turned
    assert not [line for line in attack_loop(program).inside if re.search(r"\breverse\(", line)]


def test_one_compile_for_a_whole_run():
    """Before the ramp, on it, at its end and after it; the first state comes from the host, the others from the step."""
    model, filled = NETWORKS["lenet5"][1](num_classes=K, conv="fast"), slots()
    step = jit_step(chex.assert_max_traces(make_train_step(model.apply, *filled), n=1))
    state = jax.jit(lambda: state_of(model, filled))()
    sparsities = []
    for i in range(12):
        state, metrics = step(state, batch_of(i))
        sparsities.append(float(state.prune.sparsity))
    assert sparsities[1] == 0.0 and sparsities[-1] == pytest.approx(0.5) and len(set(sparsities)) == 4
    assert step._cache_size() == 1
    assert bool(jnp.isfinite(metrics["loss"]))
