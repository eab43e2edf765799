"""The commands: each a dataclass of its arguments, whose docstrings are the help, and a call that runs it.

What a command runs is imported when it is called: help is there at once, without jax.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from bap_jax.cli.process import set_up_process
from bap_jax.runs.benchmark_plan import BenchmarkPlan
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.settings import General

if TYPE_CHECKING:
    from bap_jax.runs.trust import Trust


class _Command:
    """What every command is: called with the code that stored configurations may name, it returns the exit status."""

    def set_up(self) -> None:
        """Process-wide settings, before jax makes its first device: none where no network is run."""

    def __call__(self, trust: Trust) -> int:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Process(_Command):
    """A command that runs networks on devices."""

    devices: Annotated[int | None, tyro.conf.arg(name="devices")] = None
    """How many devices to spread batches over. Default: all accelerators, or one CPU device."""
    conv: Literal["auto", "fast", "plain"] | None = None
    """How convolutions are computed, those of your own network, too: `fast` in loops on a CPU, `plain` as jax does it; results
    differ by rounding. `auto` is fast on a CPU; by default what the environment variable BAP_CONV says, else auto."""

    def set_up(self) -> None:
        set_up_process(self.devices, self.conv)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Stored(_Command):
    """A command that reads configurations which others may have written."""

    trust: bool = False
    """Import and call the code (`package.module:factory`) that the configurations read here name, though you did not name it.
    Runs that you trained yourself do not need it. See docs/trust.md."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(_Stored, _Process, General):
    """Train a network while pruning it, and leave a run folder with checkpoints, metrics and the full configuration.

    Example: bap train --data mnist --model lenet5 --budget cutoff-scale --final-sparsity 0.9 --epochs 3 --out runs/x
    A method of several phases: bap train --method hydra --steps 900 --prune.steps 200 --finetune.budget cutoff-scale --out runs/y
    """

    out: Path
    """The run folder to write; absent or empty, unless --resume."""
    config: Path | None = None
    """Take the settings from this config.json of another run; those given on the command line besides take precedence, and what
    they change is shown."""
    resume: bool = False
    """Go on with the run in --out from its newest checkpoint; starts one where there is none."""
    tensorboard: bool = False
    """Write TensorBoard event files beside metrics.jsonl (needs tensorboardX)."""
    shard: Literal["none", "state"] = "none"
    """`state`: spread weights, moments and masks over the devices, each leaf along its longest axis, for networks that do not fit
    on one. A run may be resumed with or without."""
    distributed: str | None = None
    """One run on several hosts, the same command on each: `auto` (TPU slices, SLURM, Open MPI), or
    COORDINATOR:PORT,RANK,WORLD, e.g. 10.0.0.1:1234,0,2. --out is a folder that all of them see; --devices counts those of each
    process. See docs/hosts.md."""

    def set_up(self) -> None:
        if self.distributed is None:
            return super().set_up()
        from bap_jax.cli.distributed import join

        join(self.distributed, self.devices, self.conv)

    def __call__(self, trust: Trust) -> int:
        from bap_jax.cli.commands.train import run_train

        return run_train(self, trust)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(_Stored, _Process, AttackPlan):
    """Attack a trained network and measure its accuracy.

    Example: bap evaluate runs/x --attack pgd --norm linf --epsilon 0,0.1,0.2,0.3
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """One run folder or several, which are evaluated one after the other."""
    batch_size: int = 256
    """Examples attacked at once."""
    data_dir: str | None = None
    """Folder with prepared TFDS data sets, if it is not where the run found it."""
    save_examples: bool = False
    """Keep the attacked images as well, in evaluations/NAME.examples.npz."""
    strict: bool = False
    """Exit with status 1 if a check failed."""

    def __call__(self, trust: Trust) -> int:
        from bap_jax.cli.commands.evaluate import run_evaluate

        return run_evaluate(self, trust)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark(_Stored, _Process, BenchmarkPlan):
    """Measure runs of one method by the protocol of the adversarial pruning benchmark, and write what it asks to be handed in.

    Example: bap benchmark runs/x90 runs/x95 runs/x99 --about about.toml --out runs/benchmark
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders, of one method; an interrupted command goes on where it stopped, and what is measured stays so."""
    out: Path
    """Where entry.json, issue.md, weights, distances and model_info files go."""
    about: Path | None = None
    """A TOML file with `name`, `title`, `authors`, `year`, `link`, and if you like `venue`, `additional_data`, `reported` and a
    table `[taxonomy]`. Without it there are numbers, but no taxonomy, issue and model_info."""
    pickle: bool = False
    """Write the distances as the benchmark's own list, too: a pickle, which only those should load who trust you."""
    batch_size: int = 256
    """Images attacked at once."""
    data_dir: str | None = None
    """Folder with prepared TFDS data sets, if it is not where the runs found it."""

    def __call__(self, trust: Trust) -> int:
        from bap_jax.cli.commands.benchmark import run_benchmark

        return run_benchmark(self, trust)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report(_Stored):
    """Gather the evaluations of runs into one report: HTML, Markdown, CSV and pictures.

    Example: bap report runs/x runs/y --out runs/report
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders that `bap evaluate` has looked at."""
    out: Path
    """Where to write the report."""
    title: str = "Accuracy, efficiency, robustness"
    """The report's title."""
    samples: int = 8
    """Adversarial images to show of one network per arm, its sparsest: those that `bap evaluate --save-examples` kept, else made
    now by PGD. 0 for none."""
    data_dir: str | None = None
    """Folder with prepared TFDS data sets, if it is not where the runs found it; sample images are taken from there."""
    leaderboard: bool = False
    """Also rank the runs among the published networks of the adversarial pruning benchmark (leaderboard.html and .md): those
    that `bap evaluate --attack autoattack` attacked at an L∞ ε of 0.031 or 8/255."""

    def __call__(self, trust: Trust) -> int:
        from bap_jax.cli.commands.report import run_report

        return run_report(self, trust)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compact(_Stored, _Process):
    """Cut the channels that pruning has left wholly zero: a smaller dense network with the same outputs, as a run of its own.

    Example: bap compact runs/x --out runs/x-compact
    """

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder, of --pruner structured --pruner.scope coupled for instance."""
    out: Path | None = None
    """The run folder to write; absent or empty. By default the run's name with -compact behind it."""
    checkpoint: str = "last"
    """`last`, `best` (on validation data), a step, or `ema`: the averaged weights of the last, of a run with --ema."""
    examples: int = 128
    """Test images that both networks have to agree on, untouched and attacked."""
    epsilon: float | None = None
    """Radius of that attack, PGD-20 in the run's norm; by default the smallest that the run was validated at."""
    rounds: int = 7
    """How often each latency is timed, in turn; 0 times nothing."""
    data_dir: str | None = None
    """Folder with prepared TFDS data sets, if it is not where the run found it."""

    def __call__(self, trust: Trust) -> int:
        from bap_jax.cli.commands.compact import run_compact

        return run_compact(self, trust)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantize(_Stored):
    """Round the weights of a trained network to small integers, as a run of its own, which is evaluated like any other. To train
    with the rounding in place, see `bap train --weight-bits 8`.

    Example: bap quantize runs/x --bits 8
    """

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder."""
    out: Path | None = None
    """The run folder to write; absent or empty. By default the run's name with -int8 behind it."""
    bits: int = 8
    """Bits of a weight, 2 to 8; each output channel of a kernel has a scale of its own."""
    checkpoint: str = "last"
    """`last`, `best` (on validation data), a step, or `ema`: the averaged weights of the last, of a run with --ema."""
    data_dir: str | None = None
    """Folder with prepared TFDS data sets, if it is not where the run found it."""

    def __call__(self, trust: Trust) -> int:
        from bap_jax.cli.commands.weights import run_quantize

        return run_quantize(self, trust)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(_Stored):
    """Write a trained network's weights, masks and model card, for PyTorch or whatever else reads safetensors; or the network as
    one small file that bap.load reads.

    Example: bap export runs/x --format safetensors --layout torch
    """

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder."""
    format: str = "safetensors"
    """The format of the files: `safetensors`; `packed`, one file without the zeros, with all it takes to rebuild the network;
    `int8`, such a file with the kernels as integers; `stablehlo`, a program for JAX on any device, without this library (needs
    the extra `export`). docs/export.md describes them."""
    layout: str = "auto"
    """Names and axes: `torch` (NCHW, the network's common names in PyTorch), `jax` (NHWC, our own), or `auto`: torch where
    the network's names there are known. docs/weights.md lists them."""
    architecture: str | None = None
    """Whose names the layout torch takes, if the model is your own `package.module:factory`: e.g. `resnet18`."""
    checkpoint: str = "last"
    """`last`, `best` (on validation data), a step, or `ema`: the averaged weights of the last, of a run with --ema."""
    out: Path | None = None
    """The file of the weights; masks and card go beside it. By default export/model.safetensors in the run folder."""
    dtype: str = "float32"
    """Of --format packed: `float32`, or `float16`, which rounds."""
    bits: int | None = None
    """Of --format int8: the bits of a weight, 2 to 8; each takes a byte whatever it is. By default those that the network has
    already, else 8."""
    weights: str = "inside"
    """Of --format stablehlo: the weights are `inside` the program, or `beside` it in a .npz file."""
    gradients: bool = False
    """Of --format stablehlo: with the derivative, so that the program can be attacked by gradients."""
    data_dir: str | None = None
    """Folder with prepared TFDS data sets, if it is not where the run found it."""

    def __call__(self, trust: Trust) -> int:
        from bap_jax.cli.commands.weights import run_export

        return run_export(self, trust)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Import(_Command):
    """Make a run folder of weights from elsewhere, so that they can be evaluated: safetensors, or a PyTorch state dict.

    Example: bap import resnet18.safetensors --model resnet18 --data cifar10 --out runs/y
    """

    file: Annotated[Path, tyro.conf.Positional]
    """A .safetensors file, or a state dict or checkpoint that PyTorch saved (read without PyTorch; nothing in it is run)."""
    model: str
    """The network they belong to, and its options (`--model.depth 16`): as for bap train."""
    data: str
    """What it classifies: as for bap train."""
    out: Path
    """The run folder to write; absent or empty."""
    data_dir: str | None = None
    """Folder with prepared TFDS data sets; else TFDS_DATA_DIR."""
    image_size: int | None = None
    """Resize the shorter side of TFDS images to this and cut out the middle square."""
    layout: str = "auto"
    """Names and axes in the file: `torch`, `jax`, or `auto`, by what the names look like."""
    architecture: str | None = None
    """Whose names the layout torch takes, if the model is your own `package.module:factory`: e.g. `resnet18`."""
    masks: str = "file"
    """Which weights are pruned: those that the masks beside the `file` (or in it) say, none where there are no masks; or
    `nonzero`: every weight that is zero; or `scores`: all but the largest `popup_scores` in it (HYDRA)."""
    sparsity: float | None = None
    """With --masks scores: the fraction of each layer that is pruned, which the file does not say."""
    key: str | None = None
    """Where in a PyTorch checkpoint the weights stand, if there are several: e.g. `model_ema` or `model.state_dict`."""

    def __call__(self, trust: Trust) -> int:
        from bap_jax.cli.commands.weights import run_import

        return run_import(self, trust)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareData(_Command):
    """Prepare a TFDS data set once, in the format that training reads without TensorFlow. Needs the extra `data`.

    Example: bap data prepare mnist --data-dir DIR
    """

    name: Annotated[str, tyro.conf.Positional]
    """A TFDS name such as `mnist`, a folder of images (split/class/image.png, .jpg, .webp, .tiff, .bmp, ...; all are decoded, and
    what is passed over is said), or `package.module:Builder`."""
    data_dir: str | None = None
    """Where to put it; else TFDS_DATA_DIR, else ~/tensorflow_datasets."""

    def __call__(self, trust: Trust) -> int:
        from bap_jax.cli.commands.data import run_prepare

        return run_prepare(self, trust)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowData(_Command):
    """Describe a data set that is there: sizes, shape, classes, mean and standard deviation of its pixels.

    Example: bap data show digits
    """

    name: Annotated[str, tyro.conf.Positional] = "digits"
    """`digits`, a prepared TFDS data set, or `package.module:factory`."""
    data_dir: str | None = None
    """Folder with prepared TFDS data sets; else TFDS_DATA_DIR."""

    def __call__(self, trust: Trust) -> int:
        from bap_jax.cli.commands.data import run_show

        return run_show(self, trust)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench(_Command):
    """Time things against each other, interleaved, and print the ratios.

    Example: bap bench --suite attack --data mnist --model lenet5
    """

    suite: Literal["step", "attack", "mask", "budget", "autoattack", "sweep", "io", "import"] = "step"
    """What is timed: training steps, blind and uniform, on one device and several; PGD alone; masks of the whole network; a step
    with each budget; AutoAttack on a batch; sixteen cells by `bap sweep`; what a run reads and writes; starting."""

    data: str = "digits"
    """`digits` or a prepared TFDS data set."""
    data_dir: str | None = None
    """Folder with prepared TFDS data sets; else TFDS_DATA_DIR."""
    model: str = "lenet5"
    """Which network."""
    batch_size: int = 128
    """Examples in a batch."""
    attack_steps: int = 7
    """PGD steps of the training attack, the same for the uniform and the blind step."""
    rounds: int = 7
    """How often each is timed, in turn."""
    sweep: bool = False
    """The same as --suite sweep: sixteen cells, against a process per cell and one process that loops over them, once each."""
    sweep_steps: int = 200
    """Training steps of each of the cells of a sweep."""
    devices: int | None = None
    """CPU devices of the several-device arm; one per core by default."""
    out: Path | None = None
    """Write the figures as JSON too."""

    def set_up(self) -> None:
        set_up_process(None)  # it counts devices in other processes

    def __call__(self, trust: Trust) -> int:
        from bap_jax.cli.commands.bench import run_bench

        return run_bench(self, trust)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepFile(_Process):
    """Train and evaluate every cell of a sweep, skip what is finished, go on with what was interrupted, and report.

    Example: bap sweep experiments/digits_aer.py --out runs/digits_aer
    """

    file: Annotated[Path, tyro.conf.Positional]
    """A Python file that defines SWEEP, a `bap_jax.sweeps.grid.Sweep`: data × model × arm × epsilon × sparsity × pruning
    process × seed."""
    out: Path
    """Where cells and report go."""
    seeds: int | None = None
    """So many seeds, from 0 on, instead of the file's."""
    together: Literal["auto", "loop", "vmap"] = "auto"
    """Cells that differ only in numbers train together (`vmap`), one after the other in one compile (`loop`), or as is faster
    here (`auto`, which times a few steps of both)."""
    data_dir: str | None = None
    """Folder with prepared TFDS data sets; else TFDS_DATA_DIR."""
    shard: str | None = None
    """I/N: do part I of N of the sweep, from 0: the same command on N machines that see one --out, in any scheduler's array job.
    What trains together stays together. Once all parts are done, the command without --shard writes the report."""
    claim: bool = False
    """Share the sweep with other processes that are given --claim, on any machine that sees --out: each takes what nobody has
    locked, until nothing is left to take. What a process that died had is taken by another."""
    dry_run: bool = False
    """Only list the cells and what has become of them so far."""

    def __call__(self, trust: Trust) -> int:
        from bap_jax.cli.commands.sweep import run_sweep_file

        return run_sweep_file(self, trust)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo(_Process):
    """The main job on the embedded digits: five ways to train, three sparsities, two pruning processes, one report."""

    seeds: int = 1
    """Seeds per cell."""
    out: Path = Path("runs/demo")
    """Where runs and report go. Finished cells are not computed again."""

    def __call__(self, trust: Trust) -> int:
        from bap_jax.cli.commands.sweep import run_demo

        return run_demo(self, trust)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListZoo(_Command):
    """Show the trained networks that come with the package."""

    def __call__(self, trust: Trust) -> int:
        from bap_jax.cli.commands.zoo import run_list

        return run_list(self, trust)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowZoo(_Command):
    """Show how a network of the zoo was made, and what was measured of it.

    Example: bap zoo show digits-mlp-bap-90
    """

    name: Annotated[str, tyro.conf.Positional]
    """Its name, as `bap zoo list` shows it."""

    def __call__(self, trust: Trust) -> int:
        from bap_jax.cli.commands.zoo import run_show

        return run_show(self, trust)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runs(_Command):
    """List run folders: data, network, method, sparsity, accuracies, and whether each is finished.

    Example: bap runs runs
    """

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional] = (Path("runs"),)
    """Where to look, and below."""

    def __call__(self, trust: Trust) -> int:
        from bap_jax.cli.commands.runs import run_runs

        return run_runs(self, trust)


