"""The examples of an evaluation, and batches of one size made of any of them: a shrinking number compiles nothing anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from bap_jax.types import Batch


class Examples(NamedTuple):
    """N examples on the host, padding left out."""

    images: np.ndarray  # [N, ...]
    labels: np.ndarray  # [N] int32
    index: np.ndarray  # type: ignore[assignment]  # [N] int32: position in the data set
    batch_size: int

    def batches(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Batch]]:
        """The chosen rows in batches of ``batch_size``; the last is padded, by copies of its first row with weight 0.

        Args:
          rows: [R] positions among the examples.

        Returns:
          Pairs of the rows in a batch (at most ``batch_size``) and the batch, whose first rows they are.

        Example:
          >>> examples = Examples(np.zeros((5, 2), np.float32), np.arange(5), np.arange(5), 2)
          >>> [(part.tolist(), batch.weight.tolist()) for part, batch in examples.batches(np.array([0, 3, 4]))]
          [([0, 3], [1.0, 1.0]), ([4], [1.0, 0.0])]
        """
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            real = np.arange(self.batch_size) < len(part)
            chosen = np.where(real, np.resize(part, self.batch_size), part[0])
            index = np.where(real, self.index[chosen], self.index.max() + 1).astype(np.int32)
            columns: tuple[Any, ...] = (self.images[chosen], self.labels[chosen], index, real.astype(np.float32))
            yield part, Batch(*columns)
