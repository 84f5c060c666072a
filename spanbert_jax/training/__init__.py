"""The training engine: mesh and sharding, state, step, loop and checkpoints of a run, whatever its workload."""
