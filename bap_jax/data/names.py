"""Names of data sets that are nearly right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that somebody who wrote this one probably meant, if there is one.

    Args:
      name: what was written; a config or version after ``/`` or ``:`` is left aside.
      known: the names that there are.

    Example:
      >>> nearest("cifar-10", ["cifar10", "cifar100", "mnist"]), nearest("CIFAR10", ["cifar10"]), nearest("faces", ["mnist"])
      ('cifar10', 'cifar10', None)
    """
    plain = {_plain(other): other for other in sorted(known, key=len, reverse=True)}
    found = difflib.get_close_matches(_plain(re.split("[/:]", name)[0]), plain, n=1, cutoff=0.8)
    return plain[found[0]] if found else None


def meant(name: str) -> str | None:
    """The data set that is like a name which TFDS does not know.

    Example:
      >>> meant("digit"), meant("mnist")
      ('digits', None)
    """
    import tensorflow_datasets as tfds  # here: `import bap_jax` must not load it

    known = {"digits", *tfds.list_builders(with_community_datasets=False)}
    return None if re.split("[/:]", name)[0] in known else nearest(name, known)


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())
