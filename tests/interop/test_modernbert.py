"""ModernBERT of transformers: equal outputs and gradients for odd networks, in both directions, and both configs."""
import dataclasses
import json

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models

import spanbert_jax
from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.architectures.modernbert import MODERNBERT, layer_types
from spanbert_jax.interop.continuation import initial_params
from spanbert_jax.interop.exporting import export
from spanbert_jax.interop.pretrained import open_pretrained
from spanbert_jax.model import ComputeConfig, EncoderModel, PretrainingHeads, make_head
from spanbert_jax.model.architectures.modernbert import ModernBertConfig
from spanbert_jax.pretraining.config import as_pretraining_config
from spanbert_jax.training.init_from import with_architecture
from tests.interop.networks import LABELS, assert_gradients_agree, assert_same, random_params

HEADS = tuple(MODERNBERT.classes)
# Odd networks: (head, length of rows, fields of transformers' config).
ODD = {
    "one layer": (None, 5, dict(num_hidden_layers=1)),
    "window as long as the row": ("masked_lm", 16, dict(local_attention=32)),
    "row one longer than half the window": ("masked_lm", 17, dict(local_attention=32)),
    "odd window": ("masked_lm", 33, dict(local_attention=7)),
    "all global": ("token_classification", 20, dict(global_attn_every_n_layers=1)),
    "all local but the first": ("question_answering", 40, dict(global_attn_every_n_layers=9, num_hidden_layers=4)),
    "mean pooling": ("sequence_classification", 40, dict(classifier_pooling="mean")),
    "all biases": ("sequence_classification", 30, dict(norm_bias=True, attention_bias=True, mlp_bias=True,
                                                       classifier_bias=True)),
    "other bases": ("masked_lm", 40, dict(global_rope_theta=700.0, local_rope_theta=50.0,
                                                num_hidden_layers=4)),
    "wide heads": ("question_answering", 40, dict(num_attention_heads=1)),
    "no bias of the output": ("masked_lm", 9, dict(decoder_bias=False, norm_eps=1e-3)),
    "every second global": ("token_classification", 21, dict(global_attn_every_n_layers=2, num_hidden_layers=5)),
}


def network(head, **fields):
    """A random network of transformers whose parameters are all different."""
    torch.manual_seed(0)
    labels = dict(id2label=dict(enumerate(LABELS))) if "classification" in (head or "") else {}
    config = transformers.ModernBertConfig(**dict(
        vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
        max_position_embeddings=64, local_attention=8, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1,
        sep_token_id=2, reference_compile=False, attn_implementation="eager") | labels | fields)
    made = getattr(transformers, MODERNBERT.classes[head])(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.2)
    return made


