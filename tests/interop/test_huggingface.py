"""Import and export of directories of transformers for every head: equal logits, and pipelines that run."""
import json

import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import normalizers

import spanbert_jax
from spanbert_jax.common.manifest import MANIFEST_FILE
from spanbert_jax.interop.exporting import export
from spanbert_jax.interop.pretrained import BOUNDARY_FILE, find_tokenizer, open_pretrained
from spanbert_jax.model import BertConfig, ComputeConfig, EncoderModel, EncoderOnly, PretrainingHeads, make_head
from tests.interop.networks import HEADS, LABELS, assert_agree, assert_same, make, random_params, save
from tests.paths import DATA, needs_data


@pytest.mark.parametrize("head", HEADS)
def test_round_trip_of_models_of_transformers(head, tmp_path):
    network = save(head, tmp_path / "theirs")
    model, params = spanbert_jax.from_pretrained(tmp_path / "theirs", head)
    assert_agree(model, params, network)
    assert "classification" not in (head or "") or model.head.labels == LABELS

    spanbert_jax.save_pretrained(model, params, tmp_path / "ours")
    again, loading = type(network).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert_agree(model, params, again.eval())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    same_model, same_params = spanbert_jax.from_pretrained(tmp_path / "ours", head)
    assert same_model == model
    assert_same(params, same_params)


def test_both_names_of_the_exact_gelu_are_read(tmp_path):
    network = save("masked_lm", tmp_path, hidden_act="gelu_python")
    assert json.loads((tmp_path / "config.json").read_text())["hidden_act"] == "gelu_python"
    assert_agree(*spanbert_jax.from_pretrained(tmp_path, "masked_lm"), network)


@pytest.mark.parametrize("head", HEADS)
def test_export_of_a_model_of_this_package(head, tmp_path):
    config = BertConfig(vocab_size=77, num_layers=3, width=24, num_heads=3, feed_forward=50, max_positions=40,
                        layer_norm_epsilon=1e-6)
    special = {"pretraining": PretrainingHeads(next_sentence=True), None: EncoderOnly(pooler=True)}
    model = EncoderModel(config, special.get(head) or make_head(head, LABELS), ComputeConfig(dtype="float32"))
    params = random_params(model)
    spanbert_jax.save_pretrained(model, params, tmp_path / "ours")
    network = getattr(transformers, json.loads((tmp_path / "ours/config.json").read_text())["architectures"][0])
    assert_agree(model, params, network.from_pretrained(tmp_path / "ours").eval())
    again, same = spanbert_jax.from_pretrained(tmp_path / "ours", head)
    assert again == model
    assert_same(params, same)


@pytest.mark.parametrize("problem_type", [None, "regression", "multi_label_classification"])
def test_the_problem_type_is_kept(problem_type, tmp_path):
    save("sequence_classification", tmp_path / "theirs", problem_type=problem_type)
    model, params = spanbert_jax.from_pretrained(tmp_path / "theirs", "sequence_classification")
    spanbert_jax.save_pretrained(model, params, tmp_path / "ours")
    assert transformers.AutoConfig.from_pretrained(tmp_path / "ours").problem_type == problem_type


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_are_imported(dtype, tmp_path):
    network = save("masked_lm", tmp_path)
    network.to(dtype).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.get_tensor("cls.predictions.bias").dtype == dtype
    assert_agree(*spanbert_jax.from_pretrained(tmp_path, "masked_lm"), network.float())


def test_shards_and_pickles_are_imported(tmp_path):
    network = make("masked_lm")
    network.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    expected = spanbert_jax.from_pretrained(tmp_path / "sharded", "masked_lm")
    assert_agree(*expected, network)
    (tmp_path / "pickle").mkdir()
    network.config.save_pretrained(tmp_path / "pickle")
    torch.save(network.state_dict(), tmp_path / "pickle/pytorch_model.bin")  # with the tied weight, as older versions
    assert_same(spanbert_jax.from_pretrained(tmp_path / "pickle", "masked_lm")[1], expected[1])


def edit(directory, change) -> None:
    """Changes the tensors of a directory."""
    tensors = change(load_file(directory / "model.safetensors"))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors")


