"""A run of three phases that can be killed: ``fit_in_steps.py TIMES OUT`` goes on with the run in OUT and says every step."""

import sys

from phases_for_tests import phases, trained
from train_in_steps import say

if __name__ == "__main__":
    trained(phases(int(sys.argv[1])), out=sys.argv[2], resume=True, callback=say)
