"""Import and export of encoder-decoder models of transformers, and errors for other directories."""
import json

import flax.linen as nn
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from spanbert_jax.common.errors import UserError
from spanbert_jax.generation.incremental import IncrementalDecoder, unstack_layers
from spanbert_jax.generation.search import generate
from spanbert_jax.generation.settings import GenerationSettings
from spanbert_jax.interop.encoder_decoder import load_encoder_decoder, open_decoder, save_encoder_decoder
from spanbert_jax.model import BertConfig, ComputeConfig, EncoderDecoder
from spanbert_jax.model.architectures.modernbert import ModernBertConfig
from spanbert_jax.model.architectures.roberta import RobertaConfig
from spanbert_jax.text.tokenizer import bert_normalizer, build_tokenizer
from tests.transformers_pairs import (
    END,
    KINDS,
    PAD,
    SOURCE_PIECES,
    START,
    TARGET_PIECES,
    save_pair,
    torch,
    transformers,
)


@pytest.mark.parametrize("kind,width", KINDS)
def test_round_trip_through_transformers(kind, width, tmp_path):
    theirs, folder = save_pair(tmp_path / "theirs", kind, width)
    model, params = load_encoder_decoder(folder)
    save_encoder_decoder(model, params, tmp_path / "ours", GenerationSettings(START, END, PAD, 15))
    again, loading = transformers.EncoderDecoderModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(loading.values())
    stored, expected = again.state_dict(), theirs.state_dict()
    assert stored.keys() == expected.keys()
    for name, value in expected.items():
        if not name.startswith("encoder.pooler."):  # which nothing here reads
            np.testing.assert_array_equal(stored[name].numpy(), value.numpy(), err_msg=name)
    back, same = load_encoder_decoder(tmp_path / "ours")
    assert back == model
    jax.tree.map(np.testing.assert_array_equal, same, params)


@pytest.mark.parametrize("encoder", [
    ModernBertConfig(SOURCE_PIECES, 4, 32, 4, 24, 64, window=6), RobertaConfig(SOURCE_PIECES, 2, 32, 4, 64, 30)],
    ids=lambda config: config.architecture)
def test_encoders_of_other_architectures(encoder, tmp_path):
    decoder = BertConfig(TARGET_PIECES, 2, 32, 4, 64, 30, 1)
    model = EncoderDecoder(encoder, decoder, compute=ComputeConfig(dtype="float32"))
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), **model.dummy_inputs))["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(1), leaf.shape), params)
    params["encoder"]["embeddings"]["token"]["embedding"] = params[
        "encoder"]["embeddings"]["token"]["embedding"].at[SOURCE_PIECES:].set(0)
    save_encoder_decoder(model, params, tmp_path / "ours", GenerationSettings(START, END, PAD, 15))
    theirs = transformers.EncoderDecoderModel.from_pretrained(tmp_path / "ours").eval()
    tokens, targets = (np.random.default_rng(0).integers(3, TARGET_PIECES, shape) for shape in ((3, 12), (3, 6)))
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(tokens), attention_mask=torch.ones(3, 12),
                          decoder_input_ids=torch.from_numpy(targets)).logits.numpy()
    back, same = load_encoder_decoder(tmp_path / "ours")
    assert (back.config, back.decoder_config) == (encoder, decoder)
    ours = jax.jit(back.apply)({"params": same}, tokens, np.ones_like(tokens), targets, np.ones_like(targets))
    np.testing.assert_allclose(ours, expected, atol=5e-5)
    np.testing.assert_allclose(
        ours, jax.jit(model.apply)({"params": params}, tokens, np.ones_like(tokens), targets, np.ones_like(targets)),
        atol=5e-5)


def test_transformers_trains_every_row_but_that_of_padding(tmp_path):
    model, params = load_encoder_decoder(save_pair(tmp_path / "theirs", *KINDS[0])[1])
    words = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "[PAD]"]
    source = build_tokenizer({word: number for number, word in enumerate(words)}, bert_normalizer(lowercase=False))
    save_encoder_decoder(model, params, tmp_path / "ours", GenerationSettings(START, END, pad=3, max_length=15), source)
    again = transformers.EncoderDecoderModel.from_pretrained(tmp_path / "ours")
    assert again.encoder.embeddings.word_embeddings.padding_idx == 4
    assert again.decoder.bert.embeddings.word_embeddings.padding_idx == 3


