"""The flags with which a verb runs as many processes, where no cluster tells of them."""
from __future__ import annotations

import argparse

from spanbert_jax.cluster.detection import Flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that `join` reads."""
    group = parser.add_argument_group(
        "many processes", "found by itself under Slurm, Open MPI, Cloud TPU and Kubernetes; elsewhere give all three")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, with a free port")
    group.add_argument("--processes", type=int, metavar="N", help="in all")
    group.add_argument("--process", type=int, metavar="I", help="which of them this is, from 0")


def join(args: argparse.Namespace) -> None:
    """Joins the other processes of the run, if there are any; before anything asks JAX for a device.

    Raises:
      UserError: on flags or variables that contradict each other or lack a part.
    """
    from spanbert_jax.cluster.joining import join
    join(Flags(args.coordinator, args.processes, args.process))
