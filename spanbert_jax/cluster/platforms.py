"""The platforms that JAX looks for on this machine."""
import glob
import importlib.util
import os
import pathlib
from collections.abc import MutableMapping

_GOOGLE = "0x1ae0"  # the vendor of TPUs on the PCI bus, as in JAX's own search


def leave_out_absent_tpu(environ: MutableMapping[str, str] = os.environ, root: str = "/") -> None:
    """Makes JAX use the CPU where its TPU library is installed, as for `plan`, but no TPU and no other accelerator is.

    Otherwise the library looks for a TPU and logs several lines. Call it before `import jax`, which reads the
    environment. Where the environment names platforms, or the machine may have a TPU, nothing changes.
    """
    named = environ.get("JAX_PLATFORMS") or environ.get("JAX_FORCE_TPU_INIT") or environ.get("TPU_LIBRARY_PATH")
    installed = importlib.util.find_spec("libtpu") and not importlib.util.find_spec("jax_plugins")
    if not named and installed and not _may_have_tpu(pathlib.Path(root)):
        environ["JAX_PLATFORMS"] = "cpu"


def _may_have_tpu(root: pathlib.Path) -> bool:
    devices = any(glob.glob(str(root / files)) for files in ("dev/accel[0-9]*", "dev/vfio/[0-9]*"))
    return devices or any(pathlib.Path(file).read_text(encoding="utf-8").strip() == _GOOGLE
                          for file in glob.glob(str(root / "sys/bus/pci/devices/*/vendor")))
