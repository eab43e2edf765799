"""How a run trains, whatever it trains: batches, seed, what is measured, written and kept on the way."""

from __future__ import annotations

import dataclasses
import math

from bap_jax.data import Source
from bap_jax.errors import SettingError
from bap_jax.inputs import largest_radius, require_radius
from bap_jax.runs.settings import Settings
from bap_jax.types import Bounds, Norm


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """What holds in all phases of a run."""

    batch_size: int = 128
    """Examples in a batch, over all devices."""
    microbatches: int = 1
    """In how many chunks a batch is taken, one after the other, see :func:`bap_jax.make_train_step`."""
    attack_chunks: int = 1
    """In how many chunks margins and attacks are taken."""
    seed: int = 0
    """Seed of weights, batch order, augmentation and attacks."""
    augment: bool = False
    """Shift by up to 10 % and flip training images at random."""
    ema: float = 0.0
    """Decay of an exponential moving average of the pruned weights, e.g. 0.999; 0 keeps none."""
    validations: int = 10
    """How often a phase is validated; before its network is as sparse as asked for it is not."""
    validation_epsilons: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3)
    """Radii at which validation measures robust accuracy; the best checkpoint has the largest mean."""
    validation_norm: Norm = "linf"
    """The norm of these radii."""
    validation_steps: int = 10
    """Steps of the PGD attack of validation."""
    validation_limit: int = 500
    """Validate on at most so many examples."""
    log_every: int = 10
    """Steps between lines of metrics."""
    keep: int = 2
    """How many of the newest checkpoints to keep, besides the best of each phase."""
    save_seconds: float = 5.0
    """Least seconds between two checkpoints that are not the best so far."""

    def check(self, bounds: Bounds, image_shape: tuple[int, ...]) -> TrainingOptions:
        """Refuses what makes no sense, before any work starts.

        Args:
          bounds: of the images.
          image_shape: of one image.

        Raises:
          SettingError: for the first such option.

        Example:
          >>> TrainingOptions(batch_size=0).check(Bounds(), (8, 8, 1))
          Traceback (most recent call last):
              ...
          bap_jax.errors.SettingError: batch_size = 0: expected a whole number of at least 1
        """
        counts = ("batch_size", "microbatches", "attack_chunks")
        for name in (*counts, "validations", "validation_steps", "validation_limit", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise SettingError(name, getattr(self, name), "a whole number of at least 1")
        for name in counts[1:]:
            if self.batch_size % getattr(self, name):
                raise SettingError(name, getattr(self, name), f"a number that batch_size = {self.batch_size} divides into")
        if not 0 <= self.seed < 2**31:
            raise SettingError("seed", self.seed, "a whole number in [0, 2^31)")
        if not 0 <= self.ema < 1:
            raise SettingError("ema", self.ema, "a number in [0, 1)")
        if not self.save_seconds >= 0:
            raise SettingError("save_seconds", self.save_seconds, "0 or more")
        if not self.validation_epsilons or list(self.validation_epsilons) != sorted(set(self.validation_epsilons)):
            raise SettingError("validation_epsilons", self.validation_epsilons, "radii, each above the one before")
        require_radius(self.validation_epsilons, self.validation_norm, bounds, image_shape, "validation_epsilons")
        return self


def validation_radii(norm: Norm, image_shape: tuple[int, ...], width: float = 1.0) -> tuple[float, ...]:
    """Radii to validate at where none were given: those that are usual for such images.

    In L∞ (and RMS) 0, 0.1, 0.2, 0.3 of the box on grey images, 0, 2/255, 4/255, 8/255 on images in colour, of D features. In L2
    they are √D / 4 and in L1 D / 8 times as long: 0.43 and 12 at most on CIFAR-10, where 0.5 and 12 are usual.

    Args:
      norm: that the run measures budgets in.
      image_shape: [H, W, C], or whatever images are.
      width: of the box.

    Example:
      >>> validation_radii("linf", (8, 8, 1)), [round(255 * radius) for radius in validation_radii("linf", (32, 32, 3))]
      ((0.0, 0.1, 0.2, 0.3), [0, 2, 4, 8])
      >>> validation_radii("l2", (32, 32, 3)), validation_radii("l1", (32, 32, 3))
      ((0.0, 0.109, 0.217, 0.435), (0.0, 3.01, 6.02, 12.0))
    """
    colour = len(image_shape) == 3 and image_shape[-1] > 1
    usual = (0.0, 2 / 255, 4 / 255, 8 / 255) if colour else (0.0, 0.1, 0.2, 0.3)
    features = math.prod(image_shape)
    longer = width * {"l2": math.sqrt(features) / 4, "l1": features / 8}.get(norm, 1.0)
    return usual if longer == 1.0 else tuple(float(f"{radius * longer:.3g}") for radius in usual)


def options_of(settings: Settings, data: Source, save_seconds: float = 5.0) -> TrainingOptions:
    """The part of settings that says how a run trains, whatever it trains; ``data`` is what it trains on."""
    width = largest_radius("linf", data.bounds, data.image_shape)
    same = (
        "batch_size",
        "microbatches",
        "attack_chunks",
        "seed",
        "augment",
        "ema",
        "validations",
        "validation_steps",
        "validation_limit",
        "log_every",
        "keep",
    )
    return TrainingOptions(
        **{name: getattr(settings, name) for name in same},
        validation_epsilons=settings.validation_radii() or validation_radii(settings.norm, data.image_shape, width),
        validation_norm=settings.norm,
        save_seconds=save_seconds,
    )
