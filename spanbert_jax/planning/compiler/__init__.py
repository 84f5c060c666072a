"""Runs in the subprocess that compiles: the devices of a topology, the train step, and reading the compiled program."""
