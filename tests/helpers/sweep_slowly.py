"""A sweep that can be killed: ``sweep_slowly.py HOW OUT`` goes on with the sweep in OUT, says every step and writes its rows."""

import sys
import time
from pathlib import Path

from sweeps_for_tests import KILLED

from bap_jax.report import write_csv
from bap_jax.runs.report_inputs import rows_of
from bap_jax.sweeps import execute


def say(done, total, what):
    print(done, what, flush=True)
    time.sleep(0.005)  # so that kills land between steps, in them and in the saving, which goes on in another thread


if __name__ == "__main__":
    execute.SAVE_SECONDS = 0.0
    swept = execute.run_sweep(KILLED, Path(sys.argv[2]), together=sys.argv[1], told=say)
    write_csv(rows_of(swept.records), Path(sys.argv[2]) / "results.csv")
