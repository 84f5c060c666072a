"""RoBERTa and XLM-R of transformers: equal outputs and gradients in both directions."""
import json

import numpy as np
import pytest
import torch
import transformers

import spanbert_jax
from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.architectures.roberta import ROBERTA, XLM_ROBERTA
from spanbert_jax.interop.exporting import export
from spanbert_jax.model import ComputeConfig, EncoderModel, make_head
from spanbert_jax.model.architectures.roberta import RobertaConfig
from tests.interop.networks import LABELS, assert_gradients_agree, assert_same, random_params

PADDING = 1
# Both differ only by name, so each head is tried with one of them.
CASES = [(None, ROBERTA), ("masked_lm", ROBERTA), ("masked_lm", XLM_ROBERTA), ("question_answering", XLM_ROBERTA),
         ("sequence_classification", ROBERTA), ("token_classification", XLM_ROBERTA)]


def network(head, conversion, **fields):
    torch.manual_seed(0)
    labels = dict(id2label=dict(enumerate(LABELS))) if "classification" in (head or "") else {}
    name = conversion.classes[head]
    config = getattr(transformers, name).config_class(**dict(
        vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=42, type_vocab_size=1, attn_implementation="eager") | labels | fields)
    made = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.2)
    return made


@pytest.mark.parametrize("head, conversion", CASES, ids=lambda case: case if isinstance(case, str) else "")
def test_networks_of_transformers(head, conversion, tmp_path):
    made = network(head, conversion)
    made.save_pretrained(tmp_path / "theirs")
    model, params = spanbert_jax.from_pretrained(tmp_path / "theirs", head)
    assert (model.config.max_positions, model.config.token_types) == (40, 1)
    mask = np.arange(40) < np.array([[40], [23], [7]])
    # Positions are counted without the padding token, so only padding has it.
    ids = np.where(mask, np.random.default_rng(0).integers(2, 61, mask.shape), PADDING)
    assert_gradients_agree(model, params, made, {"input_ids": ids, "attention_mask": mask.astype(np.int64)})

    spanbert_jax.save_pretrained(model, params, tmp_path / "ours")
    again, loading = type(made).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    for name, value in made.state_dict().items():
        first = 2 if name.endswith("position_embeddings.weight") else 0  # two rows that no position has
        assert torch.equal(value[first:], again.state_dict()[name][first:]), name


def test_export_of_a_model_of_this_package(tmp_path):
    config = RobertaConfig(vocab_size=77, num_layers=2, width=24, num_heads=3, feed_forward=50, max_positions=30)
    model = EncoderModel(config, make_head("sequence_classification", LABELS), ComputeConfig(dtype="float32"))
    params = random_params(model)
    assert export(model, params, tmp_path / "ours", "huggingface").difference < 2e-5
    again, same = spanbert_jax.from_pretrained(tmp_path / "ours", "sequence_classification")
    assert again == model
    assert_same(params, same)


@pytest.mark.parametrize("field, value, told", [
    ("pad_token_id", 0, "pad_token_id is 0; only 1 can be read"),
    ("max_position_embeddings", 99, "max_position_embeddings is 99, but the tensors of .* have 42"),
    ("architectures", "RobertaModel", "architectures is 'RobertaModel'; a list")])
def test_configs_that_cannot_be_read(field, value, told, tmp_path):
    network(None, ROBERTA).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {field: value}))
    with pytest.raises(UserError, match=told):
        spanbert_jax.from_pretrained(tmp_path)