@pytest.mark.parametrize("what, rename", [
    ("no prefix", lambda name: name.removeprefix("bert.")),
    ("wrapped", lambda name: f"module.{name}"),
    ("as the reference wraps it", lambda name: f"decoder.{name}"),
    ("old names", lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta")),
    ("old names, wrapped twice", lambda name: "module.decoder." + name.replace("LayerNorm.weight", "LayerNorm.gamma")),
])
def test_other_tensor_names_are_imported(what, rename, tmp_path):
    network = save("masked_lm", tmp_path)
    edit(tmp_path, lambda tensors: {rename(name): tensor for name, tensor in tensors.items()})
    assert_agree(*spanbert_jax.from_pretrained(tmp_path, "masked_lm"), network)


def fuse(tensors):
    """Query, key and value of a layer in one tensor."""
    layer = "bert.encoder.layer.{}.attention.self."
    for number in range(2):
        for leaf in ("weight", "bias"):
            parts = [tensors.pop(f"{layer.format(number)}{part}.{leaf}") for part in ("query", "key", "value")]
            tensors[f"{layer.format(number)}qkv.{leaf}"] = torch.cat(parts)
    return tensors


def test_fused_projections_and_missing_biases_are_imported(tmp_path, caplog):
    network = save("masked_lm", tmp_path)
    edit(tmp_path, fuse)
    assert_agree(*spanbert_jax.from_pretrained(tmp_path, "masked_lm"), network)
    assert not caplog.text

    edit(tmp_path, lambda tensors: {name: tensor for name, tensor in tensors.items() if "dense.bias" not in name})
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "dense.bias" in name:
                parameter.zero_()
    assert_agree(*spanbert_jax.from_pretrained(tmp_path, "masked_lm"), network)
    assert "no biases" in caplog.text and "they are zero" in caplog.text


def test_untied_output_layers_are_refused(tmp_path):
    network = save("masked_lm", tmp_path)
    table = "bert.embeddings.word_embeddings.weight"
    edit(tmp_path, lambda tensors: tensors | {"cls.predictions.decoder.weight": tensors[table].clone()})
    assert_agree(*spanbert_jax.from_pretrained(tmp_path, "masked_lm"), network)
    edit(tmp_path, lambda tensors: {name: tensor for name, tensor in tensors.items() if name != table})
    assert_agree(*spanbert_jax.from_pretrained(tmp_path, "masked_lm"), network)  # the output layer stands for it
    edit(tmp_path, lambda tensors: tensors | {table: tensors["cls.predictions.decoder.weight"] + 1})
    with pytest.raises(spanbert_jax.UserError, match=r"cls.predictions.decoder.weight differs from bert.embeddings"):
        spanbert_jax.from_pretrained(tmp_path, "masked_lm")
    spanbert_jax.from_pretrained(tmp_path)  # without the head it does not matter


def test_padded_vocabularies_are_imported(tmp_path):
    network = save("masked_lm", tmp_path)

    def pad(tensors):
        for name in ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias"):
            tensors[name] = torch.cat([tensors[name], torch.full((6, *tensors[name].shape[1:]), 9.0)])
        return tensors

    edit(tmp_path, pad)  # while the config says how many pieces there are
    model, params = spanbert_jax.from_pretrained(tmp_path, "masked_lm")
    assert model.config.vocab_size == 130
    assert_agree(model, params, network)


def test_new_heads_are_logged(tmp_path, caplog):
    save(None, tmp_path)
    _model, params = spanbert_jax.from_pretrained(tmp_path, "token_classification", labels=["O", "B", "I"])
    assert "has no classification head: it is initialized at random" in caplog.text
    kernel = np.asarray(params["classification_head"]["kernel"])
    assert kernel.shape == (32, 3) and 0.01 < kernel.std() < 0.03 and not np.any(params["classification_head"]["bias"])
    caplog.clear()
    _, params = spanbert_jax.from_pretrained(tmp_path, "pretraining")
    assert "no boundary head" in caplog.text and "no masked token head" in caplog.text
    assert np.all(np.asarray(params["boundary_head"]["first_norm"]["scale"]) == 1)
    with pytest.raises(spanbert_jax.UserError, match="head='nonsense': allowed are None, 'pretraining'"):
        spanbert_jax.from_pretrained(tmp_path, "nonsense")


def test_a_token_classifier_is_not_read_as_a_sequence_classifier(tmp_path, caplog):
    save("token_classification", tmp_path)
    model, params = spanbert_jax.from_pretrained(tmp_path, "sequence_classification")
    assert "no classification head: it is initialized at random" in caplog.text
    assert model.head.labels == ("LABEL_0", "LABEL_1")
    assert params["classification_head"]["kernel"].shape == (32, 2)
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["BertForMultipleChoice"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert open_pretrained(tmp_path).head.name is None


def test_the_boundary_head_is_exported_to_a_separate_file(tmp_path):
    save("masked_lm", tmp_path / "source")
    pretrained = open_pretrained(tmp_path / "source")
    model, params = spanbert_jax.from_pretrained(tmp_path / "source", "pretraining")
    assert pretrained.head.name == "masked_lm" and model.head.boundary
    spanbert_jax.save_pretrained(model, params, tmp_path / "ours")
    with safe_open(tmp_path / "ours" / BOUNDARY_FILE, "np") as file:
        assert "cls.pair_target_predictions.mlp_layer_norm.layer_norm1.weight" in file.keys()
    _network, loading = transformers.BertForMaskedLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    again, same = spanbert_jax.from_pretrained(tmp_path / "ours", "pretraining")
    assert again == model
    assert_same(params, same)


def test_exports_that_transformers_cannot_read_are_compared_as_written(tmp_path, caplog):
    save("masked_lm", tmp_path / "fused")
    edit(tmp_path / "fused", fuse)
    pretrained = open_pretrained(tmp_path / "fused")
    model, params = spanbert_jax.from_pretrained(tmp_path / "fused", "masked_lm")
    comparison = export(model, params, tmp_path / "out", "huggingface", original=pretrained.path)
    assert comparison.difference < 1e-5 and "transformers on the export" in str(comparison)
    assert f"transformers cannot read {tmp_path / 'fused'} (" in caplog.text
    save("masked_lm", tmp_path / "plain")
    model, params = spanbert_jax.from_pretrained(tmp_path / "plain", "masked_lm")
    comparison = export(model, params, tmp_path / "other", "huggingface", original=tmp_path / "plain")
    assert f"transformers on {tmp_path / 'plain'}: largest" in str(comparison)


@pytest.mark.parametrize("normalizer", [
    normalizers.BertNormalizer(lowercase=True, strip_accents=False),
    normalizers.BertNormalizer(lowercase=False, strip_accents=True, handle_chinese_chars=False),
    normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]),
])
def test_tokenizers_are_exported_unchanged(normalizer, tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "el", "él", "Él", "El", "##an", "中", "##国", "国", "a"]
    (tmp_path / "vocab.txt").write_text("\n".join([*pieces, *(f"p{i}" for i in range(116 + 200))]))
    tokenizer = spanbert_jax.load_tokenizer(tmp_path / "vocab.txt")
    tokenizer.normalizer = normalizer
    save(None, tmp_path / "source", vocab_size=330)
    model, params = spanbert_jax.from_pretrained(tmp_path / "source")
    spanbert_jax.save_pretrained(model, params, tmp_path / "out", tokenizer=tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    again = spanbert_jax.load_tokenizer(tmp_path / "out")
    for name in ("tokenizer.json", MANIFEST_FILE):
        (tmp_path / "out" / name).unlink()
    for text in ("Élan", "élan El", "中国 a"):
        assert theirs(text)["input_ids"] == tokenizer.encode(text).ids == again.encode(text).ids, text
        if isinstance(normalizer, normalizers.BertNormalizer):  # which vocab.txt and tokenizer_config.json describe
            assert spanbert_jax.load_tokenizer(tmp_path / "out").encode(text).ids == tokenizer.encode(text).ids
    spanbert_jax.save_pretrained(model, params, tmp_path / "as theirs", tokenizer=theirs)
    assert (tmp_path / "as theirs/vocab.txt").read_bytes() == (tmp_path / "out/vocab.txt").read_bytes()
    with pytest.raises(spanbert_jax.UserError, match="tokenizer is of type str"):
        spanbert_jax.save_pretrained(model, params, tmp_path / "other", tokenizer="vocab.txt")


@needs_data
def test_pipelines_run(tmp_path):
    vocab = DATA / "vocab" / "bert-base-cased-vocab.txt"
    for head, task in (("masked_lm", "fill-mask"), ("question_answering", "question-answering")):
        save(head, tmp_path / task, vocab_size=28_996)
        (tmp_path / task / "vocab.txt").write_bytes(vocab.read_bytes())
        pretrained = open_pretrained(tmp_path / task)
        tokenizer, _ = find_tokenizer(pretrained)
        model, params = spanbert_jax.from_pretrained(tmp_path / task, head)
        export(model, params, tmp_path / f"{task}-ours", "huggingface", tokenizer)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / f"{task}-ours")
        text = "The President of France isn't Émile Zola."
        assert theirs(text)["input_ids"] == tokenizer.encode(text).ids
        if task == "fill-mask":
            runner = transformers.pipeline(task, str(tmp_path / f"{task}-ours"))
            text = "Paris is the [MASK] of France."
            best = runner(text, top_k=3)
            ids = np.array([tokenizer.encode(text).ids])
            logits = np.asarray(model.apply({"params": params}, ids).logits)[0, ids[0].tolist().index(103)]
            assert [guess["token"] for guess in best] == np.argsort(-logits)[:3].tolist()
        elif hasattr(transformers, "QuestionAnsweringPipeline"):
            runner = transformers.pipeline(task, str(tmp_path / f"{task}-ours"))
            answer = runner(question="What is Paris?", context="Paris is the capital of France.")
            assert answer["answer"] in "Paris is the capital of France."
        else:
            reader = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path / f"{task}-ours")
            inputs = theirs("What is Paris?", "Paris is the capital of France.", return_tensors="pt")
            got = model.apply({"params": params}, **{name: value.numpy() for name, value in inputs.items()})
            with torch.no_grad():
                np.testing.assert_allclose(got.start_logits, reader(**inputs).start_logits, atol=2e-5)
