"""`python -m bap_jax` is the command `bap`."""

from bap_jax.cli.main import main

main()
