"""Finds the processes of a run from flags, JAX's variables, Open MPI, Slurm, Cloud TPU or Kubernetes."""
import dataclasses
import http
import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from spanbert_jax.common.errors import UserError

Environment = Mapping[str, str]

_METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"
_METADATA_SECONDS = 5
_METADATA_TRIES, _METADATA_PAUSE_SECONDS = 3, 1.0  # repeated, because a host that gets no answer would run alone
_TPU_PORT = 8482


class Flags(NamedTuple):
    """Flags of the command line, all or none: HOST:PORT of process 0, number of processes, index of this one."""
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of a run, and the place of this process among them."""
    origin: str  # the flags or variables that define the cluster, for messages
    address: str | None  # HOST:PORT of process 0; None if JAX detects it
    count: int | None  # number of processes; None if JAX detects it
    index: int | None  # index of this process; None if JAX detects it
    local_devices: tuple[int, ...] | None = None  # GPUs of this host that this process uses; None for all visible ones
    method: str = "deactivate"  # JAX's cluster detection method for the attributes that are None

    @property
    def host(self) -> str:
        """Host of process 0; empty if JAX detects it."""
        return (self.address or "").rpartition(":")[0].strip("[]")


def find_cluster(environ: Environment, flags: Flags = Flags(),
                 tpu_metadata: Callable[[str], str] = lambda key: "", kubernetes_api: bool = False) -> Cluster | None:
    """Returns the cluster of this process; None for a run of one process.

    The first of these that is present decides: the flags; JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID
    (or JOB_COMPLETION_INDEX of an Indexed Job); Open MPI; Slurm's variables, only inside `srun`; the hosts of a Cloud
    TPU; Kubernetes' API. For the last four, JAX_COORDINATOR_ADDRESS and JAX_COORDINATOR_PORT override the address.

    Args:
      environ: environment after `import jax`, which records in it whether it sees TPU chips.
      tpu_metadata: returns an attribute of this TPU VM; empty if there is none.
      kubernetes_api: whether the package is installed with which JAX queries Kubernetes.

    Raises:
      UserError: settings are incomplete or contradict each other.
    """
    cluster = (_from_flags(flags) or _from_variables(environ) or _from_open_mpi(environ) or _from_slurm(environ)
               or _from_tpu(environ, tpu_metadata) or _from_kubernetes(environ, kubernetes_api))
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID") if cluster is None else ():
        if environ.get(name):
            raise UserError(f"{name}={environ[name]}: is set, but not the number of processes; set JAX_NUM_PROCESSES "
                            "too (1 for a run of one process), or unset it")
    if cluster is None or cluster.count == 1:
        return None
    if cluster.index is not None and cluster.count is not None and cluster.index >= cluster.count:
        raise UserError(f"{cluster.origin}: process {cluster.index} of {cluster.count}; allowed are 0 to "
                        f"{cluster.count - 1}")
    return cluster


def tpu_metadata(key: str) -> str:
    """Returns an attribute of this Cloud TPU VM from its metadata server; empty if there is none."""
    import urllib.request  # only here: its import takes half of the time until a command listens for signals
    request = urllib.request.Request(_METADATA + key, headers={"Metadata-Flavor": "Google"})
    for left in reversed(range(_METADATA_TRIES)):
        try:
            with urllib.request.urlopen(request, timeout=_METADATA_SECONDS) as response:
                return response.read().decode()
        except (OSError, ValueError) as error:
            if getattr(error, "code", None) == http.HTTPStatus.NOT_FOUND:
                break
            time.sleep(_METADATA_PAUSE_SECONDS if left else 0)
    return ""


def _from_flags(flags: Flags) -> Cluster | None:
    given = {f"--{name}": value for name, value in flags._asdict().items() if value is not None}
    if not given:
        return None
    origin = " ".join(f"{name}={value}" for name, value in given.items())
    if flags.coordinator is None or flags.processes is None or flags.process is None:
        missing = " and ".join(f"--{name}" for name in Flags._fields if f"--{name}" not in given)
        raise UserError(f"{origin}: {missing} missing; give all three of --coordinator, --processes and --process, or "
                        "none")
    if flags.processes < 1 or flags.process < 0:
        raise UserError(f"{origin}: --processes counts from 1, --process from 0")
    return Cluster(origin, _address("--coordinator", flags.coordinator), flags.processes, flags.process)


def _from_variables(environ: Environment) -> Cluster | None:
    """Variables set by Kubeflow's trainer, or by hand in a Job, which sets the index itself."""
    if not environ.get("JAX_NUM_PROCESSES"):
        return None
    count = _number(environ, "JAX_NUM_PROCESSES", least=1)
    origin = f"JAX_NUM_PROCESSES={count}"
    if count == 1:
        return Cluster(origin, None, 1, 0)
    index = "JAX_PROCESS_ID" if environ.get("JAX_PROCESS_ID") else "JOB_COMPLETION_INDEX"
    if not environ.get(index):
        raise UserError(f"{origin}: needs JAX_PROCESS_ID too, 0 to {count - 1}; JOB_COMPLETION_INDEX of an Indexed "
                        "Job works as well")
    address = _given_address(environ)
    if not address:
        raise UserError(f"{origin}: needs JAX_COORDINATOR_ADDRESS=HOST:PORT of process 0 too")
    return Cluster(f"{origin} {index}={environ[index]}", address, count, _number(environ, index))


