"""Our attacks against public implementations, on the same network and the same examples: ``make crosscheck``."""
