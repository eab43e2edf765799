"""A training run that can be killed: ``train_in_steps.py SETTINGS-JSON OUT`` goes on with the run in OUT and says every step."""

import json
import sys
import time
from pathlib import Path

from bap_jax.runs.loop import train
from bap_jax.runs.settings import Settings


def say(done, total, metrics):
    print(done, flush=True)
    time.sleep(0.01)  # so that kills land between steps, in them and in the saving, which goes on in another thread


if __name__ == "__main__":
    train(Settings(**json.loads(sys.argv[1])), Path(sys.argv[2]), resume=True, save_seconds=0.0, progress=say)
