"""Encoder-decoder models fine-tuned with transformers: the same texts here, and one-line errors."""
import json
import logging

import numpy as np
import pytest

import spanbert_jax
from spanbert_jax.commands.main import main
from spanbert_jax.common.errors import RunFailed, UserError
from spanbert_jax.common.settings import to_dict
from spanbert_jax.inference import encoder_decoders
from spanbert_jax.tasks import TASKS, seq2seq_import
from spanbert_jax.text import SPECIAL_TOKENS
from tests.transformers_pairs import POSITIONS, SOURCE_PIECES, make_pair, torch, transformers

WORDS = [f"w{number}" for number in range(SOURCE_PIECES - len(SPECIAL_TOKENS))]
TEXTS = ["w1 w2 w3", "w7", "w9 w8 w7 w6 w5 w4"]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A published directory: a model, its generation config, and BERT's tokenizer."""
    folder = tmp_path_factory.mktemp("foreign")
    network = make_pair("bert", 32, pieces=SOURCE_PIECES)
    vocab = [*SPECIAL_TOKENS, *WORDS]
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in vocab))
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"))
    special = dict(decoder_start_token_id=tokenizer.cls_token_id, eos_token_id=tokenizer.sep_token_id,
                   pad_token_id=tokenizer.pad_token_id)
    network.generation_config = transformers.GenerationConfig(
        **special, num_beams=3, length_penalty=2.0, no_repeat_ngram_size=2, max_length=12, early_stopping=True)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def written_there(folder):
    network = transformers.EncoderDecoderModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        written = network.generate(**tokenizer(TEXTS, return_tensors="pt", padding=True, return_token_type_ids=False))
    return tokenizer.batch_decode(written, skip_special_tokens=True)


def test_import_generates_the_same_texts_and_exports_again(foreign, tmp_path, capsys):
    assert main(["import", "--from", str(foreign), "--task", "translation", "--out", str(tmp_path / "in")]) == 0
    printed = capsys.readouterr().out
    assert "compared on the same inputs with transformers" in printed and "tokenizer: equal ids" in printed
    call = spanbert_jax.pipeline("translation", tmp_path / "in")
    expected = written_there(foreign)
    assert [prediction["translation"] for prediction in call(TEXTS)] == expected
    assert len(set(expected)) == len(TEXTS)
    out = str(tmp_path / "out")
    assert main(["export", "--workdir", str(tmp_path / "in"), "--format", "huggingface", "--out", out]) == 0
    assert written_there(tmp_path / "out") == expected


def test_unusable_directories_give_one_line_errors(foreign, tmp_path, capsys):
    for words, message in (
            (("import", "--from", str(foreign)), "an encoder-decoder model; name its task"),
            (("import", "--from", str(foreign), "--task", "translation", "--tokenizer", "./x"), "./x: no such file"),
            (("export", "--workdir", str(foreign), "--format", "huggingface", "--step", "3"), "--step 3: "),
            (("export", "--workdir", str(foreign), "--format", "onnx"),
             "is an encoder-decoder model; allowed: huggingface")):
        assert main([*words, "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
    for values, message in (({"eos_token_id": 7}, "eos_token_id is 7, but the target tokenizer's is 3"),
                            ({"max_length": 1}, "generation_config.json: unsupported value .*target_length=0")):
        change(copied(foreign, tmp_path / "wrong"), "generation_config.json", **values)
        with pytest.raises(UserError, match=message):
            encoder_decoders.convert(tmp_path / "wrong", tmp_path / "out", "translation")
    folder = copied(foreign, tmp_path / "other")
    (folder / "tokenizer.json").unlink()
    with (folder / "vocab.txt").open("a") as vocab:
        vocab.write("w99\n")
    with pytest.raises(UserError, match="the encoder's tokenizer has 51 tokens and the encoder 50; give the tokenizer"):
        encoder_decoders.convert(folder, tmp_path / "out", "translation")


def copied(folder, to):
    to.mkdir(exist_ok=True)
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def change(folder, name, **fields):
    values = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**values, **fields}))


