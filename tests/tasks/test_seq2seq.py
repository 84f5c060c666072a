"""Seq2seq tasks: features token by token, target tokenizers, loss against NumPy, predictions."""
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.settings import to_dict
from spanbert_jax.model import Outputs
from spanbert_jax.model.losses import add_rows
from spanbert_jax.tasks import make_task
from spanbert_jax.tasks.files.translations import Translation
from spanbert_jax.tasks.packing_pairs import pack_pairs
from spanbert_jax.tasks.protocol import NOT_FINITE, fitted_values
from spanbert_jax.text import SPECIAL_TOKENS, load_tokenizer, special_ids, special_tokens_as_text
from spanbert_jax.text.targets import load_target_tokenizer, target_ids, train_target_tokenizer
from tests.paths import DATA, needs_data

WORDS = ["a", "house", "tree", "##s", "and", "two", "[", "]", "SE", "##P", "."]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    file = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    file.write_text("".join(f"{piece}\n" for piece in [*SPECIAL_TOKENS, *WORDS]))
    return load_tokenizer(file, lowercase=False)


def pair(number, source, target=None):
    return Translation(str(number), f"f:{number}", str(number), source, () if target is None else (target,))


def translate(**settings):
    return make_task("translation", {"length": 12, "target_length": 6, **settings})


def pieces(tokenizer, ids):
    return " ".join(tokenizer.id_to_token(int(piece)) for piece in ids)


def test_features_token_by_token(tokenizer):
    task, issues = translate(), DataIssues()
    examples = [pair(1, "a house and trees .", "two trees"), pair(2, "[SEP] ", "a")]
    features = task.features(examples, tokenizer, issues)
    assert pieces(tokenizer, features.tokens[features.token_slice(0)]) == "[CLS] a house and tree ##s . [SEP]"
    assert pieces(tokenizer, features.labels[0]) == "[CLS] two tree ##s [SEP]"
    # What spells like a special piece is text.
    assert pieces(tokenizer, features.tokens[features.token_slice(1)]) == "[CLS] [ SE ##P ] [SEP]"
    assert not features.token_types.any() and not issues.counts
    assert task.features(examples, tokenizer, DataIssues(), with_labels=False).labels is None


def test_truncated_or_unknown_texts_are_counted(tokenizer):
    task, issues = translate(), DataIssues()
    examples = [pair(1, "a " * 11, "tree"), pair(2, "a", "a " * 6), pair(3, "a", "a bär"), pair(4, "a", "\u200b"),
                pair(5, "\u200b", "a"), pair(6, "a bär", "a")]
    features = task.features(examples, tokenizer, issues)
    assert features.lengths.tolist() == [12, 3, 3, 3, 2, 4]
    assert features.labels.lengths.tolist() == [3, 7, 4, 2, 3, 3]
    assert pieces(tokenizer, features.labels[2]) == "[CLS] a [UNK] [SEP]"
    assert issues.places == {
        "sources longer than config.task.length, truncated at the end": ["f:1 (id '1')"],
        "targets longer than config.task.target_length, truncated at the end": ["f:2 (id '2')"],
        "targets with words outside the target vocabulary, learned as [UNK]": ["f:3 (id '3')"],
        "targets that the target tokenizer maps to no token": ["f:4 (id '4')"],
        "sources that the tokenizer maps to no token": ["f:5 (id '5')"],
        "sources with words outside the vocabulary, read as [UNK]": ["f:6 (id '6')"]}


def test_targets_that_a_vocabulary_changes_are_counted(tokenizer):
    examples = [pair(number, "a", text) for number, text in enumerate(
        ("two trees.", "two  trees", "a[", " a house "), 1)]
    kept, own = DataIssues(), DataIssues()
    translate().features(examples, tokenizer, kept)
    (issue, places), = kept.places.items()
    assert places == ["f:2 (id '2')", "f:3 (id '3')"] and "config.task.target_vocabulary=8000" in issue
    task = translate(target_vocabulary="400", target_length=40)
    task = task.fit(examples, tokenizer)
    task.features(examples, tokenizer, own)
    assert not own.counts


def test_byte_level_tokens_round_trip_any_text():
    texts = ["Y dijo Dios: «Sea la luz»; y fué la luz.", "日本語  [SEP]", " two  spaces"] * 20
    tokenizer = train_target_tokenizer(texts, 400)
    assert tokenizer.get_vocab_size() <= 400
    assert target_ids(tokenizer) == (2, 3, 0, None)
    for text in [*texts, "Новое 😀"]:
        ids = special_tokens_as_text(tokenizer).encode(text, add_special_tokens=False).ids
        assert min(ids) >= len(SPECIAL_TOKENS) and tokenizer.decode(ids) == text
    assert train_target_tokenizer(texts, 400).get_vocab() == tokenizer.get_vocab()


