"""Deliberate faults, and whether the tests find them. Run by hand; it takes about half an hour:

  python -m tests.mutations [--only NAME] [--jobs N]

Each fault is applied alone to a temporary copy of the source tree, in which the named tests then run. The script prints
"caught" or "MISSED" for each one. tests/test_mutations.py checks that every fault still fits the source.
"""
from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
REQUIRED = 64  # that must be caught


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One fault.

    Attributes:
      name: what is wrong with the mutated code.
      file: path under spanbert_jax/.
      old: source text, which occurs exactly once in the file.
      new: its replacement.
      tests: paths under tests/ of the tests that find the fault.
    """
    name: str
    file: str
    old: str
    new: str
    tests: str

    def stale(self, root: pathlib.Path = ROOT) -> str | None:
        """Why the mutation does not fit the source tree, or None."""
        path = root / "spanbert_jax" / self.file
        if not path.exists():
            return f"{self.file} does not exist"
        count = path.read_text(encoding="utf-8").count(self.old)
        if count != 1:
            return f"{self.old!r} occurs {count} times in {self.file}"
        missing = [test for test in self.tests.split() if not (root / "tests" / test).exists()]
        return f"no tests {', '.join(missing)}" if missing else None


MUTATIONS = (
    # Masking.
    Mutation("budget_rounds_down", "masking/budgets.py", "np.ceil(", "np.floor(", "masking/test_budgets.py"),
    Mutation("budget_in_float32", "masking/budgets.py", "np.float64(rate)", "np.float32(rate)",
             "masking/test_budgets.py"),
    Mutation("slots_for_single_texts_only", "masking/budgets.py", "length - blocks - math.ceil(blocks / 2)",
             "length - 2 * blocks", "masking/test_budgets.py"),
    Mutation("special_tokens_are_masked", "masking/masker.py",
             "(segments > 0) & ~jnp.isin(tokens, jnp.asarray(special_ids))", "segments > 0", "masking/test_masking.py"),
    Mutation("second_text_shares_a_budget", "masking/masker.py",
             "(jnp.diff(segments) != 0) | (jnp.diff(token_types) != 0)", "jnp.diff(segments) != 0",
             "masking/test_masking.py masking/test_schemes.py"),
    Mutation("one_token_above_budget", "masking/masker.py", "(jnp.cumsum(proposed) <= remaining)",
             "(jnp.cumsum(proposed) <= remaining + 1)", "masking/test_masking.py"),
    Mutation("spans_cross_blocks", "masking/spans.py", "masked & ~(same_as_previous & _previous(masked))",
             "masked & ~_previous(masked)", "masking/test_spans.py masking/test_masking.py"),
    Mutation("internal_span_too_short", "masking/spans.py", "Spans(start, end - start + 1, start, end, masked)",
             "Spans(start, end - start, start, end, masked)", "masking/test_spans.py masking/test_masking.py"),
    Mutation("geometric_law_reversed", "masking/schemes/geometric.py", "(1 - settings.geometric_p) **",
             "settings.geometric_p **", "masking/test_schemes.py"),
    Mutation("longest_span_never_drawn", "masking/schemes/geometric.py",
             "settings.span_upper - settings.span_lower + 1", "settings.span_upper - settings.span_lower",
             "masking/test_schemes.py"),
    Mutation("units_too_rare", "masking/schemes/annotated.py", "uniform * (by_unit + by_span) < by_unit",
             "uniform < by_unit", "masking/test_schemes.py"),
    Mutation("outcome_and_token_share_bits", "masking/replacement.py", ".draw(bits[1])", ".draw(bits[0])",
             "masking/test_replacement.py"),
    Mutation("span_replaced_token_by_token", "masking/masker.py", "slot - place, slot)", "slot, slot)",
             "masking/test_replacement.py masking/test_masking.py"),
    Mutation("boundary_targets_too_far", "masking/masker.py", "(place < settings.max_span_positions)",
             "(place <= settings.max_span_positions)", "masking/test_masking.py masking/test_spans.py"),
    Mutation("rows_share_a_key", "pretraining/objective.py", "first + jnp.arange(", "first + 0 * jnp.arange(",
             "pretraining/test_objective.py"),
    # Losses.
    Mutation("nothing_is_correct", "model/losses.py", "target >= jnp.max(", "target > jnp.max(",
             "pretraining/test_objective.py"),
    Mutation("losses_unweighted", "model/losses.py", "by_row(losses * weights)", "by_row(losses)",
             "pretraining/test_objective.py training/test_step.py"),
    Mutation("boundary_weight_ignored", "pretraining/objective.py", '"boundary": boundary_weight', '"boundary": 1.0',
             "pretraining/test_objective.py"),
    Mutation("always_reference_denominators", "pretraining/objective.py", "1.0 if reference_denominators else 0.0",
             "1.0", "pretraining/test_objective.py"),
    Mutation("continuations_not_counted", "pretraining/objective.py", "next_sentence >= 0", "next_sentence > 0",
             "pretraining/test_objective.py training/test_step.py"),
    Mutation("mean_of_no_targets", "training/step.py", "value.count + (value.count == 0)", "value.count",
             "pretraining/test_objective.py"),
    # Step, optimizers and schedules.
    Mutation("same_masks_in_every_step", "training/step.py", '(seed, impl="threefry2x32"), step)',
             '(seed, impl="threefry2x32"), 0)', "training/test_step.py"),
    Mutation("each_part_has_its_own_counts", "training/step.py", "objective.loss(sums, counts), (sums",
             "objective.loss(sums, objective.counts(part)), (sums", "training/test_step.py"),
    Mutation("skipped_updates_move_the_schedule", "training/step.py", "schedule(state.step - state.history.skipped)",
             "schedule(state.step)", "training/test_skipping.py"),
    Mutation("bad_updates_are_applied", "training/step.py", "jnp.where(bad, old, new)", "new",
             "training/test_skipping.py"),
    Mutation("outlier_limit_too_low", "training/skipping.py", "middle + deviations * spread", "middle + spread",
             "training/test_skipping.py"),
    Mutation("history_forgets_its_last_entry", "training/skipping.py", "history.applied % WINDOW",
             "history.applied % (WINDOW - 1)", "training/test_skipping.py"),
    Mutation("epsilon_inside_the_root", "training/optimizers.py", "-size * m / (jnp.sqrt(v) + eps)",
             "-size * m / jnp.sqrt(v + eps)", "training/test_optimizers.py"),
    Mutation("first_moment_uncorrected", "training/optimizers.py", "/ (1 - b1 ** count)", "/ (1 - b1)",
             "training/test_optimizers.py"),
    Mutation("layers_clipped_together", "training/stacked_layers.py", "_first_keys(path) == stack, params",
             "False, params", "training/test_optimizers.py"),
    Mutation("first_update_at_rate_zero", "training/schedules.py", "jnp.asarray(count, jnp.float32) + 1",
             "jnp.asarray(count, jnp.float32)", "training/test_schedules.py"),
    # Rows and loader.
    Mutation("batches_overlap", "corpus/loader.py", "self.row_numbers(step * self._batch_size", "self.row_numbers(step",
             "corpus/test_loader.py"),
    Mutation("row_numbers_start_anew_nowhere", "corpus/loader.py", "int(self._ends[shard - 1]) if shard else 0", "0",
             "corpus/test_loader.py"),
    Mutation("last_row_of_a_file_in_the_next", "corpus/loader.py", 'indices, "right")', 'indices, "left")',
             "corpus/test_loader.py"),
    Mutation("rows_never_filled_to_the_end", "corpus/blocks.py", "(rooms, (length, -1))", "(rooms, (length + 1, -1))",
             "corpus/test_blocks.py"),
    Mutation("sentence_that_just_fits_left_out", "corpus/blocks.py", "bisect.bisect_right(ends",
             "bisect.bisect_left(ends",
             "corpus/test_blocks.py"),
    Mutation("second_text_overwrites_sep", "corpus/rows.py", "length[::2] + 1 + len(", "length[::2] + len(",
             "corpus/test_rows.py corpus/test_pairs.py"),
    Mutation("cut_unit_has_no_start", "corpus/rows.py", 'np.minimum(flags["annotations"][firsts], 1)',
             'flags["annotations"][firsts]', "corpus/test_rows.py corpus/test_preparation.py"),
    # Checkpoints.
    Mutation("exchanged_elements_unnoticed", "checkpoints/fingerprint.py", "bits * (2 * index + 1)", "bits",
             "checkpoints/test_fingerprint.py"),
    Mutation("longer_files_accepted", "common/manifest.py", "sizes[file] != size", "sizes[file] < size",
             "checkpoints/test_manifest.py"),
    Mutation("changed_manifest_accepted", "common/manifest.py", "unchanged = _render(body).encode() == content",
             "unchanged = True", "checkpoints/test_manifest.py"),
    Mutation("changed_contents_accepted", "common/manifest.py", "job.result() != written", "job.result() < 0",
             "checkpoints/test_manifest.py"),
    # What is trusted later, and what is foreign.
    Mutation("damaged_folders_used", "common/manifest.py", "if found := folder_difference(folder):",
             "if (found := folder_difference(folder)) and not found:", "common/test_manifest.py"),
    Mutation("same_size_and_time_are_same_content", "common/identity.py", "status.st_mtime_ns, status.st_ctime_ns",
             "status.st_mtime_ns", "common/test_identity.py"),
    Mutation("fresh_files_have_a_stamp", "common/identity.py", "< _SETTLED_SECONDS", "< 0", "common/test_identity.py"),
    Mutation("deep_json_accepted", "common/json_files.py", "any(isinstance(one, (dict, list)) for one in below)",
             "not below", "common/test_json_files.py"),
    Mutation("other_predictions_continued", "inference/partial.py", "if fields.get(name) != identity[name]]",
             "if name not in fields]", "inference/test_partial.py"),
    Mutation("files_of_others_removed_with_a_model", "common/manifest.py",
             "min(found - {MANIFEST_FILE, README_FILE, *files}, default=None)", "None",
             "inference/test_model_folder.py"),
    Mutation("a_second_hangup_ends_the_process", "cluster/stopping.py", "signal.signal(signal.SIGHUP, signal.SIG_IGN)",
             "signal.signal(signal.SIGHUP, signal.SIG_DFL)", "cluster/test_stopping.py"),
    Mutation("oldest_steps_kept", "checkpoints/retention.py", "sorted(steps)[-keep:]", "sorted(steps)[:keep]",
             "checkpoints/test_retention.py"),
    Mutation("only_round_steps_kept_for_good", "checkpoints/retention.py", "step // keep_every > period",
             "step % keep_every == 0", "checkpoints/test_retention.py"),
    Mutation("other_shapes_restored", "checkpoints/reading.py", "if stored.get(name) != wanted.get(name):",
             "if name not in stored:", "checkpoints/test_checkpointer.py"),
    # Packing.
    Mutation("packed_texts_see_each_other", "tasks/packing.py", "= slot + 1", "= 1", "tasks/test_packing.py"),
    Mutation("first_tokens_of_the_row_only", "tasks/packing.py", "= start, 1", "= 0, 1", "tasks/test_packing.py"),
    Mutation("outputs_of_the_first_text_only", "tasks/packing.py", "values[place, rows.slot[chosen]]",
             "values[place, 0]", "tasks/test_packing.py"),
    # Metrics.
    Mutation("answers_keep_capitals", "tasks/metrics/question_answering.py", "text.lower()", "text",
             "tasks/test_question_metrics.py"),
    Mutation("answer_tokens_counted_once", "tasks/metrics/question_answering.py",
             "sum((collections.Counter(gold) & collections.Counter(predicted)).values())",
             "len(set(gold) & set(predicted))", "tasks/test_question_metrics.py"),
    Mutation("negative_relation_counts_as_right", "tasks/metrics/relations.py", "answer == guess != negative",
             "answer == guess", "tasks/test_relation_metrics.py"),
    Mutation("rouge_counts_repeats", "tasks/metrics/rouge.py", "np.minimum(counts, self._wanted)", "counts",
             "tasks/test_rouge.py"),
    # Import and export.
    Mutation("fused_projections_in_other_order", "interop/architectures/bert.py", '("query", "key", "value")',
             '("query", "value", "key")',
             "interop/test_huggingface.py interop/test_location.py interop/test_torch_file.py"),
    Mutation("kernels_not_transposed", "interop/layout.py", 'part.T if self.kind == "kernel" else part', "part",
             "interop/test_huggingface.py"),
    Mutation("infinite_weights_accepted", "interop/weights.py", "if suspicious and (count", "if False and (count",
             "interop/test_damage.py"),
    Mutation("new_token_is_a_sum", "interop/vocabulary.py", ".mean(axis=0)", ".sum(axis=0)",
             "interop/test_vocabulary.py"),
    # Decoding.
    Mutation("beams_keep_their_old_cache", "generation/incremental.py", "key=cache.key[rows], value=cache.value[rows]",
             "key=cache.key, value=cache.value", "generation/test_search.py"),
    Mutation("length_penalty_ignored", "generation/search.py", "settings.length_penalty)", "1.0)",
             "generation/test_search.py"),
    Mutation("texts_one_token_too_long", "generation/next_token.py", "(step < settings.min_length)",
             "(step <= settings.min_length)", "generation/test_search.py"),
    Mutation("same_draw_in_every_step", "generation/next_token.py", "jax.random.fold_in(key, step)", "key",
             "generation/test_search.py"),
)


def main() -> int:
    """Applies the mutations and prints what became of each. Returns 1 if too few are caught."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME", help="apply only the mutations whose names contain NAME")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="mutations at a time (default: 1)")
    flags = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if not flags.only or flags.only in mutation.name]
    with tempfile.TemporaryDirectory() as programs, concurrent.futures.ThreadPoolExecutor(flags.jobs) as pool:
        os.environ.setdefault("SPANBERT_TEST_CACHE", programs)  # most programs are the same under all mutations
        caught = sum(pool.map(_try, chosen))
    print(f"{caught} of {len(chosen)} caught")
    return int(caught < (len(chosen) if flags.only else REQUIRED))


def _try(mutation: Mutation) -> bool:
    """Runs the tests of a mutation, prints the result and returns whether they found it."""
    if reason := mutation.stale():
        print(f"STALE   {mutation.name}: {reason}", flush=True)
        return False
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutation_") as folder:
        root = pathlib.Path(folder) / "tree"
        shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".git", ".*cache", "__pycache__", "*.egg-info"))
        path = root / "spanbert_jax" / mutation.file
        path.write_text(path.read_text(encoding="utf-8").replace(mutation.old, mutation.new), encoding="utf-8")
        tests = [f"tests/{test}" for test in mutation.tests.split()]
        status = subprocess.run([sys.executable, "-m", "pytest", "-n", "0", "-x", "-q", *tests], cwd=root,
                                env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True).returncode
    # 1: a test failed. Any other status but 0 says that the tests did not run.
    result = {0: "MISSED", 1: "caught"}.get(status, f"ERROR {status}")
    print(f"{result:7} {mutation.name} ({time.monotonic() - began:.0f} s)", flush=True)
    return status == 1


if __name__ == "__main__":
    sys.exit(main())
