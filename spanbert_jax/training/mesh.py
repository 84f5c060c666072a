"""The device mesh and the layout of arrays over it."""
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.common.settings import Settings, require, setting

AXES = ("data", "fsdp", "tensor")
TILE = (8, 128)  # a TPU pads the last two axes of a 32-bit array to multiples of these
# A parameter of this size must be split if the mesh has an fsdp axis. Splitting smaller ones saves little memory and
# costs a collective each.
LARGE = 1 << 20

Rules = Sequence[tuple[str, Any]]


@dataclasses.dataclass(frozen=True)
class MeshSettings(Settings):
    """Devices, and how arrays are split over them."""
    data: int = setting(-1, "Devices of the data axis; -1 takes all that the other axes leave.")
    fsdp: int = setting(1, "Devices over which parameters are split.", minimum=1)
    tensor: int = setting(1, "Devices over which layers are split.", minimum=1)
    zero1: bool = setting(False, "Split optimizer state and updates over the data axis (ZeRO-1).")
    rules: tuple[tuple[str, Any], ...] = setting(
        (("batch", ("data", "fsdp")), ("vocab", "tensor"), ("heads", "tensor"), ("mlp", "tensor"), ("embed", "fsdp")),
        "Pairs of a logical axis and one or several mesh axes; axes without a rule are replicated.")

    def validate(self, path: str) -> None:
        super().validate(path)
        require(self.data >= 1 or self.data == -1, f"{path}.data", self.data,
                "must be at least 1, or -1 for all devices that the other axes leave")


def make_mesh(config: MeshSettings, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh (data, fsdp, tensor) of a config's `mesh` section over all devices, with Auto axes, as Linen needs.

    Over several TPU slices, only the data axis crosses from slice to slice: the network between slices is slow, and the
    data axis communicates least.

    Raises:
      UserError: when the axes do not multiply to the number of devices, or the slices do not divide the data axis.
    """
    _check_rules(config.rules)
    devices = jax.devices() if devices is None else devices
    shape = [config.data, config.fsdp, config.tensor]
    if shape[0] == -1:
        shape[0] = max(1, len(devices) // (shape[1] * shape[2]))
    if math.prod(shape) != len(devices):
        raise UserError(f"config.mesh: data={config.data}, fsdp={config.fsdp}, tensor={config.tensor} do not multiply "
                        f"to the {len(devices)} devices; set mesh.data=-1 to use all devices that the other axes leave")
    axis_types = (AxisType.Auto,) * len(AXES)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return jax.make_mesh(shape, AXES, axis_types=axis_types, devices=devices)
    if shape[0] % slices:
        raise UserError(f"config.mesh: {slices} slices do not divide data={shape[0]}, and no other axis may cross from "
                        "one slice to another; set mesh.fsdp and mesh.tensor so that together they divide the "
                        f"{len(devices) // slices} devices of a slice, and mesh.data=-1")
    # As jax.make_mesh does, split a physical axis of a slice between mesh axes if nothing else fits.
    arranged = mesh_utils.create_hybrid_device_mesh((shape[0] // slices, *shape[1:]), (slices, 1, 1), devices,
                                                    allow_split_physical_axes=True)
    return Mesh(arranged, AXES, axis_types=axis_types)


def _check_rules(rules: Rules) -> None:
    known = isinstance(rules, tuple | list) and all(
        isinstance(rule, tuple | list) and len(rule) == 2 and isinstance(rule[0], str)
        and isinstance(rule[1], str | tuple | None) and all(axis in AXES for axis in _axes(rule[1])) for rule in rules)
    if not known or not _axes(dict(rules).get("batch")):
        raise UserError(f"config.mesh.rules={rules!r}: write pairs of a logical axis and one or several of {AXES}, "
                        "and one for 'batch'")


def mesh_axes(rules: Rules, logical: str) -> tuple[str, ...]:
    """The mesh axes over which a logical axis is split; empty if it has no rule."""
    return _axes(dict(rules).get(logical))


def batch_sharding(mesh: Mesh, rules: Rules) -> NamedSharding:
    """The sharding of a batch: rows split over the data axes, other axes replicated."""
    return NamedSharding(mesh, PartitionSpec(mesh_axes(rules, "batch")))


def batch_ways(mesh: Mesh, rules: Rules) -> int:
    """Number of parts that the rows of a batch are split into."""
    return math.prod(mesh.shape[axis] for axis in mesh_axes(rules, "batch"))


def check_batch(mesh: Mesh, rules: Rules, field: str, rows: int) -> None:
    """Checks that a batch divides over the data axes. Raises UserError if it does not; the message names `field`."""
    ways = batch_ways(mesh, rules)
    if rows % ways:
        raise UserError(f"{field}: {format_plural(rows, 'row')} cannot be divided over the {ways} devices of the data "
                        f"axes {mesh_axes(rules, 'batch')}; use a multiple of {ways}")


def parameter_shardings(params: Any, mesh: Mesh, rules: Rules) -> Any:
    """The sharding of every parameter, from the logical names on its axes.

    Args: params: abstract, boxed with their logical names, as `jax.eval_shape(model.init, ...)` returns them.

    Raises:
      UserError: an axis does not divide over its mesh axis, two axes claim one mesh axis, or a large parameter is
        replicated although the mesh has an fsdp axis.
    """
    shardings = nn.logical_to_mesh_sharding(nn.get_partition_spec(params), mesh, rules)
    shapes = nn.unbox(params)
    jax.tree_util.tree_map_with_path(
        lambda path, box, leaf, sharding: _check(parameter_name(path), box.names, leaf.shape, sharding, rules),
        params, shapes, shardings, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned))
    return shardings


def _check(name: str, logical: tuple[str | None, ...], shape: tuple[int, ...], sharding: NamedSharding,
           rules: Rules) -> None:
    mesh, rule = sharding.mesh.shape, dict[str | None, Any](rules)
    claims = [axis for part in logical for axis in _axes(rule.get(part)) if mesh[axis] > 1]
    for axis in claims:
        if claims.count(axis) > 1:
            raise UserError(f"config.mesh.rules: two of the axes {logical} of parameter {name} claim mesh axis "
                            f"{axis!r}, which can split one of them only; change one of their rules")
    for size, part in zip(shape, sharding.spec):
        ways = math.prod(mesh[axis] for axis in _axes(part))
        if size % ways:
            raise UserError(f"config.mesh: parameter {name} {shape} does not divide {ways} ways over mesh axis "
                            f"{part!r}; change mesh.{part} or the model's size")
    if mesh["fsdp"] > 1 and "fsdp" not in claims and math.prod(shape) >= LARGE:
        raise UserError(f"config.mesh.rules: parameter {name} {shape} with axes {logical} stays whole on all "
                        f"{mesh['fsdp']} devices of mesh.fsdp; add a rule that splits one of its axes over 'fsdp'")


def _axes(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The mesh axes in one entry of a rule or of a partition spec."""
    return () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)