_Data = Annotated[
    Annotated[PrepareData, tyro.conf.subcommand("prepare")] | Annotated[ShowData, tyro.conf.subcommand("show")],
    tyro.conf.subcommand("data", description="Prepare a data set, or describe one."),
]

_Zoo = Annotated[
    Annotated[ListZoo, tyro.conf.subcommand("list")] | Annotated[ShowZoo, tyro.conf.subcommand("show")],
    tyro.conf.subcommand("zoo", description="List the trained networks that come with the package, or describe one."),
]


def command(read: type = Train) -> Any:
    """Every command, as a type that tyro reads; ``read`` is one of them, in its place, with the options of what fills its slots
    (:func:`bap_jax.cli.slots.train_with`, :func:`bap_jax.cli.slots.with_network`).
    """
    train, imported, bench = (read if issubclass(read, one) else one for one in (Train, Import, Bench))
    return (
        Annotated[train, tyro.conf.subcommand("train")]  # type: ignore[valid-type]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Benchmark, tyro.conf.subcommand("benchmark")]
        | Annotated[Report, tyro.conf.subcommand("report")]
        | Annotated[Compact, tyro.conf.subcommand("compact")]
        | Annotated[Quantize, tyro.conf.subcommand("quantize")]
        | Annotated[Runs, tyro.conf.subcommand("runs")]
        | Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[imported, tyro.conf.subcommand("import")]
        | _Data
        | _Zoo
        | Annotated[SweepFile, tyro.conf.subcommand("sweep")]
        | Annotated[bench, tyro.conf.subcommand("bench")]
        | Annotated[Demo, tyro.conf.subcommand("demo")]
    )
