"""Runs a spanbert-jax command on Kubernetes, from the root of the checkout; launch/gke/README.md explains each step.

  python -m launch.gke.submit tpu --name spanbert --image IMAGE --type v5e --topology 4x4 --claim spanbert -- \\
      train --config configs/base.py --config.data.path=/mnt/spanbert/corpora/mine --workdir /mnt/spanbert/runs/base
  python -m launch.gke.submit gpu --name spanbert --image IMAGE --nodes 2 --gpus 8 --claim spanbert -- train ...
  python -m launch.gke.submit logs --name spanbert
  python -m launch.gke.submit down --name spanbert

It submits the JobSet to the cluster, which restarts the run after preemptions, shows the first process's log, and at
the end writes the logs of all pods to logs/NAME, deletes the JobSet and ends with the run's status. If it is
interrupted, the run continues, and the same command attaches to it again. --dry-run prints the manifest and all
commands, and runs none.
"""
import argparse
import json
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

import yaml

from launch.gke.manifest import TPU_TYPES, ArgumentError, render
from launch.local import run_status
from spanbert_jax.cluster.exit_codes import DONE, FAILED, MISTAKE

# (a part of kubectl's error message, what is wrong and what to do)
_ADVICE = (
    ("no matches for kind \"JobSet\"", "the cluster has no JobSet; install it as launch/gke/README.md says"),
    ("immutable", "a JobSet of this name exists with other settings; use another --name, or delete it with down"),
    ("exceeded quota", "the namespace's quota does not allow it; request a larger quota, or use fewer nodes"),
    ("connection to the server", "no cluster answers; run: gcloud container clusters get-credentials CLUSTER"),
    ("current-context is not set", "no cluster is selected; run: gcloud container clusters get-credentials CLUSTER"),
    ("must be logged in", "not logged in to the cluster; run: gcloud auth login"),
    ("forbidden", "the account may not do this in the namespace; ask for the role Kubernetes Engine Developer"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns the exit status."""
    args = read_flags(argv)
    try:
        cluster = Cluster(args)
        if args.action == "down":
            cluster.delete()
        elif args.action == "logs":
            cluster.bring_logs()
        else:
            return cluster.run(yaml.safe_dump(render(args), sort_keys=False, width=1000))
        return DONE
    except (ArgumentError, ClusterError) as error:
        _log(str(error))
        return MISTAKE if isinstance(error, ArgumentError) else FAILED
    except KeyboardInterrupt:
        _log("the run continues and costs money; the same command attaches to it, and this ends it: "
             f"python -m launch.gke.submit down --name {args.name}")
        return 130


def read_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the arguments; `command` is the command to run, and `accelerator` the kind of nodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True, metavar="tpu|gpu|logs|down")
    every = argparse.ArgumentParser(add_help=False)
    every.add_argument("--name", required=True, help="name of the JobSet")
    every.add_argument("--namespace", default="", help="(default: kubectl's)")
    every.add_argument("--dry-run", action="store_true", help="print the manifest and all commands, and run none")
    runs = argparse.ArgumentParser(add_help=False)
    runs.add_argument("--image", required=True, help="image with this program, from launch/Dockerfile.tpu or .gpu")
    runs.add_argument("--claim", required=True, help="PersistentVolumeClaim with access mode ReadWriteMany")
    runs.add_argument("--restarts", type=int, default=100, metavar="N", help="(default: %(default)s)")
    runs.add_argument("--queue", default="", help="Kueue's LocalQueue, if the cluster has queues")
    runs.add_argument("--spot", action="store_true", help="use spot nodes, which are cheaper and may be preempted")
    runs.add_argument("--keep", action="store_true", help="do not delete the JobSet when the run has ended")
    runs.add_argument("--poll", type=float, default=15, metavar="SECONDS", help="(default: %(default)s)")
    runs.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
    tpu = actions.add_parser("tpu", parents=[every, runs], help="on TPU slices")
    tpu.add_argument("--type", required=True, choices=sorted(TPU_TYPES))
    tpu.add_argument("--topology", required=True, metavar="AxB",
                     help="topology of a slice, such as 4x4, or 2x2x4 for v4 and v5p")
    tpu.add_argument("--slices", type=int, default=1, metavar="N", help="(default: %(default)s)")
    gpu = actions.add_parser("gpu", parents=[every, runs], help="on GPU nodes")
    gpu.add_argument("--type", default="nvidia-h100-80gb", help="GKE's name of the GPU (default: %(default)s)")
    gpu.add_argument("--nodes", type=int, default=1, metavar="N", help="(default: %(default)s)")
    gpu.add_argument("--gpus", type=int, default=8, metavar="N",
                     help="number of GPUs of a node; all are used (default: %(default)s)")
    for action, help_text in (("logs", "fetch the logs"), ("down", "delete the JobSet, running or not")):
        actions.add_parser(action, parents=[every], help=help_text)
    args = parser.parse_args(argv)
    if args.action in ("tpu", "gpu"):
        args.accelerator = args.action
        args.command = args.command[1:] if args.command[:1] == ["--"] else args.command
    return args


class ClusterError(RuntimeError):
    """kubectl failed: one line with what is wrong and what to do."""


class Cluster:
    """A run on a cluster, controlled by kubectl."""

    def __init__(self, args: argparse.Namespace):
        """Calls nothing yet."""
        self.args = args
        self.folder = pathlib.Path("logs") / args.name
        self.jobset = f"jobset/{args.name}"
        # Selectors of all pods, and of that of the first process.
        self.pods = f"--selector=jobset.sigs.k8s.io/jobset-name={args.name}"
        self.first = f"{self.pods},jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0"
        # pod: the time of the last line in the local copy of its log.
        self.collected: dict[str, str] = {}

    def run(self, manifest: str) -> int:
        """Submits the run and follows it to its end. Returns the run's exit status."""
        if self.args.dry_run:
            print(f"{manifest}---")
            self._call("apply", "--filename=-")
            print(f"# Every {self.args.poll:g} seconds until the run ends: its state, and the first process's log.")
            self._call("get", self.jobset, "--output=json")
            for pod in self._list(self.first):
                self._collect(pod["metadata"]["name"])
            print(f"# Then: write every pod's log to {self.folder}, and delete the JobSet unless --keep is given.")
            self.bring_logs()
            self.delete()
            return DONE
        self._call("apply", "--filename=-", text=manifest)
        end = printed = ""
        while not end:
            try:
                # In this order, so that no line logged before the end is missed.
                end, pods = self._end(), self._list(self.first)
                state = self._state(pods)
            except ClusterError as error:
                if not printed:
                    raise
                state, pods = f"{error}; retrying", []
            if state != printed and not end:
                _log(state)
                printed = state
            for pod in pods:
                self._collect(pod["metadata"]["name"], show=True)
            if not end:
                time.sleep(self.args.poll)
        status = DONE if end.startswith("Complete") else run_status(self._statuses()) or FAILED
        self.bring_logs()
        if not self.args.keep:
            self.delete()
        _log(f"the run ended with status {status}; its logs are in {self.folder}")
        return status

    def bring_logs(self) -> None:
        """Writes the log of each existing pod to a file of its name."""
        for pod in self._list(self.pods):
            self._collect(pod["metadata"]["name"])

    def delete(self) -> None:
        """Deletes the JobSet with its jobs and pods."""
        self._call("delete", self.jobset, "--ignore-not-found")

    def _end(self) -> str:
        """`Completed` or `Failed`; "" while it runs."""
        return json.loads(self._call("get", self.jobset, "--output=json")).get("status", {}).get("terminalState", "")

    def _state(self, pods: Sequence[dict]) -> str:
        if not pods:
            return "no pods yet; the run is queued or restarting"
        status = pods[0]["status"]
        waits = [condition["message"] for condition in status.get("conditions", ())
                 if condition.get("reason") == "Unschedulable"]
        return f"first process: {status['phase']}" + (f", {waits[0]}" if waits else "")

    def _list(self, selector: str) -> list[dict]:
        answer = self._call("get", "pods", selector, "--output=json")
        return [{"metadata": {"name": "POD"}}] if self.args.dry_run else json.loads(answer)["items"]

    def _statuses(self) -> list[int]:
        """Exit statuses of the pods' containers that have ended, in the order in which they ended."""
        ends = [container["state"]["terminated"] for pod in self._list(self.pods)
                for container in pod["status"].get("containerStatuses", ()) if "terminated" in container["state"]]
        return [end["exitCode"] for end in sorted(ends, key=lambda end: end.get("finishedAt", ""))]

    def _collect(self, pod: str, show: bool = False) -> None:
        """Appends the new lines of a pod's log to its local file, because the next restart deletes the pod."""
        last = self.collected.get(pod, "")
        since = [f"--since-time={last}"] if last else []
        try:
            lines = self._call("logs", pod, "--timestamps", *since).splitlines(keepends=True)
        except ClusterError:  # it has not started, or has just gone
            return
        parts = (line.partition(" ") for line in lines)
        new = [(when, text) for when, _, text in parts if _sort_key(when) > _sort_key(last)]
        if not new:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"{pod}.log", "a" if last else "w") as log:
            log.writelines(text for _, text in new)
        self.collected[pod] = new[-1][0]
        if show:
            print("".join(text for _, text in new), end="", flush=True)

    def _call(self, *arguments: str, text: str | None = None) -> str:
        """Runs kubectl and returns its output. Raises ArgumentError if it is missing, ClusterError if it fails."""
        command = ["kubectl", *arguments, *([f"--namespace={self.args.namespace}"] if self.args.namespace else [])]
        if self.args.dry_run:
            print(shlex.join(command))
            return ""
        try:
            done = subprocess.run(command, input=text, capture_output=True, text=True)
        except FileNotFoundError:
            raise ArgumentError("kubectl is not on PATH; install it (gcloud components install kubectl), then run: "
                                "gcloud container clusters get-credentials CLUSTER") from None
        if done.returncode:
            words = " ".join(done.stderr.split())
            raise ClusterError(next((advice for part, advice in _ADVICE if part in words), f"kubectl failed: {words}"))
        return done.stdout


def _sort_key(when: str) -> tuple[str, str]:
    """A sort key for times such as 2026-01-02T03:04:05.12Z, whose fractions have no trailing zeros."""
    second, _, fraction = when.rstrip("Z").partition(".")
    return second, fraction.ljust(9, "0")


def _log(text: str) -> None:
    print(f"submit.py: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
