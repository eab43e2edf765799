"""What devices tell each other in a compiled step: how many collectives of which kind, and how many bytes."""

from __future__ import annotations

import re
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8, "u64": 8}  # others have 4


class Collective(NamedTuple):
    """One collective of a program: its kind, the bytes that it results in on a device, and whether a loop repeats it."""

    kind: str
    bytes: int
    in_loop: bool
    operands: int  # arrays that it carries together


def collectives(text: str) -> list[Collective]:
    """The collectives of a compiled program.

    Args:
      text: ``compiled.as_text()`` of what ``jax.jit(...).lower(...).compile()`` returns.

    Returns:
      One entry for each; one in the body of a loop is counted once, however often the loop goes round.

    Example:
      >>> line = "  %r = (f32[8]{0}, f32[]) all-reduce(f32[8]{0} %a, f32[] %b), replica_groups={{0,1}}, to_apply=%add"
      >>> collectives(f"ENTRY %main (p: f32[8]) -> f32[8] {{\\n{line}\\n}}")
      [Collective(kind='all-reduce', bytes=36, in_loop=False, operands=2)]
    """
    found: list[tuple[str, str, int, int]] = []
    bodies: set[str] = set()
    calls: dict[str, set[str]] = {}
    name = ""
    for line in text.splitlines():
        opened = re.match(r"(?:ENTRY )?%(\S+) \(.*\{$", line)
        if opened:
            name = opened[1]
            calls[name] = set()
            continue
        if " while(" in line:
            bodies |= set(re.findall(r"(?:body|condition)=%([\w.\-]+)", line))
        calls.setdefault(name, set()).update(re.findall(r"%([\w.\-]+)", line.partition(" metadata=")[0]))
        made = re.match(rf"\s+(?:ROOT )?%\S+ = (.*?) ({'|'.join(KINDS)})(?:-start)?\(", line)
        if made:
            shapes = re.findall(r"(\w+)\[([\d,]*)\]", made[1])
            found.append((name, made[2], sum(_bytes(*shape) for shape in shapes), len(shapes)))
    inside = _reached(bodies, calls)
    return [Collective(kind, size, name in inside, operands) for name, kind, size, operands in found]


def _bytes(dtype: str, dimensions: str) -> int:
    size = SIZES.get(dtype, 4)
    for dimension in filter(None, dimensions.split(",")):
        size *= int(dimension)
    return size


def _reached(names: set[str], calls: dict[str, set[str]]) -> set[str]:
    """Computations and all that they call."""
    found, waiting = set(), [name for name in names if name in calls]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [called for called in calls[name] if called in calls]
    return found
