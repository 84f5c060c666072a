"""Parsing compiled programs, on a program written by hand."""
import pytest

from spanbert_jax.planning.compiler.activations import activation_bytes
from spanbert_jax.planning.compiler.hlo import Program, array_bytes
from spanbert_jax.planning.compiler.steps import kernel_name

# A loop of 3 iterations contains a loop of unknown length; the kernel's attributes span several lines.
PROGRAM = '''HloModule jit_step, is_scheduled=true

%product (a: bf16[8,128], b: bf16[128,128]) -> bf16[8,128] {
  %a = bf16[8,128]{1,0} parameter(0)
  %b = bf16[128,128]{1,0} parameter(1)
  ROOT %convolution.1 = bf16[8,128]{1,0} convolution(%a, %b), dim_labels=bf_io->bf
}

%reduced (c: f32[100]) -> f32[100] {
  %c = f32[100]{0} parameter(0)
  ROOT %all-reduce.5 = f32[100]{0} all-reduce(%c), channel_id=7, replica_groups=[2,4]<=[4,2]T(1,0), to_apply=%add
}

%inner_condition (i: (s32[], s32[])) -> pred[] {
  %i = (s32[], s32[]) parameter(0)
  %at = s32[] get-tuple-element(%i), index=0
  %end = s32[] get-tuple-element(%i), index=1
  ROOT %less = pred[] compare(%at, %end), direction=LT
}

%inner_body (i.1: (s32[], s32[])) -> (s32[], s32[]) {
  %i.1 = (s32[], s32[]) parameter(0)
  ROOT %copied = (s32[], s32[]) fusion(%i.1), calls=%product, backend_config={"w":{},"estimated_cycles":"10"}
}

%condition (j: (s32[], bf16[8,128])) -> pred[] {
  %j = (s32[], bf16[8,128]) parameter(0)
  %count = s32[] get-tuple-element(%j), index=0
  %three = s32[] constant(3)
  ROOT %less.1 = pred[] compare(%count, %three), direction=LT
}

%body (j.1: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %j.1 = (s32[], bf16[8,128]) parameter(0)
  %carried = bf16[8,128]{1,0:T(8,128)} get-tuple-element(%j.1), index=1
  %kernel.1 = bf16[8,128]{1,0} custom-call(%carried), custom_call_target="tpu_custom_call", more={data={
"note":"}"
}}, metadata={op_name="jit(step)/transpose(jvp(my_kernel))/pallas_call"}
  %inner = (s32[], s32[]) while(%j.1), condition=%inner_condition, body=%inner_body
  ROOT %out = (s32[], bf16[8,128]) fusion(%j.1), kind=kLoop, calls=%product, backend_config={"estimated_cycles":"100"}
}

ENTRY %main (p: bf16[8,128], q: f32[100]) -> bf16[8,128] {
  %p = bf16[8,128]{1,0:T(8,128)} parameter(0)
  %q = f32[100]{0} parameter(1)
  %kept = bf16[8,128]{1,0:T(8,128)} fusion(%p, %p), calls=%product, backend_config={"estimated_cycles":"1000"}
  %near = f32[100]{0:T(128)S(1)} copy(%q)
  %forgotten = f32[100]{0} negate(%near)
  %beside = f32[100]{0} fusion(%forgotten), kind=kCustom, calls=%reduced
  %start = (s32[], bf16[8,128]) tuple(%p, %kept)
  %loop = (s32[], bf16[8,128]) while(%start), condition=%condition, body=%body, metadata={op_name="transpose(jvp(a))"}
  %alone = (f32[10]{0}, f32[30]{0}) all-reduce(%near, %beside), channel_id=8, replica_groups=mesh['x'=4,'y'=2] {'y'}
  %sent = (f32[2,128]{1,0}, u32[], token[]) send(%q, %q), channel_id=5, a={_xla_megascale_transfer_type="ALL_REDUCE"}
  %busy = bf16[8,128]{1,0} fusion(%p, %p), calls=%product
  %sent-done = token[] send-done(%sent), channel_id=5
  %listed = f32[64]{0} all-gather(%q), channel_id=9, replica_groups={{0,4},{1,5},{2,6},{3,7}}, dimensions={0}
  ROOT %last = bf16[8,128]{1,0} get-tuple-element(%loop), index=1
}
'''


@pytest.fixture(scope="module")
def program() -> Program:
    return Program(PROGRAM)


def test_loops_run_up_to_their_constant_and_others_as_often_as_assumed(program):
    cycles = [(line.name, line.cycles, times) for _, line, times in program.runs(5) if line.cycles]
    assert cycles == [("kept", 1000, 1), ("copied", 10, 15), ("out", 100, 3)]


def test_kernels_are_found_by_name(program):
    assert [(kernel_name(line.text), times) for _, line, times in program.runs(5) if kernel_name(line.text)] == [
        ("my_kernel", 3)]


def test_kernels_of_layers_with_a_window_have_names_of_their_own():
    text = 'custom_call_target="tpu_custom_call", metadata={op_name="jit(f)/transpose(jvp(A))/window_%d/k/pallas_call"}'
    assert [kernel_name(text % window) for window in (0, 128)] == ["k", "k (window 128)"]


def test_collectives_are_found_in_fusions_and_with_each_notation_of_groups(program):
    found = {one.kind + str(one.bytes): one for one in program.collectives(5, slice_size=4)}
    assert set(found) == {"all-reduce400", "all-reduce160", "all-gather256", "all-reduce1024"}
    # The rows of 0..7 as [4, 2], transposed: 0, 2, 4, 6.
    fused, alone, listed = found["all-reduce400"], found["all-reduce160"], found["all-gather256"]
    assert (fused.group, fused.overlapped, fused.crosses_slices) == (4, True, True)
    assert (alone.group, alone.overlapped, alone.crosses_slices) == (2, False, False)
    assert (listed.group, listed.overlapped, listed.crosses_slices) == (2, False, True)


def test_a_send_to_other_slices_is_a_collective_between_them(program):
    between, = (one for one in program.collectives(5, slice_size=4, slices=2) if one.bytes == 1024)
    assert (between.kind, between.group, between.crosses_slices, between.overlapped) == ("all-reduce", 2, True, True)


def test_a_matrix_product_inside_a_fusion_is_found(program):
    lines = program.computations["main"]
    assert program.has_matrix_product(lines["kept"]) and not program.has_matrix_product(lines["beside"])


def test_memory_traffic_counts_operands_and_results_in_hbm_only(program):
    lines = program.computations["main"]
    assert program.memory_bytes("main", lines["kept"]) == 3 * 8 * 128 * 2
    assert program.memory_bytes("main", lines["near"]) == 400  # its result is in VMEM
    assert array_bytes("(f32[2,3]{1,0}, pred[5], bf16[])") == 24 + 5 + 2


def test_activations_are_made_before_the_backward_pass_and_used_after_its_start(program):
    # `kept` is an operand of the loop, `beside` is used after it. `forgotten` is not used any more, `near` is in VMEM,
    # `p` and `q` are arguments.
    assert activation_bytes(program) == 8 * 128 * 2 + 400
