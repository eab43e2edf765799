"""bap_jax: robust pruning in JAX. Pure functions for masks, attacks and budgets, one train step, evaluation that can be trusted.

Example:
  >>> import bap_jax as bap
  >>> import jax.numpy as jnp
  >>> bap.magnitude_masks({"kernel": jnp.array([[3.0, -1.0]])}, 0.5)["kernel"].tolist()
  [[True, False]]

Names are looked up when they are first used: importing this package alone loads neither jax nor anything else.
"""

# Not even of the standard library is anything imported here: `python -m bap_jax` runs this file while the current folder is
# still the first place that modules are looked for in, and what lies there may be a stranger's.
TYPE_CHECKING = False  # type checkers and editors take it for true, by its name

if TYPE_CHECKING:
    from bap_jax import (
        attacks,
        budgets,
        checkpoint,
        data,
        errors,
        evaluation,
        export,
        losses,
        mathematics,
        models,
        parallel,
        pruners,
        report,
        runs,
        structure,
        sweeps,
        training,
        types,
    )
    from bap_jax.attacks import apgd, deepfool, fgsm, fmn, pgd
    from bap_jax.errors import CheckpointError, DataError, NonFiniteError, SettingError
    from bap_jax.evaluation import autoattack, evaluate, named_threat
    from bap_jax.mathematics import schedules
    from bap_jax.mathematics.fast import fast
    from bap_jax.mathematics.group_masks import group_masks
    from bap_jax.mathematics.masks import (
        apply_masks,
        compression_ratio,
        layer_sparsity,
        magnitude_masks,
        masks_from_scores,
        measured_sparsity,
    )
    from bap_jax.mathematics.schedules import Ramp
    from bap_jax.runs import zoo
    from bap_jax.runs.info import run_info
    from bap_jax.runs.restore import load
    from bap_jax.training import TrainState, init_state, make_train_step, network, with_average
    from bap_jax.types import (
        About,
        Adversarial,
        AttackResult,
        Batch,
        Bounds,
        Budget,
        Length,
        Loss,
        Method,
        Model,
        Network,
        Outputs,
        Phase,
        Pruner,
        Recipe,
        RunInfo,
        Threat,
    )

__version__ = "0.1.0"

__all__ = [
    "About",
    "Adversarial",
    "AttackResult",
    "Batch",
    "Bounds",
    "Budget",
    "CheckpointError",
    "DataError",
    "Length",
    "Loss",
    "Method",
    "Model",
    "Network",
    "NonFiniteError",
    "Outputs",
    "Phase",
    "Pruner",
    "Ramp",
    "Recipe",
    "RunInfo",
    "SettingError",
    "Threat",
    "TrainState",
    "apgd",
    "apply_masks",
    "attacks",
    "autoattack",
    "budgets",
    "checkpoint",
    "compression_ratio",
    "data",
    "deepfool",
    "errors",
    "evaluate",
    "evaluation",
    "export",
    "fast",
    "fgsm",
    "fmn",
    "group_masks",
    "init_state",
    "layer_sparsity",
    "load",
    "losses",
    "magnitude_masks",
    "make_train_step",
    "masks_from_scores",
    "mathematics",
    "measured_sparsity",
    "models",
    "named_threat",
    "network",
    "parallel",
    "pgd",
    "pruners",
    "report",
    "run_info",
    "runs",
    "schedules",
    "structure",
    "sweeps",
    "training",
    "types",
    "with_average",
    "zoo",
]

_PLACES = {  # module of this package -> what of it is offered here; modules themselves are not listed
    "attacks": "apgd deepfool fgsm fmn pgd",
    "errors": "CheckpointError DataError NonFiniteError SettingError",
    "evaluation": "autoattack evaluate named_threat",
    "mathematics.fast": "fast",
    "mathematics.group_masks": "group_masks",
    "mathematics.masks": "apply_masks compression_ratio layer_sparsity magnitude_masks masks_from_scores measured_sparsity",
    "mathematics.schedules": "Ramp",
    "training": "TrainState init_state make_train_step network with_average",
    "runs.info": "run_info",
    "runs.restore": "load",
    "types": "About Adversarial AttackResult Batch Bounds Budget Length Loss Method Model Network Outputs "
    "Phase Pruner Recipe RunInfo Threat",
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names.split()}
_MODULES = {"schedules": "mathematics.schedules", "zoo": "runs.zoo"}  # by another name than their own

if not TYPE_CHECKING:  # or a checker would believe in every name

    def __getattr__(name):
        """What is offered here, from where it stands (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        if name in _PLACE_OF:
            found = getattr(import_module(f"{__name__}.{_PLACE_OF[name]}"), name)
        else:
            found = import_module(f"{__name__}.{_MODULES.get(name, name)}")
        globals()[name] = found  # the next look-up is an ordinary one
        return found

    def __dir__():
        return sorted({*globals(), *__all__})
