"""Plans of base and large, as BERT and as ModernBERT, on whole TPU slices: the tables of the page on planning.

  source launch/tpu_flags.sh && python -m tests.benchmarks.sweep_plans [PART ...]

A compilation takes minutes. Results are cached, so that you can stop and continue.
"""
from __future__ import annotations

import argparse

from spanbert_jax.commands.config_files import as_run_config, load_config
from spanbert_jax.planning.hardware import parse_topology
from spanbert_jax.planning.plans import make_plan
from spanbert_jax.planning.report import compare, describe

# (config, topology, rows per chip, further overrides)
ZERO1 = ("--config.mesh.zero1=True",)
BFLOAT16 = (*ZERO1, "--config.compute.gradient_dtype=bfloat16")
MODERN = (*ZERO1, "--config.model.architecture=modernbert", "--config.data.vocab_size=50368",
          "--config.masking.rate=0.3")
SHORT, LONG = "--config.data.length=1024", "--config.data.length=8192"
LARGE = "--config.model.size=large"
PARTS = {
    "large": [("large", "v6e:16x16", 32, ZERO1), ("large", "v5p:8x8x16", 32, ZERO1), ("large", "v5e:16x16", 16, ZERO1)],
    "base": [("base", "v5e:16x16", 32, ()), ("base", "v5e:16x16", 32, ZERO1), ("base", "v6e:16x16", 32, ZERO1),
             ("base", "v5p:8x8x16", 32, ZERO1), ("base", "v5e:16x16", 16, ZERO1), ("base", "v5e:16x16", 64, ZERO1),
             ("base", "v5e:16x16", 32, BFLOAT16)],
    "wide": [("base", "v6e:16x16", 32, (*ZERO1, "--config.model.num_heads=6")),
             ("large", "v6e:16x16", 32, (*ZERO1, "--config.model.num_heads=8"))],
    "modern": [("base", "v5e:16x16", 16, (*MODERN, SHORT)), ("base", "v5e:16x16", 1, (*MODERN, LONG)),
               ("base", "v5p:8x8x16", 16, (*MODERN, LARGE, SHORT)), ("base", "v5p:8x8x16", 2, (*MODERN, LARGE, LONG))],
    "scaling": [("base", topology, 32, ()) for topology in ("v5e:2x4", "v5e:8x8", "v5e:16x16", "4*v5e:16x16")],
}


def main() -> None:
    """Prints a table for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    for part in parser.parse_args().parts or PARTS:
        plans = []
        for name, text, rows, overrides in PARTS[part]:
            topology = parse_topology(text)
            config = load_config(f"configs/{name}.py", [
                f"--config.train.batch_size={rows * topology.chips}",
                f"--config.evaluation.batch_size={topology.chips}", *overrides])
            plans.append(make_plan(as_run_config(config), topology))
            print(f"{name} {' '.join(overrides)}\n{describe(plans[-1])}\n", flush=True)
        print(f"{part}\n{compare(plans)}\n", flush=True)


if __name__ == "__main__":
    main()