def _from_open_mpi(environ: Environment) -> Cluster | None:
    if "OMPI_COMM_WORLD_SIZE" not in environ:
        return None
    count, index = _number(environ, "OMPI_COMM_WORLD_SIZE", least=1), _number(environ, "OMPI_COMM_WORLD_RANK")
    origin = f"OMPI_COMM_WORLD_SIZE={count} OMPI_COMM_WORLD_RANK={index}"
    address = _given_address(environ)
    if count > 1 and not address:
        # Such as 1531576320.0;tcp://10.96.0.1,10.148.0.1:34911 or 1314521088.0;tcp6://[fe80::1,2620::2]:43370.
        launcher = re.match(r"(\d+)\.\d+;tcp6?://(\[)?([^,\]]+?)(?:[,\]]|:\d+$)",
                            environ.get("OMPI_MCA_orte_hnp_uri", ""))
        if not launcher:
            raise UserError(f"{origin}: this version of Open MPI does not publish the address of process 0; set "
                            "JAX_COORDINATOR_ADDRESS=HOST:PORT (mpirun -x JAX_COORDINATOR_ADDRESS)")
        job, bracket, host = launcher.groups()
        # Open MPI's job numbers are multiples of 4,096.
        address = f"[{host}]" if bracket else host
        address += ":" + environ.get("JAX_COORDINATOR_PORT", str(_port(int(job) // 4096)))
    return Cluster(origin, address, count, index, _own_gpu(
        environ, "OMPI_COMM_WORLD_LOCAL_RANK", alone=environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"))


def _from_slurm(environ: Environment) -> Cluster | None:
    """A task of `srun`. A script of `sbatch` or a shell of `salloc` has the same variables, but is one process."""
    hosts = environ.get("SLURM_STEP_NODELIST")
    tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS"
    if not hosts or tasks not in environ:
        return None
    count = _number(environ, tasks, least=1)
    if count == 1:
        return Cluster(tasks, None, 1, 0)
    index = _number(environ, "SLURM_PROCID")
    address = _given_address(environ)
    if not address:
        # node7, node[007-015,020] or node[007-015],other3: the first host of the list.
        names = re.match(r"([^,\[]*)(?:\[(\w+)[^\]]*\]([^,\[]*))?", hosts)
        prefix, first, suffix = names.groups("") if names else (hosts, "", "")
        # Steps of a job may run at the same time, and so may jobs, whose numbers are consecutive.
        port = _port(_number(environ, "SLURM_JOB_ID") + 1021 * int(environ.get("SLURM_STEP_ID", 0)))
        address = f"{prefix}{first}{suffix}:{environ.get('JAX_COORDINATOR_PORT', port)}"
    return Cluster(f"{tasks}={count} SLURM_PROCID={index}", address, count, index, _own_gpu(
        environ, "SLURM_LOCALID", alone=environ.get("SLURM_STEP_NUM_NODES") == str(count)))


def _own_gpu(environ: Environment, local_index: str, alone: bool) -> tuple[int, ...] | None:
    """Returns the GPU of this process if several share a host, as in JAX, unless GPUs have been assigned already."""
    assigned = environ.get("CUDA_VISIBLE_DEVICES") and "," not in environ["CUDA_VISIBLE_DEVICES"]
    return None if alone or assigned or environ.get("JAX_LOCAL_DEVICE_IDS") else (_number(environ, local_index),)


def _port(number: int) -> int:
    """Returns a default port of process 0: one of the last 4,096, which are rarely used."""
    return 65536 - 4096 + number % 4096


def _from_tpu(environ: Environment, metadata: Callable[[str], str]) -> Cluster | None:
    """Hosts of one or more slices, from Kubernetes' variables or the VM's metadata, in the formats that JAX reads."""
    if "tpu" not in (environ.get("JAX_PLATFORMS") or "tpu").split(","):
        return None
    hosts = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES", "")
    # JAX sets the first variable if it sees chips and their library, the second if it sees none.
    if not hosts and "TPU_ML_PLATFORM" in environ and "TPU_SKIP_MDS_QUERY" not in environ:
        hosts = metadata("worker-network-endpoints")
        variables = dict(re.findall(r"^(MEGASCALE_\w+):\s*'?([^'\n]*)'?", metadata("tpu-env"), re.M))
        environ = {**variables, **environ, "TPU_WORKER_ID": metadata("agent-worker-number")}
    if not hosts:
        return None
    names = hosts.split(",")
    slices = _number(environ, "MEGASCALE_NUM_SLICES", 1) if environ.get("MEGASCALE_NUM_SLICES") else 1
    count = len(names) * slices
    if count == 1:
        return Cluster("TPU_WORKER_HOSTNAMES", None, 1, 0)
    index = _number(environ, "TPU_WORKER_ID")
    if slices > 1:
        index += _number(environ, "MEGASCALE_SLICE_ID") * len(names)
    # An entry is a host, host:port, or name:number:address.
    parts = names[0].split(":")
    first = environ.get("MEGASCALE_COORDINATOR_ADDRESS", "").split(":")[0] or parts[2 if len(parts) == 3 else 0]
    address = _given_address(environ) or f"{first}:{environ.get('JAX_COORDINATOR_PORT', _TPU_PORT)}"
    return Cluster(f"TPU with {count} hosts, TPU_WORKER_ID={environ['TPU_WORKER_ID']}", address, count, index)


def _from_kubernetes(environ: Environment, api: bool) -> Cluster | None:
    if not (api and environ.get("KUBERNETES_SERVICE_HOST") and environ.get("JOB_COMPLETION_INDEX")):
        return None
    return Cluster(f"JOB_COMPLETION_INDEX={environ['JOB_COMPLETION_INDEX']}", _given_address(environ), None, None,
                   method="k8s")


def _given_address(environ: Environment) -> str | None:
    """Returns JAX_COORDINATOR_ADDRESS; its port may be in JAX_COORDINATOR_PORT."""
    address, port = environ.get("JAX_COORDINATOR_ADDRESS"), environ.get("JAX_COORDINATOR_PORT")
    if not address:
        return None
    return _address("JAX_COORDINATOR_ADDRESS", address if ":" in address or not port else f"{address}:{port}")


def _address(name: str, text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not re.fullmatch(r"\d{1,5}", port) or not 0 < int(port) < 65536:
        raise UserError(f"{name}={text}: not an address; write HOST:PORT, the port between 1 and 65535")
    return text


def _number(environ: Environment, name: str, least: int = 0) -> int:
    text = environ.get(name)
    if text is None:
        raise UserError(f"{name}: not set, although related variables are; set it, or give --coordinator, "
                        "--processes and --process")
    if not text.isdecimal() or int(text) < least:
        raise UserError(f"{name}={text}: must be a whole number, {least} or more")
    return int(text)
