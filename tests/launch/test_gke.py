"""The launcher for Kubernetes: its manifests, and following a run with a fake kubectl."""
import copy
import json
import os
import pathlib
import shlex
import subprocess
import sys

import pytest
import yaml

from launch.gke.manifest import ArgumentError, hosts_and_chips, render
from launch.gke.submit import read_flags
from spanbert_jax.cluster.detection import find_cluster
from spanbert_jax.cluster.exit_codes import FAILED, MISTAKE, NOT_WRITTEN, retryable

ROOT = pathlib.Path(__file__).resolve().parents[2]
GKE = ROOT / "launch" / "gke"
TRAIN = ["--", "train", "--config", "configs/base.py", "--workdir", "/mnt/spanbert/runs/base"]
COMMON = ["--name", "sb", "--image", "registry/spanbert:1", "--claim", "work"]
TPU = ["tpu", *COMMON, "--type", "v5e", "--topology", "4x4"]
GPU = ["gpu", *COMMON]
VARIANTS = {
    "one slice": TPU, "four slices": [*TPU, "--slices", "4"], "one host": [*TPU[:-1], "2x2"],
    "v5p": [*TPU[:-3], "v5p", "--topology", "2x2x4"], "spot slices": [*TPU, "--spot", "--queue", "research"],
    "one node": GPU, "eight nodes": [*GPU, "--nodes", "8", "--gpus", "4", "--namespace", "ml"],
    "spot nodes": [*GPU, "--nodes", "2", "--spot", "--queue", "research"]}
# Fields of jobset.x-k8s.io/v1alpha2 that are used here, as its published definition has them.
JOBSET_FIELDS = {
    "spec": {"failurePolicy", "network", "replicatedJobs"}, "network": {"enableDNSHostnames"},
    "failurePolicy": {"maxRestarts", "restartStrategy", "rules"}, "rule": {"name", "action", "onJobFailureReasons"},
    "replicatedJob": {"name", "replicas", "template"}}


def rendered(arguments, *others):
    return render(read_flags([*arguments, *others, *TRAIN]))


def job(jobset):
    return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]


