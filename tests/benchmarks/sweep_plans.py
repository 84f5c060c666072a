"""What the compilers estimate for the named sizes on whole slices: python -m tests.benchmarks.sweep_plans [PART ...]

Parts: base, large, scaling; without one, all. A compilation takes minutes, and what it says is kept, so that the sweep
can be stopped and continued. `source launch/tpu_flags.sh` first, as every road to TPUs does.
"""
from __future__ import annotations

import sys

from spanbert_jax.commands.configs import load_config
from spanbert_jax.planning.hardware import parse_topology
from spanbert_jax.planning.plans import make_plan
from spanbert_jax.planning.report import compare, describe

# (config, topology, rows on a chip at a time, further overrides)
ZERO1 = ("--config.mesh.zero1=True",)
BFLOAT16 = (*ZERO1, "--config.compute.gradient_dtype=bfloat16")
PARTS = {
    "large": [("large", "v6e:16x16", 32, ZERO1), ("large", "v5p:8x8x16", 32, ZERO1), ("large", "v5e:16x16", 16, ZERO1)],
    "base": [("base", "v5e:16x16", 32, ()), ("base", "v5e:16x16", 32, ZERO1), ("base", "v6e:16x16", 32, ZERO1),
             ("base", "v5p:8x8x16", 32, ZERO1), ("base", "v5e:16x16", 16, ZERO1), ("base", "v5e:16x16", 64, ZERO1),
             ("base", "v5e:16x16", 32, BFLOAT16)],
    "scaling": [("base", topology, 32, ()) for topology in ("v5e:2x4", "v5e:8x8", "v5e:16x16", "4*v5e:16x16")],
}


def main(parts: list[str]) -> None:
    """Prints a table for each part."""
    for part in parts or PARTS:
        plans = []
        for name, text, rows, overrides in PARTS[part]:
            topology = parse_topology(text)
            config = load_config(f"configs/{name}.py", [
                f"--config.train.batch_size={rows * topology.chips}",
                f"--config.evaluation.batch_size={topology.chips}", *overrides])
            plans.append(make_plan(config, topology))
            print(f"{name} {' '.join(overrides)}\n{describe(plans[-1])}\n", flush=True)
        print(f"{part}\n{compare(plans)}\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
