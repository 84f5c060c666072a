"""The device mesh, and how arrays are laid out over it."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from spanbert_jax.common.errors import UserError

AXES = ("data", "fsdp", "tensor")
# What a TPU pads an array to: rows and columns, the last two axes, of 32-bit numbers.
TILE = (8, 128)
# A parameter this large that stays whole on every device of the axis that is there to split parameters is a mistake. To
# split smaller ones saves little, and each costs messages of its own.
LARGE = 1 << 20

Rules = Sequence[tuple[str, Any]]


def make_mesh(config: Any, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh (data, fsdp, tensor) of a config's `mesh` section over all devices, with Auto axes, as Linen needs.

    Where the devices are those of several TPU slices, the data axis runs over one slice after the other and no other
    axis leaves a slice: the network between slices is the slow one, and the data axis says least over it.

    Raises:
      UserError: when the axes do not multiply to the number of devices, or the slices do not divide the data axis.
    """
    _check_rules(config.rules)
    devices = jax.devices() if devices is None else devices
    shape = [config[axis] for axis in AXES]
    if shape[0] == -1:
        shape[0] = max(1, len(devices) // (shape[1] * shape[2]))
    if math.prod(shape) != len(devices):
        raise UserError(f"config.mesh: data={config.data}, fsdp={config.fsdp}, tensor={config.tensor} do not multiply "
                        f"to the {len(devices)} devices there are; set mesh.data=-1 to use those that are left")
    axis_types = (AxisType.Auto,) * len(AXES)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return jax.make_mesh(shape, AXES, axis_types=axis_types, devices=devices)
    if shape[0] % slices:
        raise UserError(f"config.mesh: {slices} slices do not divide data={shape[0]}, and no other axis may cross from "
                        "one slice to another; set mesh.fsdp and mesh.tensor so that together they divide the "
                        f"{len(devices) // slices} devices of a slice, and mesh.data=-1")
    # A slice's rows and columns of chips may be split between axes, as make_mesh allows where there is no other way.
    arranged = mesh_utils.create_hybrid_device_mesh((shape[0] // slices, *shape[1:]), (slices, 1, 1), devices,
                                                    allow_split_physical_axes=True)
    return Mesh(arranged, AXES, axis_types=axis_types)


def _check_rules(rules: Rules) -> None:
    known = all(len(rule) == 2 and set(_axes(rule[1])) <= set(AXES) for rule in rules)
    if not known or not _axes(dict(rules).get("batch")):
        raise UserError(f"config.mesh.rules={rules!r}: write pairs of a logical axis and one or several of {AXES}, "
                        "and one for 'batch'")


def mesh_axes(rules: Rules, logical: str) -> tuple[str, ...]:
    """The mesh axes over which a logical axis is split; none where it has no rule."""
    return _axes(dict(rules).get(logical))


def batch_axes(rules: Rules) -> tuple[str, ...]:
    """The mesh axes over which rows are split."""
    return mesh_axes(rules, "batch")


def batch_sharding(mesh: Mesh, rules: Rules) -> NamedSharding:
    """Rows split over the data axes, everything else whole."""
    return NamedSharding(mesh, PartitionSpec(batch_axes(rules)))


def batch_ways(mesh: Mesh, rules: Rules) -> int:
    """Devices that the rows of a batch are split over."""
    return math.prod(mesh.shape[axis] for axis in batch_axes(rules))


def check_batch(mesh: Mesh, rules: Rules, field: str, rows: int) -> None:
    """Refuses a number of rows that the data axes do not divide.

    Raises:
      UserError: naming `field`.
    """
    ways = batch_ways(mesh, rules)
    if rows % ways:
        raise UserError(f"{field}: {rows} rows do not divide over the {ways} devices of the data axes "
                        f"{batch_axes(rules)}; use a multiple of {ways}")


def parameter_shardings(params: Any, mesh: Mesh, rules: Rules) -> Any:
    """The sharding of every parameter, from the logical names on its axes.

    Args:
      params: abstract parameters boxed with their logical names, as `jax.eval_shape(model.init, ...)` gives them.

    Raises:
      UserError: when an axis does not divide over its mesh axis, two axes claim one mesh axis, or a large parameter
        stays whole although the mesh has an fsdp axis.
    """
    shardings = nn.logical_to_mesh_sharding(nn.get_partition_spec(params), mesh, rules)
    shapes = nn.unbox(params)
    jax.tree_util.tree_map_with_path(
        lambda path, box, leaf, sharding: _check(parameter_name(path), box.names, leaf.shape, sharding, rules),
        params, shapes, shardings, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned))
    return shardings


def _check(name: str, logical: tuple[str | None, ...], shape: tuple[int, ...], sharding: NamedSharding,
           rules: Rules) -> None:
    mesh, rule = sharding.mesh.shape, dict(rules)
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
    """The mesh axes in an entry of a rule or of a partition spec."""
    return () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)


