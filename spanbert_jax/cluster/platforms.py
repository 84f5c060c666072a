"""The platforms that JAX looks for on this machine."""
import glob
import importlib.util
import os
import pathlib
from collections.abc import MutableMapping

_GOOGLE = "0x1ae0"  # the vendor of TPUs on the PCI bus, as in JAX's own search
# One file for each accelerator, from its driver; that of TPUs is VFIO from v6e on.
_DEVICE_FILES = {"tpu": ("dev/accel[0-9]*", "dev/vfio/[0-9]*"), "gpu": ("dev/nvidia[0-9]*",)}


def count_device_files(kind: str, root: str = "/") -> int:
    """How many accelerators of a kind, "tpu" or "gpu", have a device file on this machine."""
    return sum(len(glob.glob(str(pathlib.Path(root) / files))) for files in _DEVICE_FILES[kind])


def leave_out_absent_tpu(environ: MutableMapping[str, str] = os.environ, root: str = "/") -> None:
    """Makes JAX use the CPU where its TPU library is installed, as for `plan`, but no TPU and no other accelerator is.

    Otherwise the library looks for a TPU and logs several lines. Call it before `import jax`, which reads the
    environment. Where the environment names platforms, or the machine may have a TPU, nothing changes.
    """
    named = environ.get("JAX_PLATFORMS") or environ.get("JAX_FORCE_TPU_INIT") or environ.get("TPU_LIBRARY_PATH")
    installed = importlib.util.find_spec("libtpu") and not importlib.util.find_spec("jax_plugins")
    if not named and installed and not _may_have_tpu(root):
        environ["JAX_PLATFORMS"] = "cpu"


def _may_have_tpu(root: str) -> bool:
    vendors = pathlib.Path(root).glob("sys/bus/pci/devices/*/vendor")
    return bool(count_device_files("tpu", root)) or any(
        file.read_text(encoding="utf-8").strip() == _GOOGLE for file in vendors)
