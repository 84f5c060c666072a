"""Meshes: rules that pair logical with mesh axes, and several TPU slices; other tests cover meshes of one slice."""
import dataclasses
import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from jax.sharding import AxisType

from spanbert_jax.common.errors import UserError
from spanbert_jax.planning.compiler.devices import environment
from spanbert_jax.planning.hardware import parse_topology
from spanbert_jax.pretraining.config import default_config
from spanbert_jax.training.batches import local_batch_indices
from spanbert_jax.training.mesh import MeshSettings, batch_sharding, make_mesh

TWO_SLICES = parse_topology("2*v5e:2x2")
# Prints the slice of every device of a mesh over those of two v5e slices.
ON_TPU = """
import json
import numpy as np
from spanbert_jax.planning.compiler.devices import get_devices
from spanbert_jax.planning.hardware import parse_topology
from spanbert_jax import default_config
from spanbert_jax.training.mesh import make_mesh
devices = get_devices(parse_topology("2*v5e:2x2"))
config = default_config().mesh
config.fsdp = 2
print(json.dumps(np.vectorize(lambda device: device.slice_index)(make_mesh(config, devices).devices).tolist()))
"""


@dataclasses.dataclass(frozen=True)
class Device:
    """The attributes of a device that a mesh uses."""
    id: int
    slice_index: int
    process_index: int
    platform: str = "stand-in"
    device_kind: str = "stand-in"


def two_slices(reverse: bool = False) -> list[Device]:
    """Two slices of four devices; each slice has two processes."""
    devices = [Device(id=i, slice_index=i // 4, process_index=i // 2) for i in range(8)]
    return devices[::-1] if reverse else devices


def mesh_config(**axes: int):
    config = default_config().mesh
    config.update(axes)
    return config


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axes", [{}, {"fsdp": 2}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_only_the_data_axis_crosses_slices(axes, reverse):
    mesh = make_mesh(mesh_config(**axes), two_slices(reverse))
    assert mesh.axis_types == (AxisType.Auto,) * 3 and mesh.size == 8
    for index, device in np.ndenumerate(mesh.devices):
        assert device.slice_index == index[0] // (mesh.shape["data"] // 2)


@pytest.mark.parametrize("axes", [{}, {"fsdp": 2}, {"tensor": 4}])
def test_every_row_of_a_batch_is_read_once_in_a_slice(axes):
    config = mesh_config(**axes)
    sharding = batch_sharding(make_mesh(config, two_slices()), config.rules)
    rows = sharding.devices_indices_map((16,))
    read = {}
    for process in range(4):
        own = {device: index for device, index in rows.items() if device.process_index == process}
        # As if this process held these devices.
        sharding = SimpleNamespace(addressable_devices_indices_map=lambda shape: own)
        read[process] = local_batch_indices(sharding, 16).tolist()
    for first, second, expected in ((0, 1, range(8)), (2, 3, range(8, 16))):
        assert sorted({*read[first], *read[second]}) == list(expected)
        if "tensor" not in axes:  # devices of the tensor axis hold the same rows
            assert not set(read[first]) & set(read[second])


@pytest.mark.parametrize("axes,data", [({"fsdp": 8}, 1), ({"data": 1, "fsdp": 2, "tensor": 4}, 1)])
def test_a_data_axis_that_the_slices_do_not_divide_is_refused(axes, data):
    with pytest.raises(UserError, match=rf"2 slices do not divide data={data}, .* divide the 4 devices of a slice"):
        make_mesh(mesh_config(**axes), two_slices())


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed")
def test_slices_of_tpus():
    output = subprocess.run([sys.executable, "-c", ON_TPU], env=environment(TWO_SLICES), check=True,
                            capture_output=True, text=True, timeout=120).stdout
    assert json.loads(output.splitlines()[-1]) == [[[0], [0]], [[0], [0]], [[1], [1]], [[1], [1]]]


@pytest.mark.parametrize("rules", [
    0.5, (0.5,), ((0.5, "data"),), (("batch", 3),), (("batch", (3,)),), (("batch", "dat"),), (("batch",),),
    (("batch", None),), (("vocab", "tensor"),)])
def test_rules_pair_logical_axes_with_mesh_axes(rules):
    with pytest.raises(UserError, match="config.mesh.rules=.*: write pairs of a logical axis and one or several of"):
        make_mesh(MeshSettings(rules=rules))


def test_a_logical_axis_may_have_one_several_or_no_mesh_axes():
    make_mesh(MeshSettings(rules=(("batch", "data"), ("vocab", ("fsdp", "tensor")), ("embed", None))))
