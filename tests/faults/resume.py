"""Resumes runs one after the other in one process, which saves the start of a process for each.

  python -m tests.faults.resume CONFIG CORPUS WORKDIR...
"""
import sys

import spanbert_jax

for workdir in sys.argv[3:]:
    config = spanbert_jax.load_config(sys.argv[1], [f"--config.data.path={sys.argv[2]}"])
    spanbert_jax.train(config, workdir)