def test_a_trained_target_vocabulary_is_stored(tokenizer):
    task = translate(target_vocabulary="330")
    examples = [pair(number, "a house", "Ein Bärenhaus") for number in range(5)]
    task = task.fit(examples, tokenizer)
    fitted = fitted_values(task)
    again = make_task("translation", to_dict(task.settings), fitted)
    target = again.target_tokenizer(tokenizer)
    features = again.features(examples[:1], tokenizer, DataIssues())
    labels = features.labels[0].tolist()
    assert labels[0] == 2 and labels[-1] == 3 and target.decode(labels[1:-1]).startswith("Ein")
    assert translate().target_tokenizer(tokenizer) is tokenizer


def test_the_tokenizer_of_a_gpt2(tmp_path):
    import transformers
    from tokenizers import ByteLevelBPETokenizer
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(["the house and the tree"] * 30, vocab_size=300, special_tokens=["<|endoftext|>"],
                                show_progress=False)
    trained.save_model(str(tmp_path))
    ours, theirs = load_target_tokenizer(tmp_path), transformers.GPT2TokenizerFast.from_pretrained(str(tmp_path))
    text = "the tree, and a müll"
    assert ours.encode(text).ids == theirs(text)["input_ids"] and ours.decode(ours.encode(text).ids) == text
    end = theirs.eos_token_id
    assert target_ids(ours) == (end, end, end, None)


def test_padding_and_truncation_of_a_stored_target_tokenizer_are_ignored(tokenizer, tmp_path):
    padded = Tokenizer.from_str(tokenizer.to_str())
    padded.enable_padding(length=9)
    padded.enable_truncation(4)
    padded.save(str(tmp_path / "tokenizer.json"))
    task = translate(target_vocabulary=str(tmp_path / "tokenizer.json"))
    examples = [pair(1, "a", "two"), pair(2, "a", "a a a a a")]
    task = task.fit(examples, tokenizer)
    assert task.features(examples, tokenizer, DataIssues()).labels.lengths.tolist() == [3, 7]


def test_a_missing_decoder_is_reported_by_its_field(tokenizer):
    with pytest.raises(UserError, match="config.task.decoder='./shard': neither encoder, shared, random nor"):
        translate(decoder="./shard").fit([], tokenizer)


def test_the_loss_is_the_smoothed_cross_entropy_of_real_labels(tokenizer):
    task = translate(label_smoothing=0.2)
    examples = [pair(1, "a house", "two trees"), pair(2, "a", "a house and a tree"), pair(3, "trees", "a")]
    features = task.features(examples, tokenizer, DataIssues())
    rows = pack_pairs(features, 32, 16, special_ids(tokenizer).pad, seed=0)
    batch = rows.rows(np.arange(len(rows)))
    logits = np.random.default_rng(0).normal(size=(*batch["labels"].shape, 16)).astype(np.float32)
    term = jax.jit(lambda logits, batch: add_rows(task.loss(Outputs(logits=logits), batch)))(jnp.asarray(logits), batch)
    chances, loss, correct, count = log_softmax(logits.astype(np.float64), axis=-1), 0.0, 0, 0
    for feature in range(3):
        labels, row = features.labels[feature], rows.row[feature]
        start = np.flatnonzero(batch["label_segments"][row] == rows.slot[feature] + 1)[0]
        for place, label in enumerate(labels[1:], start):
            loss -= 0.8 * chances[row, place, label] + 0.2 * chances[row, place].mean()
            correct += logits[row, place].argmax() == label
            count += 1
    assert float(term.loss) == pytest.approx(loss, rel=1e-5)
    assert (float(term.correct), float(term.count)) == (correct, count)


def test_predictions_of_empty_sources_and_with_scores_that_are_not_finite(tokenizer):
    task = translate()
    examples = [pair(1, "a house", "ein Haus"), pair(2, "a tree", "ein Baum"), pair(3, " ", ""), pair(4, "\u200b")]
    features = task.features(examples, tokenizer, DataIssues(), with_labels=False)
    outputs = {"texts": ["ein Haus", "ein", "und", "so"], "scores": [-0.5, float("nan"), -3.0, -2.0]}
    predictions = task.decode(examples, features, outputs)
    assert predictions == [{"id": "1", "translation": "ein Haus", "score": -0.5},
                           {"id": "2", "translation": "ein", "score": None,
                            "note": NOT_FINITE},
                           *({"id": id, "translation": "", "score": None, "note": "the source has no token"}
                             for id in ("3", "4"))]
    json.dumps(predictions, allow_nan=False)
    assert task.files(examples, predictions) == {"translation.txt": "ein Haus\nein\n\n\n"}


