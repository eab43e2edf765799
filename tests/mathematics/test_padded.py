import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bap_jax.mathematics.padded import mean_of_real, quantile_of_real

rows = st.lists(st.tuples(st.floats(-8, 8, width=16), st.booleans()), min_size=6, max_size=6)


@settings(max_examples=40, deadline=None)
@given(rows, st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]))
def test_they_are_those_of_the_real_rows_alone(pairs, level):
    values, real = (np.array(column) for column in zip(*pairs, strict=True))
    given_ = jnp.asarray(values, jnp.float32), jnp.asarray(real, jnp.float32)
    kept = values[real]
    np.testing.assert_allclose(mean_of_real(*given_), kept.mean() if len(kept) else 0.0, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        quantile_of_real(*given_, level), np.quantile(kept, level) if len(kept) else 0.0, rtol=1e-5, atol=1e-6
    )