def parameter_name(path: tuple[Any, ...]) -> str:
    """A parameter's path as one word, such as encoder/layers/attention/query/kernel."""
    return "/".join(str(key.key) for key in path)


def optimizer_shardings(optimizer: optax.GradientTransformation, params: Any, shardings: Any, mesh: Mesh) -> Any:
    """The optimiser state laid out as the parameters that it belongs to; what has another shape is replicated.

    Args:
      params: abstract parameters, without boxes.
      shardings: theirs.
    """
    whole = NamedSharding(mesh, PartitionSpec())
    return optax.tree.map_params(
        optimizer, lambda leaf, param, sharding: sharding if leaf.shape == param.shape else whole,
        jax.eval_shape(optimizer.init, params), params, shardings, transform_non_params=lambda _: whole)


def spread_over_data(params: Any, shardings: Any) -> Any:
    """The parameters' shardings, and one axis of each split over the data axis too: ZeRO-1's, for what updates them.

    Small parameters (see `LARGE`), and those none of whose axes divides further, keep their own.

    Args:
      params: abstract parameters, without boxes.
      shardings: theirs.
    """
    return jax.tree.map(lambda param, sharding: _spread(param.shape, sharding), params, shardings)


def _spread(shape: tuple[int, ...], sharding: NamedSharding) -> NamedSharding:
    mesh, ways = sharding.mesh.shape, sharding.mesh.shape["data"]
    parts = [_axes(part) for part in sharding.spec] + [()] * (len(shape) - len(sharding.spec))
    local = [size // math.prod(mesh[axis] for axis in part) for size, part in zip(shape, parts)]
    axes = [axis for axis, size in enumerate(local) if size % ways == 0]
    if ways == 1 or math.prod(shape) < LARGE or not axes or any("data" in part for part in parts):
        return sharding
    # The axis whose parts are whole tiles of a TPU, or else waste least: of a kernel [12, 768, 768] over 8 devices the
    # second, 96 rows each, and not the third, 96 of 128 lanes. Of equals the largest, and so never that of the stacked
    # layers: a device with all of one layer would need that layer's whole gradient and the others nothing of it, where
    # otherwise the sum over the devices leaves each with a part.
    chosen = min(axes, key=lambda axis: (_padded_size(local, axis, ways), -local[axis]))
    parts[chosen] += ("data",)
    return NamedSharding(sharding.mesh, PartitionSpec(*(part or None for part in parts)))


def _padded_size(shape: list[int], axis: int, ways: int) -> int:
    """Numbers that a TPU keeps of an array of which one axis is split so many ways."""
    sizes = [*shape[:axis], shape[axis] // ways, *shape[axis + 1:]]
    tiles = [*[1] * (len(sizes) - 2), *TILE][-len(sizes):]
    return math.prod(-(-size // tile) * tile for size, tile in zip(sizes, tiles))


def local_rows(sharding: NamedSharding, batch_size: int) -> np.ndarray:
    """The places in a batch, ascending, of the rows that this process's devices hold: all that it needs to read."""
    held = np.zeros(batch_size, bool)
    for rows, in sharding.addressable_devices_indices_map((batch_size,)).values():
        held[rows] = True
    return np.flatnonzero(held)


def global_array(sharding: NamedSharding, rows: np.ndarray, places: np.ndarray, batch_size: int) -> jax.Array:
    """A batch of which each device holds its own rows, from the rows that this process has read.

    Args:
      rows: [R, ...] the rows at `places` of the batch.
      places: [R] as from `local_rows`.
      batch_size: B, rows of the whole batch.

    Returns:
      [B, ...].
    """
    def part(index: tuple[slice, ...]) -> np.ndarray:
        first, end, _ = index[0].indices(batch_size)
        place = np.searchsorted(places, first)
        return rows[place:place + end - first]

    return jax.make_array_from_callback((batch_size, *rows.shape[1:]), sharding, part)


def votes(mesh: Mesh, vote: bool) -> jax.Array:
    """This process's vote as the entries of its devices in an array [devices] over the whole mesh."""
    everywhere = NamedSharding(mesh, PartitionSpec(AXES))
    return jax.make_array_from_callback(
        (mesh.size,), everywhere, lambda index: np.full(len(range(*index[0].indices(mesh.size))), vote))
