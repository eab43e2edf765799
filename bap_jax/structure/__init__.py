"""A network's structure: which channels must go together, and the smaller dense network that is left when they are gone."""

from bap_jax.mathematics.channels import Family, Groups, Layer, Slice
from bap_jax.structure.compact import Report, compact
from bap_jax.structure.coupling import groups_of
from bap_jax.structure.picture import describe_groups
from bap_jax.structure.sliced import slice_out, sliced_apply

__all__ = ["Family", "Groups", "Layer", "Report", "Slice", "compact", "describe_groups", "groups_of", "slice_out", "sliced_apply"]
