"""JSON stays JSON: what this package writes, any reader of JSON takes."""

import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest

from bap_jax.atomic import json_text

PACKAGE = Path(__file__).resolve().parent.parent / "bap_jax"


def strictly(text):
    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def test_what_is_not_finite_becomes_null_however_deep():
    value = {"a": [math.inf, {"b": (-math.inf, 1.5)}], "c": np.float64("nan"), "d": [None, True, "NaN", 3]}
    assert strictly(json_text(value)) == {"a": [None, {"b": [None, 1.5]}], "c": None, "d": [None, True, "NaN", 3]}
    assert json_text({"a": 1}, indent=1) == json.dumps({"a": 1}, indent=1)
    with pytest.raises(TypeError):
        json_text({"a": object()})


def loose_writers(source: str, name: str) -> list[str]:
    """Calls of ``json.dump`` and ``json.dumps`` that would write NaN."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("dump", "dumps"):
            strict = [k for k in node.keywords if k.arg == "allow_nan" and getattr(k.value, "value", True) is False]
            if getattr(node.func.value, "id", "") == "json" and not strict:
                found.append(f"{name}:{node.lineno}")
    return found


def test_nothing_in_the_package_writes_json_that_is_none():
    assert loose_writers("import json\njson.dumps({}, indent=1)\njson.dumps(1, allow_nan=False)", "x.py") == ["x.py:2"]
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 50
    assert [line for path in files for line in loose_writers(path.read_text(encoding="utf-8"), path.name)] == []