def pod(jobset):
    return job(jobset)["template"]["spec"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_kubernetes_knows_every_field(variant):
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate (extra dev)")
    jobset = rendered(VARIANTS[variant])
    whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "sb"}, "spec": job(jobset)}
    kubernetes_validate.validate(whole, "1.30", strict=True)
    kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "sb"}, "spec": pod(jobset)},
                                 "1.30", strict=True)
    wrong = copy.deepcopy(whole)
    wrong["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.30", strict=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_jobset_knows_every_field(variant):
    jobset = rendered(VARIANTS[variant])
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    spec = jobset["spec"]
    policy, (replicated,) = spec["failurePolicy"], spec["replicatedJobs"]
    assert set(spec) <= JOBSET_FIELDS["spec"] and set(spec.get("network", {})) <= JOBSET_FIELDS["network"]
    assert set(policy) == JOBSET_FIELDS["failurePolicy"] and set(replicated) == JOBSET_FIELDS["replicatedJob"]
    assert policy["restartStrategy"] in ("Recreate", "BlockingRecreate")
    for rule in policy["rules"]:
        assert set(rule) == JOBSET_FIELDS["rule"]
        assert rule["action"] in ("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts")
        assert set(rule["onJobFailureReasons"]) <= {"BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes",
                                                    "MaxFailedIndexesExceeded", "PodFailurePolicy"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_retryable_statuses_are_restarted(variant):
    jobset = rendered(VARIANTS[variant], "--restarts", "7")
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 7 and job(jobset)["backoffLimit"] == 0
    assert pod(jobset)["restartPolicy"] == "Never", "else there may be no podFailurePolicy"
    rule, = job(jobset)["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["containerName"] == pod(jobset)["containers"][0]["name"]
    assert rule["onExitCodes"]["values"] == [FAILED, MISTAKE, NOT_WRITTEN]
    assert not any(map(retryable, rule["onExitCodes"]["values"]))


@pytest.mark.parametrize("type_,topology,expected", [
    ("v5e", "1x1", (1, 1)), ("v5e", "2x2", (1, 4)), ("v5e", "2x4", (2, 4)), ("v5e", "16x16", (64, 4)),
    ("v6e", "4x8", (8, 4)), ("v5p", "2x2x1", (1, 4)), ("v5p", "4x4x8", (32, 4)), ("v4", "2x2x2", (2, 4))])
def test_hosts_of_a_topology(type_, topology, expected):
    assert hosts_and_chips(type_, topology) == expected


def test_slices_of_tpus():
    jobset = rendered(TPU, "--slices", "4", "--spot")
    assert jobset["spec"]["replicatedJobs"][0]["replicas"] == 4
    assert job(jobset)["parallelism"] == job(jobset)["completions"] == 4
    assert pod(jobset)["nodeSelector"] == {"cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
                                           "cloud.google.com/gke-tpu-topology": "4x4",
                                           "cloud.google.com/gke-spot": "true"}
    container, = pod(jobset)["containers"]
    assert container["resources"] == {"requests": {"google.com/tpu": 4}, "limits": {"google.com/tpu": 4}}
    assert container["image"] == "registry/spanbert:1" and container["args"] == TRAIN[1:]
    assert pod(jobset)["volumes"][0]["persistentVolumeClaim"]["claimName"] == "work"


def test_processes_on_gpu_nodes_find_each_other():
    jobset = rendered(GPU, "--nodes", "3")
    assert job(jobset)["parallelism"] == job(jobset)["completions"] == 3
    container, = pod(jobset)["containers"]
    environ = {variable["name"]: variable["value"] for variable in container["env"]}
    found = [find_cluster({**environ, "JOB_COMPLETION_INDEX": str(index)}) for index in range(3)]
    assert [(cluster.count, cluster.index) for cluster in found] == [(3, 0), (3, 1), (3, 2)]
    # Pods are called JOBSET-REPLICATEDJOB-JOB-POD and found behind a service of the JobSet's name.
    replicated = jobset["spec"]["replicatedJobs"][0]["name"]
    assert {cluster.address for cluster in found} == {f"sb-{replicated}-0-0.sb:8476"}
    assert jobset["spec"]["network"]["enableDNSHostnames"] and job(jobset)["completionMode"] == "Indexed"
    one = pod(rendered(GPU))["containers"][0]["env"]
    assert find_cluster({variable["name"]: variable["value"] for variable in one}) is None


def test_arguments_arrive_unchanged():
    typed = ["--config.a=$(HOME)", "--config.b=$HOME", "it's", "a b"]
    jobset = render(read_flags([*TPU, *TRAIN, *typed]))
    # Kubernetes makes $( of $$(, and puts variables in the place of the rest.
    assert pod(jobset)["containers"][0]["args"][-4:] == ["--config.a=$$(HOME)", *typed[1:]]


def test_a_queue_is_named_by_a_label():
    assert rendered(GPU, "--queue", "research")["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "research"}
    assert "labels" not in rendered(GPU)["metadata"]


def test_the_unedited_files_are_valid_runs():
    for name, arguments in (("tpu", TPU), ("gpu", [*GPU, "--nodes", "2"])):
        written = yaml.safe_load((GKE / f"jobset-{name}.yaml").read_text())
        named = [*arguments[:1], "--name", "spanbert", "--image", "IMAGE", "--claim", "spanbert", *arguments[7:]]
        assert rendered(named) == written


@pytest.mark.parametrize("arguments,message", [
    ([*TPU[:-1], "4x4x4", *TRAIN], "--topology 4x4x4: v5e needs 2 numbers, such as 4x4"),
    ([*TPU[:-1], "2x3", *TRAIN], "--topology 2x3: 6 chips are not a multiple of 4 per host"),
    ([*TPU, "--slices", "0", *TRAIN], "--slices 0: must be at least 1"), (TPU, "no command; write -- train"),
    ([*GPU, "--", "train", "--workdir", "runs/base"], "--workdir: must be under /mnt/spanbert"),
    ([*GPU, "--name", "Big", *TRAIN], "--name Big: use up to 40 lower-case letters")])
def test_wrong_arguments_give_a_one_line_error(arguments, message):
    with pytest.raises(ArgumentError, match=message) as error:
        render(read_flags(arguments))
    assert "\n" not in str(error.value)


KUBECTL = """
import json, pathlib, sys
folder, arguments = pathlib.Path(sys.argv[1]), sys.argv[2:]
text = sys.stdin.read() if arguments[0] == "apply" else ""
with open(folder / "calls", "a") as calls:
    calls.write(json.dumps([arguments, text]) + chr(10))
kind = "pods" if arguments[:2] == ["get", "pods"] else arguments[0]
play = folder / f"{kind}.json"
answers = json.loads(play.read_text()) if play.exists() else [""]
if len(answers) > 1:
    play.write_text(json.dumps(answers[1:]))
if isinstance(answers[0], dict) and "error" in answers[0]:
    sys.exit(answers[0]["error"])
sys.stdout.write(answers[0] if isinstance(answers[0], str) else json.dumps(answers[0]))
"""


def submit(folder, *arguments, **answers):
    """Exit status, output, lines of complaint, and what kubectl was called with."""
    (folder / "bin").mkdir()
    (folder / "kubectl.py").write_text(KUBECTL)
    (folder / "bin/kubectl").write_text(f'#!/bin/sh\nexec {sys.executable} -SE {folder}/kubectl.py {folder} "$@"\n')
    (folder / "bin/kubectl").chmod(0o755)
    for kind, play in answers.items():
        (folder / f"{kind}.json").write_text(json.dumps(play))
    done = subprocess.run([sys.executable, "-m", "launch.gke.submit", *arguments], cwd=folder, text=True,
                          capture_output=True,
                          env={**os.environ, "PATH": f"{folder}/bin:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)})
    calls = folder / "calls"
    calls = [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []
    return done.returncode, done.stdout, done.stderr.splitlines(), calls


def pods(*names, status=None, phase="Running"):
    ended = [{"state": {"terminated": {"exitCode": status, "finishedAt": "2026-01-01T00:00:00Z"}}}]
    return {"items": [{"metadata": {"name": name}, "status": {
        "phase": phase, "containerStatuses": ended if status is not None else [{"state": {"running": {}}}]}}
        for name in names]}


def logged(*lines):
    return "".join(f"2026-01-01T00:00:{line}\n" for line in lines)


RUNS, DONE_, OVER = {"status": {}}, {"status": {"terminalState": "Completed"}}, {"status": {"terminalState": "Failed"}}


def test_a_run_is_followed_across_a_restart_to_its_end(tmp_path):
    status, out, errors, calls = submit(
        tmp_path, *TPU, "--poll", "0", *TRAIN, get=[RUNS, RUNS, RUNS, DONE_],
        pods=[{"items": []}, pods("sb-0-0-a"), pods("sb-0-0-b"), pods("sb-0-0-b"), pods("sb-0-0-b", "sb-0-1-c")],
        logs=[logged("01.5Z step 1"), logged("02Z step 2"), logged("02Z step 2", "02.25Z step 3"),
              logged("02.25Z step 3"), logged("03Z of another host")])
    assert (status, out) == (0, "step 1\nstep 2\nstep 3\n")
    assert yaml.safe_load(calls[0][1]) == rendered(TPU) and calls[0][0] == ["apply", "--filename=-"]
    assert calls[-1][0] == ["delete", "jobset/sb", "--ignore-not-found"]
    assert {path.name: path.read_text() for path in (tmp_path / "logs/sb").iterdir()} == {
        "sb-0-0-a.log": "step 1\n", "sb-0-0-b.log": "step 2\nstep 3\n", "sb-0-1-c.log": "of another host\n"}
    assert errors[0].startswith("submit.py: no pods yet") and "ended with status 0" in errors[-1]


def test_a_cluster_that_does_not_answer_is_polled_again(tmp_path):
    status, out, errors, _ = submit(
        tmp_path, *TPU, "--poll", "0", *TRAIN, get=[RUNS, {"error": "The connection to the server was refused"}, DONE_],
        pods=[pods("sb-0-0-a")], logs=[logged("01Z step 1"), logged("01Z step 1", "02Z step 2")])
    assert (status, out) == (0, "step 1\nstep 2\n")
    assert sum("no cluster answers" in line and "retrying" in line for line in errors) == 1


def test_the_status_of_a_failed_run_is_that_of_the_pod_that_caused_it(tmp_path):
    ends = {"items": pods("sb-0-0-a", status=70)["items"] + pods("sb-0-1-b", status=2)["items"]}
    status, _, errors, calls = submit(tmp_path, *GPU, "--keep", *TRAIN, get=[OVER], pods=[ends])
    assert status == 2 and "ended with status 2" in errors[-1]
    assert not any(call[0][0] == "delete" for call in calls)


def test_a_dry_run_prints_all_calls_and_makes_none(tmp_path):
    status, out, errors, calls = submit(tmp_path, *GPU, "--namespace", "ml", "--dry-run", *TRAIN)
    assert (status, errors, calls) == (0, [], [])
    manifest, _, commands = out.partition("---\n")
    assert yaml.safe_load(manifest) == rendered(GPU, "--namespace", "ml")
    lines = [shlex.split(line) for line in commands.splitlines() if not line.startswith("#")]
    assert lines[0] == ["kubectl", "apply", "--filename=-", "--namespace=ml"]
    assert {line[1] for line in lines} == {"apply", "get", "logs", "delete"}


@pytest.mark.parametrize("words,message", [
    ('error: no matches for kind "JobSet" in version "jobset.x-k8s.io/v1alpha2"', "the cluster has no JobSet; install"),
    ("Error from server (Forbidden): jobsets is forbidden: exceeded quota: small", "the namespace's quota does not"),
    ("The connection to the server localhost:8080 was refused", "no cluster answers; run: gcloud container clusters"),
    ("Error from server: spec: Invalid value: field is immutable", "a JobSet of this name exists with"),
    ("Error: something\nelse", "kubectl failed: Error: something else")])
def test_errors_of_kubectl_give_a_one_line_message(tmp_path, words, message):
    status, out, errors, _ = submit(tmp_path, *TPU, *TRAIN, apply=[{"error": words}])
    assert (status, out, len(errors)) == (1, "", 1) and message in errors[0]


def test_without_kubectl_one_line_gives_the_solution(tmp_path):
    done = subprocess.run([sys.executable, "-m", "launch.gke.submit", *TPU, *TRAIN], cwd=ROOT, capture_output=True,
                          text=True, env={"PATH": str(tmp_path)})
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "kubectl is not on PATH" in done.stderr


def test_the_other_verbs(tmp_path):
    assert submit(tmp_path, "down", "--name", "sb")[3] == [[["delete", "jobset/sb", "--ignore-not-found"], ""]]
