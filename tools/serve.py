"""Serves a program of ``bap export --format stablehlo`` with jax and numpy alone, and times it: a file to copy, not to import.

    python tools/serve.py model.stablehlo [--batch 128] [--rounds 20]

Printed are the bytes on disk, the seconds from opening the file to the first answer (reading, compiling, running), and images per
second at that batch: the median of the rounds, with the slowest and the fastest.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import jax
import numpy as np


def main(words: list[str]) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args(words)
    beside = Path(f"{given.program}.npz")
    begin = time.perf_counter()
    program = jax.export.deserialize(bytearray(given.program.read_bytes()))
    *takes, images = program.in_avals
    weights = [dict(np.load(beside))] if takes else []
    batch = np.random.default_rng(0).random((given.batch, *map(int, images.shape[1:])), dtype=np.float32)
    call = jax.jit(program.call)
    jax.block_until_ready(call(*weights, batch))
    start = time.perf_counter() - begin
    seconds = []
    for _ in range(given.rounds):
        begin = time.perf_counter()
        jax.block_until_ready(call(*weights, batch))
        seconds.append(time.perf_counter() - begin)
    rates = sorted(given.batch / one for one in seconds)
    size = given.program.stat().st_size + (beside.stat().st_size if takes else 0)
    found = {"bytes": size, "start": start, "rate": statistics.median(rates), "least": rates[0], "most": rates[-1]}
    print("{bytes:,} bytes; first answer after {start:.2f} s; {rate:,.0f} images/s ({least:,.0f}–{most:,.0f})".format(**found))
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