def test_the_tokenizer_can_be_in_another_file(foreign, tmp_path):
    folder, vocabulary = copied(foreign, tmp_path / "bare"), tmp_path / "vocab.txt"
    (folder / "vocab.txt").rename(vocabulary)
    for file in folder.glob("*token*"):
        file.unlink()
    given = ("--from", str(folder), "--task", "translation", "--out", str(tmp_path / "in"))
    assert main(["import", *given]) == 2
    assert main(["import", *given, "--tokenizer", str(vocabulary)]) == 0
    texts = [prediction["translation"] for prediction in spanbert_jax.pipeline("translation", tmp_path / "in")(TEXTS)]
    assert texts == written_there(foreign)


def test_config_json_is_used_without_a_generation_config(foreign, tmp_path, caplog):
    folder = copied(foreign, tmp_path / "old")
    # Where there is such a file, nothing else counts.
    change(folder, "config.json", num_beams=1, max_length=9)
    encoder_decoders.convert(folder, tmp_path / "one", "translation")
    assert spanbert_jax.pipeline("translation", tmp_path / "one")(TEXTS[0])["translation"] == written_there(foreign)[0]
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    change(folder, "config.json", decoder={**config["decoder"], "max_length": 7, "length_penalty": 0.5},
           max_length=None, num_beams=2, decoder_start_token_id=2, eos_token_id=3, pad_token_id=0,
           repetition_penalty=1.5)
    fine_tuned, _ = encoder_decoders.convert(folder, tmp_path / "two", "translation")
    assert "repetition_penalty=1.5 is ignored: not supported here" in caplog.text
    settings = fine_tuned.task.settings
    assert [getattr(settings, name) for name in ("target_length", "beams", "length_penalty")] == [6, 2, 0.5]
    # The ignored repetition penalty was the only difference from transformers.
    change(folder, "config.json", repetition_penalty=1.0)
    texts = [prediction["translation"] for prediction in spanbert_jax.pipeline("translation", tmp_path / "two")(TEXTS)]
    assert texts == written_there(folder)


def test_generated_texts_are_limited_to_the_decoders_positions(foreign, tmp_path, caplog):
    folder = copied(foreign, tmp_path / "long")
    change(folder, "generation_config.json", max_length=None, max_new_tokens=100, no_repeat_ngram_size=0)
    fine_tuned, _ = encoder_decoders.convert(folder, tmp_path / "out", "translation")
    assert f"at most {POSITIONS} tokens are generated instead of 100" in caplog.text
    assert fine_tuned.task.settings.target_length == POSITIONS
    change(folder, "generation_config.json", max_new_tokens=POSITIONS)
    texts = [prediction["translation"] for prediction in spanbert_jax.pipeline("translation", tmp_path / "out")(TEXTS)]
    assert texts == written_there(folder)


def test_a_difference_from_transformers_leaves_nothing_on_disk(foreign, tmp_path, monkeypatch):
    theirs = encoder_decoders._transformers_logits
    monkeypatch.setattr(encoder_decoders, "_transformers_logits", lambda *args: np.float32(1.001) * theirs(*args))
    with pytest.raises(RunFailed, match="compared on the same inputs with transformers"):
        encoder_decoders.convert(foreign, tmp_path / "out", "translation")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("values,expected,warning", [
    ({}, {"target_length": 19, "beams": 1, "no_repeat_ngram": 0, "min_length": 0}, ""),
    ({"max_new_tokens": 30, "max_length": 9, "min_length": 4, "length_penalty": 2}, {
        "target_length": 30, "min_length": 3, "length_penalty": 2.0}, ""),
    ({"temperature": 0.5, "do_sample": False}, {"temperature": 1.0, "sample": False}, ""),
    ({"temperature": 0.5, "do_sample": True, "top_k": 7}, {"temperature": 0.5, "sample": True, "top_k": 7}, ""),
    ({"do_sample": True}, {"sample": True, "top_k": 50, "top_p": 1.0}, ""),
    ({"repetition_penalty": 1.0, "forced_bos_token_id": None, "num_beam_groups": 1}, {}, ""),
    ({"forced_bos_token_id": 0}, {}, "forced_bos_token_id=0 is ignored"),
    ({"num_beam_groups": 2}, {"beams": 1}, "num_beam_groups=2 is ignored"),
    ({"early_stopping": "never", "num_beams": None}, {"early_stopping": False, "beams": 1}, "early_stopping='never'")])
def test_settings_from_a_generation_config(values, expected, warning, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        found = seq2seq_import.generation_settings(values, to_dict(TASKS.get("summarization").Settings()), tmp_path)
    assert {name: found[name] for name in expected} == expected
    assert warning in caplog.text and bool(caplog.text) == bool(warning)
