"""A run's network as ONNX, made by jax2onnx in an environment of its own: ``make onnx RUN=runs/NAME``."""
