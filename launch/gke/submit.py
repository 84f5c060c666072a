"""Runs a verb of spanbert-jax on Kubernetes, from the manifest to the end; launch/gke/README.md goes through it. To be
run in the root of the checkout.

  python -m launch.gke.submit tpu --name spanbert --image IMAGE --type v5e --topology 4x4 --claim spanbert -- \\
      train --config configs/base.py --config.data.path=/mnt/spanbert/corpora/mine --workdir /mnt/spanbert/runs/base
  python -m launch.gke.submit gpu --name spanbert --image IMAGE --nodes 2 --gpus 8 --claim spanbert -- train ...
  python -m launch.gke.submit logs --name spanbert
  python -m launch.gke.submit down --name spanbert

It hands the JobSet to the cluster, which starts the run again after preemptions, shows the first process's log, and at
the end brings the logs of all pods to logs/NAME, deletes the JobSet and ends with the run's status. Interrupted, it
leaves the run alone; the same command follows on. --dry-run prints the manifest and every command, and runs none.
"""
from __future__ import annotations

import argparse
import json
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

from launch.gke.manifest import TPU_TYPES, Mistake, render, to_yaml
from launch.local import telling
from spanbert_jax.cluster.exit_codes import DONE, FAILED, MISTAKE

# What kubectl says, and what is to be done about it.
_ADVICE = (
    ("no matches for kind \"JobSet\"", "the cluster has no JobSet; install it as launch/gke/README.md says"),
    ("immutable", "a JobSet of this name is there with other settings; use another --name, or end it by down"),
    ("exceeded quota", "the namespace's quota does not allow it; ask for more, or for less of it"),
    ("connection to the server", "no cluster answers; run: gcloud container clusters get-credentials CLUSTER"),
    ("current-context is not set", "no cluster is chosen; run: gcloud container clusters get-credentials CLUSTER"),
    ("must be logged in", "not logged in to the cluster; run: gcloud auth login"),
    ("forbidden", "the account may not do this in the namespace; ask for the role Kubernetes Engine Developer"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Does what is asked for and returns the exit status."""
    args = read_flags(argv)
    try:
        cluster = Cluster(args)
        if args.verb == "down":
            cluster.delete()
            return DONE
        if args.verb == "logs":
            cluster.bring_logs()
            return DONE
        return cluster.run(to_yaml(render(args)))
    except (Mistake, ClusterError) as error:
        print(f"submit.py: {error}", file=sys.stderr)
        return MISTAKE if isinstance(error, Mistake) else FAILED
    except KeyboardInterrupt:
        print(f"submit.py: the run goes on and costs money; the same command follows it, and this ends it: "
              f"python -m launch.gke.submit down --name {args.name}", file=sys.stderr)
        return 130


def read_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags, with what is to be run in `command` and the kind of nodes in `accelerator`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="tpu|gpu|logs|down")
    every = argparse.ArgumentParser(add_help=False)
    every.add_argument("--name", required=True, help="of the JobSet")
    every.add_argument("--namespace", default="", help="(default: kubectl's)")
    every.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    runs = argparse.ArgumentParser(add_help=False)
    runs.add_argument("--image", required=True, help="with this program, from launch/Dockerfile.tpu or .gpu")
    runs.add_argument("--claim", required=True, help="PersistentVolumeClaim that many nodes write to (ReadWriteMany)")
    runs.add_argument("--restarts", type=int, default=100, metavar="N", help="(default: %(default)s)")
    runs.add_argument("--queue", default="", help="Kueue's LocalQueue, if the cluster has queues")
    runs.add_argument("--spot", action="store_true", help="on spot nodes: cheaper, preempted at times")
    runs.add_argument("--keep", action="store_true", help="leave the JobSet when the run has ended")
    runs.add_argument("--poll", type=float, default=15, metavar="SECONDS", help="(default: %(default)s)")
    runs.add_argument("command", nargs=argparse.REMAINDER, metavar="-- VERB ...")
    tpu = verbs.add_parser("tpu", parents=[every, runs], help="on TPU slices")
    tpu.add_argument("--type", required=True, choices=sorted(TPU_TYPES))
    tpu.add_argument("--topology", required=True, metavar="AxB", help="of a slice, such as 4x4; 2x2x4 for v4 and v5p")
    tpu.add_argument("--slices", type=int, default=1, metavar="N", help="(default: %(default)s)")
    gpu = verbs.add_parser("gpu", parents=[every, runs], help="on GPU nodes")
    gpu.add_argument("--type", default="nvidia-h100-80gb", help="GKE's name of the GPU (default: %(default)s)")
    gpu.add_argument("--nodes", type=int, default=1, metavar="N", help="(default: %(default)s)")
    gpu.add_argument("--gpus", type=int, default=8, metavar="N", help="of a node, all of them (default: %(default)s)")
    for verb, help_text in (("logs", "bring the logs back"), ("down", "delete the JobSet, running or not")):
        verbs.add_parser(verb, parents=[every], help=help_text)
    args = parser.parse_args(argv)
    if args.verb in ("tpu", "gpu"):
        args.accelerator = args.verb
        args.command = args.command[1:] if args.command[:1] == ["--"] else args.command
    return args


class ClusterError(RuntimeError):
    """What kubectl could not do: one line, with what to do."""


class Cluster:
    """What kubectl knows of a run, and is told."""

    def __init__(self, args: argparse.Namespace):
        """Asks nothing yet."""
        self.args = args
        self.folder = pathlib.Path("logs") / args.name
        self.jobset = f"jobset/{args.name}"
        # Of every pod; and of the first process's.
        self.pods = f"--selector=jobset.sigs.k8s.io/jobset-name={args.name}"
        self.first = f"{self.pods},jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0"
        # When a pod wrote the last line of its log that is here.
        self.collected: dict[str, str] = {}

    def run(self, manifest: str) -> int:
        """Hands the run over and follows it to its end. Returns the run's exit status."""
        if self.args.dry_run:
            print(f"{manifest}---")
            self._call("apply", "--filename=-")
            print(f"# Every {self.args.poll:g} seconds until it has ended: its state, and the first process's log.")
            self._call("get", self.jobset, "--output=json")
            self._call("get", "pods", self.first, "--output=json")
            self._call("logs", "POD", "--timestamps")
            print(f"# Then: every pod's log to {self.folder}, and the JobSet away unless --keep is given.")
            self.bring_logs()
            self.delete()
            return DONE
        self._call("apply", "--filename=-", text=manifest)
        end = told = ""
        while not end:
            try:
                # Asked in this order, nothing that was logged before the end is missed.
                end, pods = self._end(), self._list(self.first)
                state = self._state(pods)
            except ClusterError as error:
                if not told:
                    raise
                state, pods = f"{error}; trying again", []
            if state != told and not end:
                _say(state)
                told = state
            for pod in pods:
                self._collect(pod["metadata"]["name"], show=True)
            if not end:
                time.sleep(self.args.poll)
        status = DONE if end.startswith("Complete") else telling(self._statuses()) or FAILED
        self.bring_logs()
        if not self.args.keep:
            self.delete()
        _say(f"the run ended with status {status}; its logs are in {self.folder}")
        return status

    def bring_logs(self) -> None:
        """Writes the log of each pod that is there to a file of its name."""
        if self.args.dry_run:
            self._call("get", "pods", self.pods, "--output=json")
            self._call("logs", "POD", "--timestamps")
            return
        for pod in self._list(self.pods):
            self._collect(pod["metadata"]["name"])

    def delete(self) -> None:
        """Deletes the JobSet with all that belongs to it."""
        self._call("delete", self.jobset, "--ignore-not-found")

    def _end(self) -> str:
        """`Completed` or `Failed`, empty as long as it runs."""
        return json.loads(self._call("get", self.jobset, "--output=json")).get("status", {}).get("terminalState", "")

    def _state(self, pods: Sequence[dict]) -> str:
        if not pods:
            return "no pods yet; in a queue, or being started anew"
        status = pods[0]["status"]
        waits = [condition["message"] for condition in status.get("conditions", ())
                 if condition.get("reason") == "Unschedulable"]
        return f"first process: {status['phase']}" + (f", {waits[0]}" if waits else "")

    def _list(self, selector: str) -> list[dict]:
        return json.loads(self._call("get", "pods", selector, "--output=json"))["items"]

    def _statuses(self) -> list[int]:
        """Of the pods' containers that have failed, in the order in which they ended."""
        ends = [container["state"]["terminated"] for pod in self._list(self.pods)
                for container in pod["status"].get("containerStatuses", ()) if "terminated" in container["state"]]
        return [end["exitCode"] for end in sorted(ends, key=lambda end: end.get("finishedAt", ""))]

    def _collect(self, pod: str, show: bool = False) -> None:
        """Appends what is new in a pod's log to its file here: the pod goes with the next restart."""
        last = self.collected.get(pod, "")
        since = [f"--since-time={last}"] if last else []
        try:
            lines = self._call("logs", pod, "--timestamps", *since).splitlines(keepends=True)
        except ClusterError:  # it has not started, or has just gone
            return
        parts = (line.partition(" ") for line in lines)
        new = [(when, text) for when, _, text in parts if _instant(when) > _instant(last)]
        if not new:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"{pod}.log", "a" if last else "w") as log:
            log.writelines(text for _, text in new)
        self.collected[pod] = new[-1][0]
        if show:
            print("".join(text for _, text in new), end="", flush=True)

    def _call(self, *arguments: str, text: str | None = None) -> str:
        """What kubectl prints.

        Raises:
          Mistake: there is no kubectl.
          ClusterError: it failed.
        """
        command = ["kubectl", *arguments, *([f"--namespace={self.args.namespace}"] if self.args.namespace else [])]
        if self.args.dry_run:
            print(shlex.join(command))
            return ""
        try:
            done = subprocess.run(command, input=text, capture_output=True, text=True)
        except FileNotFoundError:
            raise Mistake("kubectl is not on PATH; install it (gcloud components install kubectl), then run: gcloud "
                          "container clusters get-credentials CLUSTER") from None
        if done.returncode:
            words = " ".join(done.stderr.split())
            raise ClusterError(next((advice for part, advice in _ADVICE if part in words), f"kubectl failed: {words}"))
        return done.stdout


def _instant(when: str) -> tuple[str, str]:
    """What orders times such as 2026-01-02T03:04:05.12Z, whose fractions end with their last digit."""
    second, _, fraction = when.rstrip("Z").partition(".")
    return second, fraction.ljust(9, "0")


def _say(text: str) -> None:
    print(f"submit.py: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
