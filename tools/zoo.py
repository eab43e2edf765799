"""Train, measure and pack the networks of the zoo: into the package, each with its card.

    python -m tools.zoo --runs runs/zoo [NAME …]       # all that a recipe is here for, or those named
    python -m tools.zoo --runs runs/zoo --list

A run that is there and finished is not trained again. What takes longer than minutes to train comes from the experiments' runs:
--from RUN packs such a run under NAME, and takes the commands from the recipe.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from bap_jax.atomic import json_text, write_atomic
from bap_jax.runs.one_file import export_packed
from bap_jax.runs.records import evaluations_of
from bap_jax.runs.zoo import CARD, FOLDER, NETWORK, Card

HERE = Path(__file__).resolve().parent.parent / "bap_jax" / "runs" / FOLDER
LARGEST = 5_000_000  # bytes of all networks together: the wheel stays below 6 MB
DIGITS = "--data digits --model mlp --batch-size 64 --epochs 60 --pruner.scope global --ramp-end 0.8 --final-sparsity 0.9"
EVALUATE = "--attack pgd --norm linf --epsilon 0.1,0.2,0.3 --steps 20"


class Recipe(NamedTuple):
    """How a network is made, in the words of the command line."""

    about: str
    train: str
    evaluate: str = EVALUATE


RECIPES = {
    "digits-mlp-clean-90": Recipe("An MLP on digits, pruned to 90 % in clean training.", f"{DIGITS} --budget none"),
    "digits-mlp-uniform-90": Recipe(
        "An MLP on digits, pruned to 90 % in adversarial training by PGD at one radius for all images.",
        f"{DIGITS} --budget uniform --budget.epsilon 0.2",
    ),
    "digits-mlp-bap-90": Recipe(
        "An MLP on digits, pruned to 90 % in blind adversarial training: a budget for each image, no radius prescribed.",
        f"{DIGITS} --budget cutoff-scale",
    ),
}


def make(name: str, recipe: Recipe, run: Path, given: bool) -> Path:
    """Trains and measures unless that is done, packs, and writes the card."""
    commands = [f"bap train {recipe.train} --out RUN", f"bap evaluate RUN {recipe.evaluate}"]
    if not given and not (run / "evaluations").is_dir():
        for command in commands:
            words = [str(run) if word == "RUN" else word for word in shlex.split(command)[1:]]
            words += ["--resume"] if words[0] == "train" else []
            subprocess.run([sys.executable, "-m", "bap_jax", *words], check=True)
    (record,) = [record for record in evaluations_of(run) if record["plan"]["split"] == "test"]
    file = HERE / f"{name}{NETWORK}"
    HERE.mkdir(exist_ok=True)
    export_packed(run, out=file)
    first = record["rows"][0]
    rows = ("attack", "norm", "epsilon", "accuracy", "num_examples", "low", "high")
    card = Card(
        name=name,
        about=recipe.about,
        data=first["data"],
        model=first["model"],
        method=first["method"],
        sparsity=first["sparsity"],
        train=commands[0],
        evaluate=commands[1],
        step=record["step"],
        accuracies=tuple({key: row[key] for key in rows} for row in record["rows"]),
        checks=tuple(record["checks"]),
        versions=record["versions"],
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        num_bytes=file.stat().st_size,
    )
    write_atomic(HERE / f"{name}{CARD}", json_text(card._asdict(), indent=1) + "\n")
    return file


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the recipes; all by default")
    parser.add_argument("--runs", type=Path, default=Path("runs/zoo"), help="where runs go")
    parser.add_argument("--from", dest="run", type=Path, help="a run that is there, for one NAME")
    parser.add_argument("--list", action="store_true", help="only say the recipes")
    arguments = parser.parse_args()
    if arguments.list:
        for name, recipe in RECIPES.items():
            print(f"{name}: bap train {recipe.train}")
        return
    unknown = [name for name in arguments.names if name not in RECIPES]
    if unknown or (arguments.run is not None and len(arguments.names) != 1):
        parser.error(f"{unknown or arguments.names}: expected one of {', '.join(RECIPES)}")
    for name in arguments.names or RECIPES:
        file = make(name, RECIPES[name], arguments.run or arguments.runs / name, arguments.run is not None)
        print(f"{file}: {file.stat().st_size:,} bytes")
    total = sum(path.stat().st_size for path in HERE.iterdir())
    if total > LARGEST:
        raise SystemExit(f"the zoo has {total:,} bytes, more than {LARGEST:,}")


if __name__ == "__main__":
    main()
