"""The experiments: one file per table or figure, run with ``python -m experiments.NAME``."""
