"""A training run: its start, module, callbacks, evaluation, resumption and replay."""
