"""Topologies: parsing, and messages for those that do not exist."""
import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.planning.budget import UTILIZATION
from spanbert_jax.planning.hardware import nearest_topology, parse_topology


@pytest.mark.parametrize("text,chips,slices,slice_size", [
    ("v5e:16x16", 256, 1, 256), ("4*v5e:16x16", 1024, 4, 256), ("v5p:8x8x16", 1024, 1, 1024), ("v4:2x2x1", 4, 1, 4),
    ("v6e:1x1", 1, 1, 1), ("h100:8", 8, 1, 8), ("h100:128", 128, 1, 8), ("h100:3", 3, 1, 3), ("cpu:5", 5, 1, 5),
    ("a100:16", 16, 1, 8), ("h200:8", 8, 1, 8), ("b200:1", 1, 1, 1)])
def test_parsed_topologies_count_their_chips_and_print_as_written(text, chips, slices, slice_size):
    topology = parse_topology(text)
    assert (topology.chips, topology.slices, topology.slice_size) == (chips, slices, slice_size)
    assert str(topology) == text


def test_a_cpu_or_gpu_without_a_number_is_one():
    assert parse_topology("cpu") == parse_topology("cpu:1") and parse_topology(" A100") == parse_topology("a100:1")


@pytest.mark.parametrize("text,part", [
    ("v5e", "write it as v5e:16x16"), ("v7:2x2", "unknown chip 'v7'"), ("v5f:2x2", "did you mean 'v5"),
    ("v5e:32x32", "use several slices, such as 4*v5e:16x16"), ("v5e:3x3", "allowed: 1x1, 2x2"),
    ("v5p:4x4", "3 dimensions; write 16 chips as v5p:2x2x4"), ("v5e:8", "2 dimensions; write 8 chips as v5e:2x4"),
    ("v5e:1024", "write 1,024 chips as 4*v5e:16x16"), ("h200:2x4", "1 dimension; write 8 chips as h200:8"),
    ("v5p:6x4x4", "multiples of 4"), ("v5p:32x32x32", "at most 8,960"),
    ("h100:12", "multiple of 8"), ("4*h100:8", "write h100:32"), ("cpu:0", "it has no chips"), ("", "write it as")])
def test_topologies_that_do_not_exist_give_a_one_line_error(text, part):
    with pytest.raises(UserError) as error:
        parse_topology(text)
    assert part in str(error.value) and "\n" not in str(error.value) and repr(text) in str(error.value)


@pytest.mark.parametrize("kind", UTILIZATION)
@pytest.mark.parametrize("chips", [1, 2, 3, 5, 8, 30, 64, 100, 512, 3000])
def test_the_nearest_topology_exists_and_is_not_larger(kind, chips):
    topology = nearest_topology(kind, chips)
    assert parse_topology(str(topology)) == topology
    assert 0 < topology.chips <= chips
    assert topology.chips == chips or chips not in (1, 8, 64)  # every kind has topologies of these sizes
