"""Arguments that several commands have."""
import argparse
import json
from typing import Any

from spanbert_jax.cluster.detection import Flags


def add_process_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--coordinator`, `--processes` and `--process`, which `join_processes` reads."""
    group = parser.add_argument_group("runs of several processes", "detected under Slurm, Open MPI, Cloud TPU and "
                                      "Kubernetes; elsewhere give all three arguments")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0, with a free port")
    group.add_argument("--processes", type=int, metavar="N", help="number of processes")
    group.add_argument("--process", type=int, metavar="I", help="index of this process, from 0")


def join_processes(args: argparse.Namespace) -> None:
    """Joins the other processes of the run, if any; see `cluster.joining.join`. Call it before using a device."""
    from spanbert_jax.cluster.joining import join
    join(Flags(args.coordinator, args.processes, args.process))


def add_step(parser: argparse.ArgumentParser) -> None:
    """Adds `--step`."""
    parser.add_argument("--step", type=int, help="step of the checkpoint in a workdir (default: the newest)")


def add_tokenizer(parser: argparse.ArgumentParser) -> None:
    """Adds `--tokenizer`."""
    parser.add_argument("--tokenizer", metavar="FILE", help="vocab.txt, tokenizer.json or a directory with one of "
                        "them, if the model comes without a tokenizer")


def add_task_settings(parser: argparse.ArgumentParser) -> None:
    """Adds `--set`, whose value is a list of (field, value) pairs."""
    parser.add_argument("--set", action="append", default=[], type=_task_setting, metavar="FIELD=VALUE",
                        help="override a setting of the task, such as beams=1 for generation or n_best=20 for answers; "
                        "`evaluate` also takes masking.scheme=geometric and evaluation.masks=4 for a pretrained model; "
                        "may be repeated")


def _task_setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write FIELD=VALUE; the value is a number, true, false, a text or "
                                         "a list")
    try:
        return name, json.loads(value.lower() if value.lower() in ("true", "false") else value)
    except ValueError:
        return name, value
