"""The CPU is chosen where libtpu is installed without a TPU, and nowhere else."""
import importlib.util

import pytest

from spanbert_jax.cluster.platforms import leave_out_absent_tpu


@pytest.mark.parametrize("modules,files,environ,chosen", [
    (["libtpu"], {}, {}, "cpu"), (["libtpu"], {"sys/bus/pci/devices/0/vendor": "0x8086\n"}, {}, "cpu"),
    (["libtpu"], {"dev/vfio/vfio": ""}, {"JAX_PLATFORMS": ""}, "cpu"),
    ([], {}, {}, None), (["libtpu", "jax_plugins"], {}, {}, None),
    (["libtpu"], {"dev/accel0": ""}, {}, None), (["libtpu"], {"dev/vfio/0": ""}, {}, None),
    (["libtpu"], {"sys/bus/pci/devices/1/vendor": "0x1ae0\n"}, {}, None),
    (["libtpu"], {}, {"JAX_PLATFORMS": "tpu"}, "tpu"), (["libtpu"], {}, {"JAX_FORCE_TPU_INIT": "1"}, None)])
def test_the_cpu_is_chosen_only_without_a_tpu(modules, files, environ, chosen, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in modules else None)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    leave_out_absent_tpu(environ, str(tmp_path))
    assert environ.get("JAX_PLATFORMS") == chosen
