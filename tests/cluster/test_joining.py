"""How a process finds, joins and leaves the other processes of its run."""
import concurrent.futures
import http.server
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from launch.local import free_port
from spanbert_jax.cluster import detection
from spanbert_jax.cluster.detection import Flags, find_cluster
from spanbert_jax.cluster.exit_codes import DONE, FAILED, MISTAKE, NOT_WRITTEN, PEER_LOST, STOPPED
from spanbert_jax.common.errors import UserError

SRUN = {"SLURM_JOB_ID": "5000", "SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": "node[007-008]", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2"}
GKE = {"TPU_WORKER_HOSTNAMES": "t-0.svc,t-1.svc", "TPU_WORKER_ID": "1"}
MPI = {"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0",
       "OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"}
JOB = {"JAX_COORDINATOR_ADDRESS": "train-0.train:1234", "JAX_NUM_PROCESSES": "2", "JOB_COMPLETION_INDEX": "1"}


def found(environ, *flags, **others):
    cluster = find_cluster(environ, Flags(*flags), **others)
    return cluster and (cluster.address, cluster.count, cluster.index)


@pytest.mark.parametrize("environ", [
    {}, {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"},
    # The variables in a script of sbatch, which is not a task of srun.
    {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "a,b"},
    # A shell that salloc starts: a step of one task in an allocation of four.
    {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_ID": "4294967290"},
    {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, {**GKE, "JAX_PLATFORMS": "cpu"},
    {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "2"},
    {**JOB, "JAX_NUM_PROCESSES": "1"}, {**SRUN, "JAX_NUM_PROCESSES": "1"}, {**MPI, "OMPI_COMM_WORLD_SIZE": "1"}])
def test_a_run_of_one_process_joins_nothing(environ):
    assert found(environ) is None


def test_each_way_of_starting_is_detected():
    assert found({}, "host:99", 3, 2) == ("host:99", 3, 2)
    assert found(JOB) == ("train-0.train:1234", 2, 1)
    assert found({**JOB, "JAX_PROCESS_ID": "0"})[2] == 0
    assert found({**JOB, "JAX_COORDINATOR_ADDRESS": "train-0", "JAX_COORDINATOR_PORT": "77"})[0] == "train-0:77"
    assert found(GKE) == ("t-0.svc:8482", 2, 1)
    two_slices = {**GKE, "MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1",
                  "MEGASCALE_COORDINATOR_ADDRESS": "slice0-0:8080", "JAX_COORDINATOR_PORT": "9"}
    assert found(two_slices) == ("slice0-0:9", 4, 3)
    in_kubernetes = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "2"}
    assert find_cluster(in_kubernetes, kubernetes_api=True).method == "k8s"


def test_flags_override_variables_and_variables_override_a_scheduler():
    assert found({**JOB, **SRUN}, "host:99", 2, 0) == ("host:99", 2, 0)
    assert found({**JOB, **SRUN}) == ("train-0.train:1234", 2, 1)
    assert found({**SRUN, "JAX_COORDINATOR_ADDRESS": "other:5"}) == ("other:5", 4, 3)


def test_slurm_and_open_mpi_are_read_as_by_jax(monkeypatch):
    from jax._src.clusters import OmpiCluster, SlurmCluster
    node_lists = ("node7", "node001,other2", "node[001-015],other2", "node[003,007-015]")
    for jax_cluster, environs in ((SlurmCluster, [{**SRUN, "SLURM_STEP_NODELIST": nodes} for nodes in node_lists]),
                                  (OmpiCluster, [MPI, {**MPI, "OMPI_MCA_orte_hnp_uri": "1314521088.0;tcp://10.1.0.1:3"}])):
        for environ in environs:
            for name, value in environ.items():
                monkeypatch.setenv(name, value)
            assert jax_cluster.is_env_present()
            assert found(environ) == (jax_cluster.get_coordinator_address(300, None), jax_cluster.get_process_count(),
                                      jax_cluster.get_process_id())


def test_concurrent_steps_of_a_slurm_job_have_different_ports():
    assert found(SRUN)[0] != found({**SRUN, "SLURM_STEP_ID": "1"})[0]


@pytest.mark.parametrize("change,devices", [
    ({}, (1,)), ({"SLURM_STEP_NUM_NODES": "4"}, None), ({"CUDA_VISIBLE_DEVICES": "0"}, None),
    ({"CUDA_VISIBLE_DEVICES": "0,1"}, (1,)), ({"JAX_LOCAL_DEVICE_IDS": "0,1"}, None)])
def test_tasks_on_one_host_have_one_gpu_each(change, devices):
    assert find_cluster({**SRUN, **change}).local_devices == devices


def test_tpu_metadata_is_read_only_if_jax_sees_chips():
    metadata = {"worker-network-endpoints": "a:0:10.0.0.5,b:1:10.0.0.6", "agent-worker-number": "1",
                "tpu-env": "ACCELERATOR_TYPE: 'v5litepod-16'\nMEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n"}
    asked = []

    def ask(key):
        asked.append(key)
        return metadata.get(key, "")

    assert found({}, tpu_metadata=ask) is None
    assert found({"TPU_ML_PLATFORM": "JAX", "TPU_SKIP_MDS_QUERY": "1"}, tpu_metadata=ask) is None
    assert not asked
    assert found({"TPU_ML_PLATFORM": "JAX"}, tpu_metadata=ask) == ("10.0.0.5:8482", 4, 3)
    del metadata["tpu-env"]
    assert found({"TPU_ML_PLATFORM": "JAX"}, tpu_metadata=ask) == ("10.0.0.5:8482", 2, 1)
    metadata["worker-network-endpoints"] = "a:0:10.0.0.5"
    assert found({"TPU_ML_PLATFORM": "JAX"}, tpu_metadata=ask) is None


def test_failed_metadata_requests_are_repeated(monkeypatch):
    answers = iter([503, 200, 404, 503, 503, 503])
    asked = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["Metadata-Flavor"]))
            self.send_response(next(answers))
            self.end_headers()
            self.wfile.write(b"10.0.0.5,10.0.0.6")

        def log_message(self, *arguments):
            pass

    monkeypatch.setattr(detection, "_METADATA_PAUSE_SECONDS", 0)
    for proxy in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(detection, "_METADATA", f"http://127.0.0.1:{server.server_port}/")
        assert detection.tpu_metadata("worker-network-endpoints") == "10.0.0.5,10.0.0.6"
        assert asked == [("/worker-network-endpoints", "Google")] * 2
        assert detection.tpu_metadata("tpu-env") == "" and len(asked) == 3, "404: not repeated"
        assert detection.tpu_metadata("tpu-env") == "" and len(asked) == 6
        server.shutdown()


@pytest.mark.parametrize("environ,flags,message", [
    ({}, ("host:1", None, 0), "--coordinator=host:1 --process=0: --processes missing"),
    ({}, ("host", 2, 0), "--coordinator=host: not an address; write HOST:PORT"),
    ({}, ("host:70000", 2, 0), "--coordinator=host:70000: not an address"),
    ({}, ("host:1", 0, 0), "--processes=0 --process=0: --processes counts from 1"),
    ({}, ("host:1", 2, 2), "process 2 of 2; allowed are 0 to 1"),
    ({"JAX_COORDINATOR_ADDRESS": "a:1"}, (), "JAX_COORDINATOR_ADDRESS=a:1: .* set JAX_NUM_PROCESSES"),
    ({"JAX_NUM_PROCESSES": "two"}, (), "JAX_NUM_PROCESSES=two: must be a whole number, 1 or more"),
    ({"JAX_NUM_PROCESSES": "2"}, (), "JAX_NUM_PROCESSES=2: needs JAX_PROCESS_ID too, 0 to 1"),
    ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, (), "needs JAX_COORDINATOR_ADDRESS=HOST:PORT"),
    ({**JOB, "JOB_COMPLETION_INDEX": "5"}, (), "JOB_COMPLETION_INDEX=5: process 5 of 2"),
    ({name: value for name, value in SRUN.items() if name != "SLURM_PROCID"}, (), "SLURM_PROCID: not set"),
    ({**SRUN, "SLURM_PROCID": "4"}, (), "SLURM_PROCID=4: process 4 of 4"),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, (), "TPU_WORKER_ID: not set"),
    ({**MPI, "OMPI_MCA_orte_hnp_uri": ""}, (), "OMPI_COMM_WORLD_RANK=2: .* set JAX_COORDINATOR_ADDRESS")])
