"""The mathematics under attacks, budgets and pruners: norms, projections, objectives, schedules and masks, without state."""

from bap_jax.mathematics.norms import dual_norm as dual_norm
from bap_jax.mathematics.norms import normalize as normalize
from bap_jax.mathematics.norms import per_example_norm as per_example_norm
from bap_jax.mathematics.norms import steepest_direction as steepest_direction
from bap_jax.mathematics.objectives import cross_entropy as cross_entropy
from bap_jax.mathematics.objectives import dlr as dlr
from bap_jax.mathematics.objectives import dlr_targeted as dlr_targeted
from bap_jax.mathematics.objectives import kl_divergence as kl_divergence
from bap_jax.mathematics.objectives import margin as margin
from bap_jax.mathematics.objectives import margin_loss as margin_loss
from bap_jax.mathematics.objectives import misclassified as misclassified
from bap_jax.mathematics.objectives import probability_margin_loss as probability_margin_loss
from bap_jax.mathematics.objectives import soft_cross_entropy as soft_cross_entropy
from bap_jax.mathematics.objectives import soft_margin_loss as soft_margin_loss
from bap_jax.mathematics.objectives import successful as successful
from bap_jax.mathematics.objectives import top_k_margin_loss as top_k_margin_loss
from bap_jax.mathematics.per_example import choose as choose
from bap_jax.mathematics.per_example import expand as expand
from bap_jax.mathematics.per_example import num_features as num_features
from bap_jax.mathematics.projections import clip_to_bounds as clip_to_bounds
from bap_jax.mathematics.projections import project_ball as project_ball
from bap_jax.mathematics.projections import uniform_in_ball as uniform_in_ball