def batch(length):
    random = np.random.default_rng(0)
    # Not id 0, padding, whose row of the embedding transformers does not train.
    mask = np.arange(length) < np.array([[length], [max(1, length - 3)], [max(1, length // 2)]])
    return {"input_ids": random.integers(1, 61, (3, length)), "attention_mask": mask.astype(np.int64)}


@pytest.mark.parametrize("name", ODD)
def test_odd_networks_of_transformers(name, tmp_path):
    head, length, fields = ODD[name]
    made, inputs = network(head, **fields), batch(length)
    made.save_pretrained(tmp_path / "theirs")
    model, params = spanbert_jax.from_pretrained(tmp_path / "theirs", head)
    assert_gradients_agree(model, params, made, inputs)
    spanbert_jax.save_pretrained(model, params, tmp_path / "ours")
    again, loading = type(made).from_pretrained(tmp_path / "ours", output_loading_info=True, reference_compile=False)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    for tensor, value in made.state_dict().items():
        assert torch.equal(value, again.state_dict()[tensor]), tensor


def random_model(head, **fields):
    """A model of this package, and parameters that are all different."""
    config = ModernBertConfig(vocab_size=77, num_layers=5, width=24, num_heads=2, feed_forward=20, max_positions=40,
                              window=6, head_bias=True, global_every=2, **fields)
    made = PretrainingHeads() if head == "pretraining" else make_head(head, LABELS)
    model = EncoderModel(config, made, ComputeConfig(dtype="float32"))
    params = random_params(model)
    params["encoder"]["layers"]["attention_norm"]["scale"][0] = 1  # it has no effect and is not exported
    return model, params


@pytest.mark.parametrize("head", [*HEADS, "pretraining"])
def test_export_of_a_model_of_this_package(head, tmp_path):
    model, params = random_model(head, pooling="mean")
    comparison = export(model, params, tmp_path / "ours", "huggingface")  # compares with transformers
    assert comparison.difference < 2e-5
    again, same = spanbert_jax.from_pretrained(tmp_path / "ours", head)
    assert again == model
    assert_same(params, same)


def test_configs_of_transformers_5_are_read(tmp_path):
    made = network("masked_lm", global_rope_theta=700.0, local_rope_theta=50.0, global_attn_every_n_layers=2,
                   num_hidden_layers=4)
    made.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    for name in ("global_rope_theta", "local_rope_theta", "global_attn_every_n_layers"):
        del values[name]
    # As transformers 5.24 writes them.
    values["layer_types"] = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    values["rope_parameters"] = {"full_attention": {"rope_type": "default", "rope_theta": 700.0},
                                 "sliding_attention": {"rope_type": "default", "rope_theta": 50.0}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = spanbert_jax.from_pretrained(tmp_path, "masked_lm")[0].config
    assert (config.global_every, config.global_rotary_base, config.local_rotary_base) == (2, 700.0, 50.0)
    written = MODERNBERT.to_values(config)
    assert written["layer_types"] == values["layer_types"] and written["rope_parameters"] == values["rope_parameters"]


@pytest.mark.parametrize("changes, said", [
    (dict(layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"]), "layer_types"),
    (dict(layer_types=3), "layer_types is 3"), (dict(rope_parameters=[1]), "rope_parameters is"),
    (dict(rope_parameters={"full_attention": {"rope_type": "yarn", "rope_theta": 1e4}}),
     r"rope_parameters.full_attention is .*'yarn'.*only rotary positions of the rope_type 'default'"),
    (dict(rope_parameters={"rope_type": "linear", "factor": 2.0}), "rope_parameters is"),
    (dict(rope_scaling={"type": "linear", "factor": 2.0}), "rope_scaling is"),
    (dict(rope_parameters={"rope_type": "default", "rope_theta": 5e3}), "has to name full_attention and sliding_"),
    (dict(intermediate_size=32), "intermediate_size is 32, but the tensors of .* have 24"),
    (dict(vocab_size=62), "vocab_size is 62, but the tensors of .* have 61"),
    (dict(hidden_activation="relu"), "hidden_activation"), (dict(num_hidden_layers=9), "num_hidden_layers is 9"),
    (dict(num_attention_heads=32), "num_attention_heads"), (dict(classifier_pooling="max"), "classifier_pooling"),
    (dict(norm_bias="no"), "norm_bias")])
def test_configs_that_cannot_be_read(changes, said, tmp_path):
    network(None, num_hidden_layers=4).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | changes))
    with pytest.raises(UserError, match=said):
        spanbert_jax.from_pretrained(tmp_path)


def test_layer_types_are_those_of_the_published_model():
    kinds = layer_types(22, 3)
    assert len(kinds) == 22 and [layer for layer, kind in enumerate(kinds) if kind == "full_attention"] == [
        0, 3, 6, 9, 12, 15, 18, 21]


@pytest.mark.parametrize("head", [*HEADS, "pretraining"])
def test_onnx_and_stablehlo(head, tmp_path):
    """The export compares itself with the model."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    model, params = random_model(head, pooling="mean" if head == "sequence_classification" else "cls")
    for format in ("onnx", "stablehlo"):
        comparison = export(model, params, tmp_path / format, format)
        assert comparison.difference < comparison.allowed


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_a_run_has_the_dropout_rates_that_it_asks_for(rate, tmp_path):
    model, params = random_model(None, feed_forward_dropout=0.3, classifier_dropout=0.3, dropout=0.3)
    spanbert_jax.save_pretrained(model, params, tmp_path)
    config = spanbert_jax.default_config("modernbert")
    config.init_from = str(tmp_path)
    config.model.feed_forward_dropout = config.model.classifier_dropout = config.model.dropout = rate
    started = with_architecture(as_pretraining_config(config), tmp_path / "run").model.config(model.config.vocab_size)
    assert started.feed_forward_dropout == started.classifier_dropout == started.dropout == rate


def test_the_format_of_the_original_code_is_refused(tmp_path):
    with pytest.raises(UserError, match="the original code reads BERT only, and this is a modernbert; export as hugg"):
        export(*random_model("masked_lm"), tmp_path / "out", "reference")
    assert not (tmp_path / "out").exists()


def test_a_run_may_start_with_other_positions_and_bases(tmp_path):
    """No parameter depends on positions; a classifier begins with the transform of the masked-token head."""
    model, params = random_model("masked_lm")
    spanbert_jax.save_pretrained(model, params, tmp_path)
    config = dataclasses.replace(model.config, max_positions=4096, global_rotary_base=1e6)
    new = EncoderModel(config, make_head("question_answering"), model.compute)
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0} | {str(number): number for number in range(1, 77)}))
    found = initial_params(open_pretrained(tmp_path), new, tokenizer, seed=0)
    assert_same(found["encoder"], params["encoder"])
    for part in ("transform", "norm"):
        assert_same(found["prediction_head"][part], params["masked_token_head"][part])
