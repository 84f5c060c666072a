"""Evaluation on held-out rows: sums by position, and several masks of each row."""
import jax
import numpy as np
import pytest
import scipy.special

from spanbert_jax.masking import MaskingSettings, make_masker
from spanbert_jax.model import PretrainingLogits
from spanbert_jax.model.losses import LossSums
from spanbert_jax.pretraining import evaluation
from spanbert_jax.pretraining.config import PretrainingEvaluationSettings, default_config
from spanbert_jax.pretraining.objective import mask_batch
from spanbert_jax.text import SpecialIds
from spanbert_jax.training.mesh import make_mesh

ROWS, LENGTH, VOCABULARY = 8, 1100, 40


def test_losses_by_position_in_the_block_add_up_to_the_loss(monkeypatch):
    random = np.random.default_rng(0)
    tokens = random.integers(5, VOCABULARY, (ROWS, LENGTH)).astype(np.int32)
    segments = np.ones((ROWS, LENGTH), np.uint8)
    segments[:2, 900:] = 2  # a second block begins at 900: its positions begin at 0 again
    segments[2, 300:] = 0  # padding
    zeros = np.zeros_like(segments)
    batch = {"tokens": tokens, "segments": segments, "word_starts": np.ones_like(segments), "token_types": zeros,
             "annotations": zeros, "next_sentence": np.full(ROWS, -1, np.int32)}
    masker = make_masker(MaskingSettings(rate=0.3), length=LENGTH, max_blocks=2, special=SpecialIds(0, 1, 2, 3, 4),
                         unigram=np.ones(VOCABULARY, np.int64))
    logits = random.normal(size=(ROWS, masker.max_masked, VOCABULARY)).astype(np.float32)
    monkeypatch.setattr(evaluation, "apply_model", lambda *arguments: PretrainingLogits(logits, None, None))
    settings = default_config().mesh
    mesh = make_mesh(settings, jax.devices()[:1])
    evaluate = evaluation.make_evaluate_batch(None, masker, np.zeros(VOCABULARY, np.float32), mesh, settings.rules)
    metrics = evaluation.summarize(evaluate(None, batch, np.int32(0)))

    key = jax.random.key(evaluation._MASK_SEED, impl="threefry2x32")
    masked = jax.device_get(mask_batch(masker, key, batch, mesh, settings.rules))
    expected = {bucket: [] for bucket in (range(128), range(128, 512), range(512, 1024), range(1024, 2048))}
    for row, slot in zip(*np.nonzero(masked.weights)):
        at = masked.positions[row, slot]
        position = at - 900 if segments[row, at] == 2 else at
        loss = -scipy.special.log_softmax(logits[row, slot])[tokens[row, at]]
        next(values for bucket, values in expected.items() if position in bucket).append(loss)
    assert metrics["first_positions"] == [bucket.start for bucket in expected]
    assert metrics["tokens_by_position"] == [len(values) for values in expected.values()]
    assert metrics["loss_by_position"] == pytest.approx([np.mean(values) for values in expected.values()], rel=1e-5)
    assert sum(metrics["tokens_by_position"]) == metrics["masked_tokens"]
    total = np.dot(metrics["loss_by_position"], metrics["tokens_by_position"])
    assert total == pytest.approx(metrics["masked_loss"] * metrics["masked_tokens"], rel=1e-6)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_each_row_is_evaluated_once_under_each_mask(size):
    class Rows:
        def __len__(self):
            return 7

        def rows(self, indices):
            return {"tokens": np.asarray(indices)[:, None] + 1, "next_sentence": np.full(len(indices), -1)}

    def evaluate_batch(params, batch, first):
        rows = np.asarray(batch["tokens"])[:, 0]  # the number of a row plus 1; 0 is padding
        seen.extend((int(first) + place, row - 1) for place, row in enumerate(rows.tolist()) if row)
        count = np.float32((rows > 0).sum())
        sums = LossSums(rows.sum(), count, count)
        return {"masked": sums, "unigram": sums,
                **{name: LossSums(*(np.ones(1),) * 3) for name in ("by_length", "by_place", "by_position")}}

    seen = []
    mesh_settings = default_config().mesh
    settings = PretrainingEvaluationSettings(batch_size=size, max_rows=5, masks=3)
    metrics = evaluation.evaluate_params(evaluate_batch, None, Rows(), settings,
                                         make_mesh(mesh_settings, jax.devices()[:1]), mesh_settings.rules)
    # A mask depends on the index: the rows 0 to 4 have 0 to 4 in the first mask, 5 to 9 in the second.
    assert seen == [(mask * 5 + row, row) for mask in range(3) for row in range(5)]
    assert metrics["masked_tokens"] == 15 and metrics["masked_loss"] == 3
