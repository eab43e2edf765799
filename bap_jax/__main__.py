"""`python -m bap_jax` is the command `bap`."""

import os
import sys

# `-m` makes the current folder the first place that modules are looked for in, before the standard library. It may be a
# stranger's run folder, with a json.py of its own; the command `bap` does not look there either.
if not sys.flags.safe_path and sys.path and sys.path[0] == os.getcwd():
    del sys.path[0]

from bap_jax.cli.main import main

main()