@pytest.mark.parametrize("sharded", [False, True])
def test_tied_encoder_and_decoder_are_imported(sharded, tmp_path):
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(
        vocab_size=SOURCE_PIECES, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=16, initializer_range=0.3)).save_pretrained(tmp_path / "bert")
    network = transformers.EncoderDecoderModel.from_encoder_decoder_pretrained(
        tmp_path / "bert", tmp_path / "bert", tie_encoder_decoder=True).eval()
    network.save_pretrained(tmp_path / "pair", **({"max_shard_size": "40KB"} if sharded else {}))
    assert (len(list((tmp_path / "pair").glob("*.safetensors"))) > 1) == sharded
    model, params = load_encoder_decoder(tmp_path / "pair")
    tokens, targets = (np.random.default_rng(0).integers(0, SOURCE_PIECES, shape) for shape in ((3, 8), (3, 6)))
    with torch.no_grad():
        expected = network(input_ids=torch.from_numpy(tokens), attention_mask=torch.ones(3, 8),
                           decoder_input_ids=torch.from_numpy(targets)).logits.numpy()
    ours = jax.jit(model.apply)({"params": params}, tokens, np.ones_like(tokens), targets, np.ones_like(targets))
    np.testing.assert_allclose(ours, expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_transformers_generates_the_same_texts_from_an_export(kind, tmp_path):
    _, folder = save_pair(tmp_path / "theirs", kind, 32)
    model, params = load_encoder_decoder(folder)
    params = jax.tree.map(lambda leaf: leaf * 1.01, params)  # not what came in
    save_encoder_decoder(model, params, tmp_path / "ours", GenerationSettings(START, END, PAD, 15))
    theirs = transformers.EncoderDecoderModel.from_pretrained(tmp_path / "ours").eval()
    random = np.random.default_rng(0)
    tokens = random.integers(3, SOURCE_PIECES, (4, 9))
    targets = random.integers(3, TARGET_PIECES, (4, 7))
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor(tokens), decoder_input_ids=torch.tensor(targets)).logits.numpy()
        written = theirs.generate(torch.tensor(tokens)).numpy()[:, 1:]  # as its files say
    ones = np.ones_like(tokens)
    found = jax.jit(model.apply)({"params": params}, tokens, ones, targets, np.ones_like(targets))
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
    settings = GenerationSettings(START, END, PAD, 15)
    writer = IncrementalDecoder(model, unstack_layers(params))
    pieces, _ = jax.jit(lambda tokens, ones: generate(writer, tokens, ones, settings))(tokens, ones)
    np.testing.assert_array_equal(np.asarray(pieces)[:, :written.shape[1]], np.where(
        np.cumsum(written == END, axis=1) - (written == END) > 0, PAD, written))


def test_a_plain_gpt2_is_a_decoder_without_cross_attention(tmp_path):
    network = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=TARGET_PIECES, n_embd=32, n_layer=2, n_head=4, n_positions=16))
    network.save_pretrained(tmp_path)
    config, tensors, bridge = open_decoder(tmp_path, 24)
    assert bridge is None
    assert (config.architecture, config.num_layers, config.width, config.feed_forward) == ("gpt2", 2, 32, 128)
    value = network.transformer.h[1].attn.c_attn.weight.detach().numpy()
    np.testing.assert_array_equal(tensors.read("bert.encoder.layer.1.attention.self.key.weight"), value[:, 32:64].T)
    assert not any("crossattention" in name for name in tensors.shapes) and not tensors.foreign()


def test_a_gpt2_with_an_untied_output_layer_is_refused(tmp_path):
    network = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=TARGET_PIECES, n_embd=32, n_layer=1, n_head=4, n_positions=16, tie_word_embeddings=False))
    network.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="lm_head.weight differs from .*wte.weight"):
        open_decoder(tmp_path, 32)


def change(folder, section, **fields):
    values = json.loads((folder / "config.json").read_text())
    (values[section] if section else values).update(fields)
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize("kind,section,fields,message", [
    ("bert", "", {"model_type": "t5"}, "config.json: model_type is 't5'; only 'encoder-decoder' can be read"),
    ("bert", "encoder", {"hidden_act": "relu"}, "hidden_act is 'relu'; only 'gelu' can be read"),
    ("bert", "decoder", {"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
    ("bert", "decoder", {"model_type": "llama"}, "it is of bert with llama"),
    ("bert", "decoder", {"num_hidden_layers": 4}, "num_hidden_layers is 4, but the tensors of .* have 2"),
    ("gpt2", "decoder", {"activation_function": "relu"}, "activation_function is 'relu'; only 'gelu_new' can be read"),
    ("gpt2", "decoder", {"n_layer": 4}, "n_layer is 4, but the tensors have 2"),
    ("gpt2", "decoder", {"n_head": 5}, "n_head is 5, and has to divide n_embd=32"),
    ("gpt2", "decoder", {"n_head": 0}, "n_head is 0; a whole number above 0"),
    ("gpt2", "decoder", {"resid_pdrop": "x"}, "resid_pdrop is 'x'; a number from 0 to below 1"),
    ("gpt2", "decoder", {"layer_norm_epsilon": -1}, "layer_norm_epsilon is -1; a number above 0"),
    ("gpt2", "encoder", {"hidden_size": 33}, "hidden_size is 33, but the tensors")])
def test_unsupported_configs_are_refused(kind, section, fields, message, tmp_path):
    save_pair(tmp_path / "network", kind, 32)
    change(tmp_path / "network", section, **fields)
    with pytest.raises(UserError, match=message) as told:
        load_encoder_decoder(tmp_path / "network")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("missing,message", [
    ("decoder.transformer.h.1.crossattention.c_attn.weight", "crossattention.self.key.weight is missing"),
    ("enc_to_dec_proj.weight", "the encoder is 32 wide and the decoder 48, and enc_to_dec_proj between them"),
    ("decoder.transformer.wte.weight", "not the weights of a GPT-2"),
    ("decoder.transformer.wpe.weight", "wpe.weight is missing")])
def test_missing_tensors_are_named(missing, message, tmp_path):
    save_pair(tmp_path / "network", "gpt2", 48)
    file = tmp_path / "network" / "model.safetensors"
    tensors = load_file(file)
    tensors.pop("decoder.lm_head.weight", None)
    del tensors[missing]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(UserError, match=message):
        load_encoder_decoder(tmp_path / "network")


def test_directories_without_a_model_are_refused(tmp_path):
    with pytest.raises(UserError, match="no config.json in it; give the directory of an EncoderDecoderModel"):
        load_encoder_decoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "encoder-decoder", "encoder": 3}')
    with pytest.raises(UserError, match="config.json: encoder is 3; an object is needed"):
        load_encoder_decoder(tmp_path)
