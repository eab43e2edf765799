"""One run, from its settings to what it leaves behind: training, resuming, validating, evaluating, reading it again."""