def test_metrics_equal_sacrebleu_and_copying_is_the_baseline(tokenizer):
    import sacrebleu
    task = translate()
    targets = ["ein großes Haus steht dort am Wald", "zwei Bäume stehen hier vor dem Haus"]
    guesses = ["ein Haus steht dort am Wald", "zwei Bäume stehen dort vor dem Haus"]
    examples = [pair(1, "a house", targets[0]), pair(2, targets[1], targets[1])]
    metrics = task.score(examples, [{"id": "1", "translation": guess} for guess in guesses])
    assert metrics["bleu"] == pytest.approx(sacrebleu.corpus_bleu(guesses, [targets]).score)
    assert metrics["chrf"] == pytest.approx(sacrebleu.corpus_chrf(guesses, [targets]).score)
    assert "version:" in metrics["bleu_signature"] and "tok:13a" in metrics["bleu_signature"]
    assert metrics["copy/bleu"] == pytest.approx(sacrebleu.corpus_bleu(["a house", targets[1]], [targets]).score)


@pytest.mark.parametrize("tokenizer,texts", [
    ("zh", ["我们在家里"]), ("13a", ["ein Haus", "우리는 집에 있다", "हम घर में हैं"]),
    ("char", ["これは本です", "เราอยู่ที่บ้าน", "ພວກເຮົາຢູ່ເຮືອນ", "យើងនៅផ្ទះ", "ငါတို့အိမ်မှာရှိတယ်", "ང་ཚོ་ཁྱིམ་ལ་ཡོད"])])
def test_the_references_determine_the_bleu_tokenizer(tokenizer, texts):
    for text in texts:
        metrics = translate().score([pair(1, "a", text)], [{"id": "1", "translation": text}])
        assert f"tok:{tokenizer}" in metrics["bleu_signature"] and metrics["chrf"] == pytest.approx(100)


def test_scripts_without_spaces_are_scored_by_characters():
    """One wrong character of a Thai text; its words would have nothing in common."""
    import sacrebleu

    reference, guess = "วันนี้อากาศดีมาก", "วันนี้อากาศดีมาด"
    score = sacrebleu.corpus_bleu([guess], [[reference]], tokenize="char").score
    metrics = translate().score([pair(1, "a", reference)], [{"id": "1", "translation": guess}])
    assert metrics["bleu"] == pytest.approx(score) and score > 80
    words = translate(bleu_tokenizer="13a").score([pair(1, "a", reference)], [{"id": "1", "translation": guess}])
    assert words["bleu"] == 0


@pytest.mark.parametrize("settings,message", [
    ({"beams": 0}, "config.task.beams=0: must be at least 1"), ({"target_length": 1}, "target_length=1"),
    ({"label_smoothing": 1.0}, "label_smoothing=1.0"), ({"top_p": 0.0}, "top_p=0.0"),
    ({"sample": True, "beams": 2}, "beams=2: must be 1 with sample=True"),
    ({"min_length": -1}, "min_length=-1: must be at least 0"),
    ({"min_length": 6}, "min_length=6: must be below target_length=6"),
    ({"target_vocabulary": "300"}, "target_vocabulary='300': must be at least 320 and at most 2000000 if"),
    ({"target_vocabulary": "9000000000"}, "target_vocabulary='9000000000': must be at least 320"),
    ({"decoder": "models/gpt2", "target_vocabulary": "500"}, "must be empty with a decoder from a directory"),
    ({"decoder": "shared", "target_vocabulary": "500"}, "must be empty with decoder='shared'"),
    ({"bleu_tokenizer": "moses"}, "bleu_tokenizer='moses': allowed are"),
    ({"source": "en", "target": "en"}, "target='en': .*source='en' and .*target must be two different names"),
    ({"source": ""}, "target='target': .*source=''"), ({"columns": ("source", "source")}, "columns="),
    ({"columns": ("source,target",)}, r"a name of its own, as in \"\('source','target'\)\""),
    ({"seed": 1 << 32}, "seed=4294967296: must be at least 0 and below"), ({"temperature": 1e-39}, "temperature=1e-39"),
    ({"temperature": float("inf")}, "temperature=inf"), ({"length_penalty": float("nan")}, "length_penalty=nan"),
    ({"length_penalty": -1e3}, "length_penalty=-1000.0: must be at least -10 and at most 10")])
def test_wrong_settings_are_rejected(settings, message):
    with pytest.raises(UserError, match=message):
        translate(**settings)


@needs_data
def test_real_translations_are_not_truncated():
    tokenizer = load_tokenizer(DATA / "vocab" / "bert-base-uncased-vocab.txt")
    task = make_task("translation", {"length": 128, "target_length": 128, "target_vocabulary": "2000",
                                     "columns": ("source", "target")})
    issues = DataIssues()
    examples = list(task.read(str(DATA / "bible-kjv-rv1909.en-es.tsv.gz"), issues))[:3000]
    task = task.fit(examples, tokenizer)
    features, target = task.features(examples, tokenizer, issues), task.target_tokenizer(tokenizer)
    whole = [number for number in range(3000) if features.labels.lengths[number] < 129]
    assert len(whole) > 2950
    for number in whole:
        assert target.decode(features.labels[number][1:-1].tolist()) == examples[number].targets[0]