def parameter_name(path: tuple[Any, ...]) -> str:
    """The name of a parameter, such as encoder/layers/attention/query/kernel."""
    return "/".join(str(key.key) for key in path)


def optimizer_shardings(optimizer: optax.GradientTransformation, params: Any, shardings: Any, mesh: Mesh) -> Any:
    """Shardings of the optimiser state: those of the abstract, unboxed parameters; other shapes are replicated."""
    replicated = NamedSharding(mesh, PartitionSpec())
    return map_optimizer_state(
        lambda leaf, param, sharding: sharding if leaf.shape == param.shape else replicated,
        optimizer, params, shardings, replicated)


def map_optimizer_state(function: Callable[[Any, Any, Any], Any], optimizer: optax.GradientTransformation, params: Any,
                        values: Any, other: Any) -> Any:
    """The optimiser state with function(leaf, parameter, value) for leaves of parameters, and `other` elsewhere.

    Args: params: arrays, or abstract ones; values: one for each parameter.
    """
    def of_parameter(leaf: Any, param: Any, value: Any) -> Any:
        # An optimiser of several has masked nodes for the parameters of the others.
        return leaf if isinstance(leaf, optax.MaskedNode) else function(leaf, param, value)

    return optax.tree.map_params(
        optimizer, of_parameter, jax.eval_shape(optimizer.init, params), params, values,
        transform_non_params=lambda _: other, is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode))


def spread_over_data(params: Any, shardings: Any) -> Any:
    """ZeRO-1 shardings of abstract, unboxed parameters: one axis of each is split over the data axis as well.

    Small parameters (see `LARGE`) and those without an axis that divides further keep their shardings.
    """
    return jax.tree.map(lambda param, sharding: _spread(param.shape, sharding), params, shardings)


def _spread(shape: tuple[int, ...], sharding: NamedSharding) -> NamedSharding:
    mesh, ways = sharding.mesh.shape, sharding.mesh.shape["data"]
    parts = [_axes(part) for part in sharding.spec] + [()] * (len(shape) - len(sharding.spec))
    local = [size // math.prod(mesh[axis] for axis in part) for size, part in zip(shape, parts)]
    axes = [axis for axis, size in enumerate(local) if size % ways == 0]
    if ways == 1 or math.prod(shape) < LARGE or not axes or any("data" in part for part in parts):
        return sharding
    # Prefer the axis whose parts need least padding to whole TPU tiles: for a kernel [12, 768, 768] over 8 devices the
    # second (96 rows each), not the third (96 of 128 lanes). Among equals take the largest, so never the axis of
    # stacked layers: a device that held all of one layer would need the layer's whole gradient and nothing of the
    # others, while otherwise the sum over the devices leaves each of them with its part.
    chosen = min(axes, key=lambda axis: (_padded_size(local, axis, ways), -local[axis]))
    parts[chosen] += ("data",)
    return NamedSharding(sharding.mesh, PartitionSpec(*(part or None for part in parts)))


def _padded_size(shape: list[int], axis: int, ways: int) -> int:
    """Elements that a TPU stores for an array with one axis split `ways` ways, padding included."""
    sizes = [*shape[:axis], shape[axis] // ways, *shape[axis + 1:]]
    tiles = [*[1] * (len(sizes) - 2), *TILE][-len(sizes):]
    return math.prod(-(-size // tile) * tile for size, tile in zip(sizes, tiles))


def stop_flags(mesh: Mesh, stop: bool) -> jax.Array:
    """[devices] bool over the whole mesh; the entries of this process's devices are its wish to stop."""
    def shard(index: Any) -> np.ndarray:
        return np.full(len(range(*index[0].indices(mesh.size))), stop)

    return jax.make_array_from_callback((mesh.size,), NamedSharding(mesh, PartitionSpec(AXES)), shard)