def test_inconsistent_or_incomplete_settings_are_one_line_errors(environ, flags, message):
    with pytest.raises(UserError, match=message) as error:
        found(environ, *flags)
    assert "\n" not in str(error.value)


# A command whose processes join, communicate once, and then run the code of a test.
COMMAND = """
import sys, types
import spanbert_jax.cluster.joining
from spanbert_jax.commands import arguments, main
from spanbert_jax.common.errors import SavesFailed, UserError

def run(args):
    arguments.join_processes(args)
    import jax
    import numpy as np
    from jax.experimental import multihost_utils
    def meet():
        return multihost_utils.process_allgather(np.asarray(jax.process_index())).ravel().tolist()
    print("met", *meet(), flush=True)
    {body}
    return 0

command = types.ModuleType("spanbert_jax.commands.train", "A command.")
command.add_arguments, command.run = arguments.add_process_arguments, run
sys.modules[command.__name__] = command
{before}
sys.exit(main(["train", *sys.argv[1:]]))
"""


def start(*flags, body="", before="", environ=None):
    """Starts a process that runs the command and joins the others by flags or environment."""
    return subprocess.Popen(
        [sys.executable, "-u", "-c", COMMAND.format(body=body, before=before), *map(str, flags)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=pathlib.Path(__file__).resolve().parents[2],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", **(environ or {})})


def start_all(count, body, before=""):
    port = free_port()
    return [start("--coordinator", f"127.0.0.1:{port}", "--processes", count, "--process", index, body=body,
                  before=before) for index in range(count)]


def wait_for(process, word):
    for line in process.stdout:
        if word in line:
            return line
    raise AssertionError(process.communicate()[1])


def ends(processes):
    """Returns exit status and stderr lines of each process, without messages of the runtime."""
    results = []
    for process in processes:
        _, errors = process.communicate(timeout=40)
        results.append((process.returncode, [line for line in errors.splitlines() if "spanbert-jax" in line]))
    return results


def lose(number):
    """Kills or hangs one of three processes; returns how long the others live, in seconds, and how they end."""
    processes = start_all(3, "while True: meet()")
    for process in processes:
        wait_for(process, "met")
    began = time.monotonic()
    processes[2].send_signal(number)
    ended = ends(processes[:2])
    seconds = time.monotonic() - began
    processes[2].kill()
    processes[2].communicate()
    return seconds, ended


@pytest.fixture(scope="module")
def hung():
    """`lose` of a hung process. The other tests run while it waits for the heartbeat."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        yield pool.submit(lose, signal.SIGSTOP)


def test_slurm_tasks_join_without_flags(hung):  # the first to start processes starts `hung`
    environ = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2",
               "JAX_COORDINATOR_PORT": str(free_port())}
    processes = [start(environ={**environ, "SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)})
                 for index in range(2)]
    assert [wait_for(process, "met") for process in processes] == ["met 0 1\n"] * 2
    assert ends(processes) == [(DONE, [])] * 2


def test_a_common_end_aborts_no_process():
    # Process 0 serves the others: if it ended early, they would be aborted.
    delayed = "import time; time.sleep(0.7 * jax.process_index())"
    assert ends(start_all(2, delayed)) == [(DONE, [])] * 2
    mistake = f"{delayed}; raise UserError('wrong field')"
    assert ends(start_all(2, mistake)) == [(MISTAKE, ["spanbert-jax train: wrong field"])] * 2
    # All know that a save failed, so that no one ends long before the others.
    failed = f"{delayed}; raise SavesFailed('a full disk')"
    short = "spanbert_jax.cluster.joining.ALONE_SECONDS = 0.1"
    assert ends(start_all(2, failed, short)) == [(NOT_WRITTEN, ["spanbert-jax train: a full disk"])] * 2


def test_a_bug_on_one_process_is_distinguished_from_a_lost_process():
    body = "jax.process_index() == 1 and {}['bug']\n    while True: meet()"
    processes = start_all(2, body)
    for process in processes:
        wait_for(process, "met")
    _, errors = processes[1].communicate(timeout=40)
    assert processes[1].returncode == FAILED and "KeyError: 'bug'" in errors
    (status, _), = ends(processes[:1])
    assert status in (PEER_LOST, -signal.SIGABRT)


def test_a_missing_coordinator_is_reported_in_time():
    short = "spanbert_jax.cluster.joining._NOTICE_SECONDS, spanbert_jax.cluster.joining.LOCAL_JOIN_SECONDS = 0.5, 1"
    alone = start("--coordinator", f"127.0.0.1:{free_port()}", "--processes", 2, "--process", 1, before=short)
    (status, lines), = ends([alone])
    assert status == PEER_LOST and len(lines) == 2
    assert "waiting for process 0" in lines[0] and "did not join within 1 seconds" in lines[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_waiting_for_the_other_processes_can_be_stopped(number):
    waiting = start("--coordinator", f"127.0.0.1:{free_port()}", "--processes", 2, "--process", 0,
                    before="spanbert_jax.cluster.joining._NOTICE_SECONDS = 0.1")
    assert "waiting for the other processes" in waiting.stderr.readline()
    waiting.send_signal(number)
    assert ends([waiting]) == [(STOPPED, [f"spanbert-jax train: stopped by {number.name}; run the same command again "
                                          "to continue"])]


def test_a_port_in_use_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        process = start("--coordinator", f"127.0.0.1:{port}", "--processes", 2, "--process", 0)
        (status, lines), = ends([process])
    assert status == MISTAKE and len(lines) == 1 and f"port {port} of this machine is in use" in lines[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_hung_process_ends_the_others_with_a_message(number, hung):
    seconds, ended = hung.result() if number == signal.SIGSTOP else lose(number)
    assert seconds < 15
    for status, lines in ended:
        assert status in (PEER_LOST, -signal.SIGABRT)
        if status == PEER_LOST:
            assert len(lines) == 1 and "another process of the run was lost" in lines[0]
            assert "run the same command again to continue" in lines[0]
