"""Question answering: windows, targets and loss against plain definitions, and decoding of logits."""
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from transformers import BertTokenizer
from transformers.data.processors import squad as peer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.model import Outputs
from spanbert_jax.tasks import make_task
from spanbert_jax.tasks import question_answering as module
from spanbert_jax.tasks.files.questions import Question
from spanbert_jax.tasks.metrics.question_answering import answer_tokens
from spanbert_jax.tasks.protocol import fitted_values, read_all
from spanbert_jax.tasks.question_answering import best_windows, covering_tokens, window_starts
from spanbert_jax.text import SPECIAL_TOKENS, load_tokenizer, special_ids
from tests.paths import DATA, needs_data

CASED = DATA / "vocab" / "bert-base-cased-vocab.txt"
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"  # a flag: an emoji and tags
WORDS = ["cat", "dog", "ran", "sat", "who", "the", "##s", "##ting", "in", "12", "1", "2", ".", "[", "]", "SEP", "MASK"]
CONTEXT = "the cat sat . the dogs ran in the sitting . the cat ran"


def task(length=384, fitted=None, **settings):
    return make_task("question_answering", {"length": length, **settings}, fitted)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    file = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    pieces = [*SPECIAL_TOKENS, *WORDS, *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    file.write_text("".join(f"{piece}\n" for piece in dict.fromkeys(pieces)))
    return load_tokenizer(file, lowercase=False)


def question(*answers, context=CONTEXT, text="who ran", name="q1", **fields):
    fields = {"gold": tuple(answer for answer, _ in answers)} | fields
    return Question(name, "file:1", "g", text, context, tuple(answers), **fields)


def make(the_task, examples, tokenizer, with_labels=True):
    issues = DataIssues()
    return the_task.features(examples, tokenizer, issues, with_labels), issues


def gold_logits(features, height=20.0, seed=0):
    """Noise, with by far the highest logits at the targets."""
    logits = np.random.default_rng(seed).normal(size=(2, len(features.tokens))).astype(np.float32)
    for row, name in zip(logits, ("start", "end")):
        row[features.starts[:-1] + features.columns[name]] += height
    return {"start_logits": logits[0], "end_logits": logits[1]}


@pytest.mark.parametrize("settings, message", [
    ({"stride": 0}, "config.task.stride=0: must be at least 1"),
    ({"question_length": 0}, "config.task.question_length=0"),
    ({"max_answer_length": -1}, "config.task.max_answer_length=-1"),
    ({"n_best": 0}, "config.task.n_best=0"),
    ({"length": 195}, "config.task.stride=128: .*leave 128 context tokens"),
    ({"length": 60}, "leave -7 context tokens")])
def test_wrong_settings_are_rejected(settings, message):
    with pytest.raises(UserError, match=message):
        task(**settings)
    task(length=196)


@pytest.mark.parametrize("room, stride", [(1, 1), (5, 1), (5, 4), (7, 3), (10, 5), (12, 11), (60, 7)])
def test_windows_by_their_definition(room, stride):
    """Windows start every `stride` tokens until one reaches the end; most context as in the reference."""
    for count in [*range(40), 100, 101, 257]:
        windows, begin = [], 0
        while not windows or windows[-1][1] < count:
            windows.append((begin, min(begin + room, count)))
            begin += stride
        assert list(window_starts(count, room, stride)) == [window[0] for window in windows]
        best = best_windows(count, room, stride)
        assert len(best) == count
        for piece in range(count):
            scores = [min(piece - a, b - 1 - piece) + 0.01 * (b - a) if a <= piece < b else -math.inf
                      for a, b in windows]
            assert best[piece] == scores.index(max(scores))


@needs_data
def test_features_equal_transformers():
    """SQuAD features made word by word with Google's tokenizer: windows, targets and max_context."""
    the_task = task(length=100, stride=30, question_length=12)
    examples = list(the_task.read(str(DATA / "squad-v1.1-train.json"), DataIssues()))[::150]
    features, _ = make(the_task, examples, load_tokenizer(CASED))
    peer.squad_convert_example_to_features_init(BertTokenizer(str(CASED), do_lower_case=False))
    windows = features.by_example(len(examples))
    assert len(features) > 2 * len(examples) > 80
    for example, own in zip(examples, windows):
        text, start = example.answers[0]
        theirs = peer.squad_convert_example_to_features(
            peer.SquadExample(example.id, example.question, example.context, text, start, ""), 100, 30, 12,
            "max_length", True)
        assert len(theirs) == len(own)
        for window, other in zip(own, theirs):
            at = features.token_slice(window)
            length = at.stop - at.start
            assert features.tokens[at].tolist() == other.input_ids[:length] and not any(other.attention_mask[length:])
            assert features.token_types[at].tolist() == other.token_type_ids[:length]
            assert (features.columns["start"][window], features.columns["end"][window]) == (
                other.start_position, other.end_position)
            owned = [position for position, most in other.token_is_max_context.items() if most]
            assert np.flatnonzero(features.token_columns["max_context"][at]).tolist() == owned


def test_a_feature_token_by_token(tokenizer):
    features, issues = make(task(length=13, stride=4, question_length=4), [question(("dogs", 18))], tokenizer)
    pieces = [tokenizer.id_to_token(int(i)) for i in features.tokens]
    chunks = [text.split() for text in (
        "the cat sat . the dog ##s ran", "the dog ##s ran in the s ##i", "in the s ##i ##t ##ting . the",
        "##t ##ting . the cat ran")]
    assert not issues.counts and len(features) == 4
    for window, chunk in enumerate(chunks):
        at = features.token_slice(window)
        assert pieces[at] == ["[CLS]", "who", "ran", "[SEP]", *chunk, "[SEP]"]
        assert features.token_types[at].tolist() == [0] * 4 + [1] * (len(chunk) + 1)
        ends = features.token_columns["char_end"][at][4:-1]
        texts = [CONTEXT[a:b] for a, b in zip(features.token_columns["char_start"][at][4:-1], ends)]
        assert texts == [piece.removeprefix("##") for piece in chunk]
        outside = [0, 1, 2, 3, -1]
        assert not features.token_columns["max_context"][at][outside].any()
        assert all((features.token_columns[name][at][outside] == -1).all() for name in ("char_start", "char_end"))
    assert features.columns["start"].tolist() == [9, 5, 0, 0] and features.columns["end"].tolist() == [10, 6, 0, 0]
    assert features.columns["weight"].tolist() == [1, 1, 1, 1]
    assert int(features.token_columns["max_context"].sum()) == 18  # each piece in one window


def test_an_answer_that_no_window_contains_has_no_target(tokenizer):
    whole, _ = make(task(length=13, stride=4, question_length=4), [question((CONTEXT[:39], 0))], tokenizer)
    assert not whole.columns["start"].any() and not whole.columns["end"].any() and whole.columns["weight"].all()


def test_special_tokens_in_texts_are_words(tokenizer):
    example = question(("[SEP]", 4), context="cat [SEP] [MASK] dog", text="who [SEP] [CLS]")
    features, _ = make(task(), [example], tokenizer)
    special = special_ids(tokenizer)
    assert (features.tokens == special.sep).sum() == 2 and (features.tokens == special.cls).sum() == 1
    assert special.mask not in features.tokens
    prediction, = task().decode([example], features, gold_logits(features))
    assert prediction["answer"] == "[SEP]"
    assert tokenizer.encode("[SEP]", add_special_tokens=False).ids == [special.sep]  # the caller's is what it was


def test_long_questions_are_truncated_and_counted(tokenizer):
    example = question(text="who ran in the cat")
    features, issues = make(task(length=20, stride=4, question_length=3), [example], tokenizer)
    assert [tokenizer.id_to_token(int(i)) for i in features.tokens[:6]] == ["[CLS]", "who", "ran", "in", "[SEP]", "the"]
    assert issues.counts == {module.TRUNCATED: 1} and issues.places[module.TRUNCATED] == ["file:1 (id 'q1')"]


@pytest.mark.parametrize("example, targets, weight, issue", [
    (question(("cat", 4)), ("cat",), 1, None),
    (question(("dog", 18)), ("dog",), 1, None),
    (question(("ran", 52), ("cat", 4)), ("ran",), 1, None),
    (question(("ting", 37), ("cat", 4)), ("ting",), 1, None),
    (question(("og", 19), ("cat", 4)), ("cat",), 1, module.NOT_ALIGNED),
    (question(("at", 9), context="the cat sat . at at", text="who"), ("at",), 1, module.NOT_ALIGNED),
    (question(("o", 19)), ("dog",), 1, module.WIDENED),
    (question(("at .", 9)), ("sat .",), 1, module.WIDENED),
    (question((" cat ", 3)), ("cat",), 1, None),
    (question(("\u0007", 3), context="the\u0007 cat"), (), 0, module.NO_TOKENS),
    (question(("\u0007cat", 4), context="the \u0007cat"), ("cat",), 1, None),
    (question(gold=("cow",)), (), 0, None),
    (question(impossible=True), (), 1, None),
    (question(("cat", 4), text=""), (), 0, module.NO_QUESTION),
    (question(("cat", 4), text=" \u0007"), (), 0, module.NO_QUESTION),
    (question(context="", gold=("cat",)), (), 0, module.NO_CONTEXT),
    (question(context=" \n", impossible=True), (), 1, module.NO_CONTEXT)])
def test_targets_of_training(tokenizer, example, targets, weight, issue):
    features, issues = make(task(null_answers=True), [example], tokenizer)
    assert len(features) == 1 and features.columns["weight"].tolist() == [weight]
    start, end = int(features.columns["start"][0]), int(features.columns["end"][0])
    begin, stop = features.token_columns["char_start"][start], features.token_columns["char_end"][end]
    assert (start, end) == (0, 0) if not targets else example.context[begin:stop] == targets[0]
    assert issues.counts == ({issue: 1} if issue else {})


def test_the_nearest_occurrence_on_token_boundaries(tokenizer):
    example = question(("2", 15), context="2 cat the cat 12 . 2", text="who")
    features, issues = make(task(), [example], tokenizer)
    assert features.token_columns["char_start"][features.columns["start"][0]] == 19
    assert issues.places == {module.NOT_ALIGNED: ["file:1 (id 'q1')"]}


def test_answers_that_are_never_predicted_are_counted(tokenizer):
    for longest, issue in ((3, {}), (2, {module.TOO_LONG: 1})):
        _, issues = make(task(max_answer_length=longest), [question(("the cat sat", 0))], tokenizer)
        assert issues.counts == issue
    _, issues = make(task(), [question(impossible=True)], tokenizer)
    assert issues.counts == {module.NULL_NOT_ALLOWED: 1}


def test_features_without_labels_have_no_targets(tokenizer):
    examples = [question(("cat", 4)), question(name="q2")]
    features, issues = make(task(), examples, tokenizer, with_labels=False)
    assert features.columns == {} and not issues.counts and features.example.tolist() == [0, 1]
    assert features.token_columns.keys() == {"char_start", "char_end", "max_context"}
    nothing, _ = make(task(), [], tokenizer)
    assert len(nothing) == 0 and nothing.columns.keys() == {"start", "end", "weight"}


def test_tokens_of_an_answer_that_share_a_character():
    """For example if a syllable is decomposed, or characters between two tokens are dropped."""
    characters = np.array([(0, 1), (0, 1), (0, 1), (1, 2), (4, 5), (4, 5)])
    assert covering_tokens(characters, 0, 1) == (0, 2) and covering_tokens(characters, 1, 2) == (3, 3)
    assert covering_tokens(characters, 1, 4) == (3, 3) and covering_tokens(characters, 2, 5) == (4, 5)
    assert covering_tokens(characters, 2, 4) is None and covering_tokens(characters, 5, 9) is None


def packed_batch():
    """Three rows: two texts and padding, one text, three texts of which one has no weight."""
    lengths, size, most = [[5, 7], [12], [4, 3, 4]], 14, 3
    segments, first = np.zeros((3, size), np.int32), np.zeros((3, most), np.int32)
    weights = np.zeros((3, most), np.float32)
    for row, texts in enumerate(lengths):
        at = 0
        for k, length in enumerate(texts):
            segments[row, at:at + length], first[row, k], weights[row, k] = k + 1, at, 1
            at += length
    start = np.array([[1, 3, 0], [0, 0, 0], [2, 0, 1]], np.int32)
    end = np.array([[4, 3, 0], [11, 0, 0], [3, 0, 2]], np.int32)
    counted = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1]], np.float32)
    return {"segments": segments, "first": first, "weights": weights, "start": start, "end": end, "weight": counted}


def expected_terms(logits, batch):
    """Loss, correct answers and texts of each row, text by text."""
    loss, hits, count = np.zeros((3, len(batch["weights"])))
    for row, k in zip(*np.nonzero(batch["weights"] * batch["weight"])):
        own = np.flatnonzero(batch["segments"][row] == k + 1)
        right = True
        for values, name in zip(logits, ("start", "end")):
            target = batch[name][row, k]
            loss[row] -= log_softmax(values[row, own].astype(np.float64))[target] / 2
            right &= int(np.argmax(values[row, own])) == target
        hits[row] += right
        count[row] += 1
    return loss, hits, count


@pytest.mark.parametrize("seed", range(3))
def test_loss_of_packed_rows_equals_that_of_single_texts(seed):
    batch, the_task = packed_batch(), task()
    logits = np.random.default_rng(seed).normal(0, 3, (2, 3, 14)).astype(np.float32)
    for row, k, both in ((0, 1, True), (1, 0, True), (2, 0, False), (2, 1, True)):  # (2, 1) does not count
        at = batch["first"][row, k]
        logits[0, row, at + batch["start"][row, k]] = 50
        logits[1, row, at + batch["end"][row, k]] = 50 if both else -50
    loss, hits, count = expected_terms(logits, batch)
    assert count.sum() == 5 and 2 <= hits.sum() < 5
    # What is outside of all texts plays no part, whatever it is.
    logits[:, batch["segments"] == 0] = 1e4
    term = jax.jit(lambda start, end, batch: the_task.loss(Outputs(None, start_logits=start, end_logits=end), batch))(
        *logits, batch)
    np.testing.assert_allclose(term.loss, loss, rtol=1e-5)
    np.testing.assert_array_equal((term.correct, term.count), (hits, count))
    assert all(value.dtype == jnp.float32 for value in term)


def test_gradient_is_finite_and_zero_outside_counted_texts():
    batch, the_task = packed_batch(), task()
    logits = np.random.default_rng(1).normal(size=(2, 3, 14)).astype(np.float32)
    gradient = jax.grad(lambda logits: the_task.loss(
        Outputs(None, start_logits=logits[0], end_logits=logits[1]), batch).loss.sum())(jnp.asarray(logits))
    counts = np.zeros((3, 14), bool)
    for row, k in zip(*np.nonzero(batch["weight"])):
        counts[row] |= batch["segments"][row] == k + 1
    assert np.isfinite(gradient).all() and (np.asarray(gradient != 0) == counts).all()


@needs_data
@pytest.mark.parametrize("name, vocabulary", [
    ("squad-v1.1-train.json", "cased"), ("cmrc2018-zh-train.json", "chinese")])
def test_logits_of_the_targets_decode_to_the_answers(name, vocabulary):
    """Chinese answers are often longer than 30 tokens, which raises the maximum answer length."""
    the_task = task(length=384, stride=128)
    examples = list(the_task.read(str(DATA / name), DataIssues()))[::4]
    tokenizer = load_tokenizer(DATA / "vocab" / f"bert-base-{vocabulary}-vocab.txt")
    the_task = the_task.fit(examples, tokenizer)
    features, issues = make(the_task, examples, tokenizer)
    predictions = the_task.decode(examples, features, gold_logits(features))
    missed = [example.id for example, prediction in zip(examples, predictions)
              if answer_tokens(prediction["answer"]) not in map(answer_tokens, example.gold)]
    assert len(missed) <= 0.005 * len(examples) and len(missed) <= issues.counts[module.TOO_LONG]
    for example, prediction in zip(examples, predictions):
        assert prediction["id"] == example.id
        assert prediction["answer"] == example.context[prediction["start"]:prediction["end"]]
    metrics = the_task.score(examples, predictions)
    assert metrics["total"] == len(examples) and metrics["exact"] >= 99.5 and metrics["f1"] >= metrics["exact"]
    assert metrics[the_task.metric] == metrics["f1"]


@needs_data
def test_answers_keep_the_original_spelling():
    """German XQuAD, whose accents the uncased vocabulary strips, in many overlapping windows."""
    the_task = task(length=200, stride=32, max_answer_length=60)
    examples = list(the_task.read(str(DATA / "xquad.de.json"), DataIssues()))[::2]
    features, issues = make(the_task, examples, load_tokenizer(DATA / "vocab" / "bert-base-uncased-vocab.txt"))
    predictions = the_task.decode(examples, features, gold_logits(features))
    missed = [example.id for example, prediction in zip(examples, predictions)
              if prediction["answer"] != example.gold[0]]
    assert len(missed) <= sum(issues.counts.values()) <= 0.005 * len(examples) < len(examples) < len(features) / 3


@pytest.mark.parametrize("context, answer", [
    ("un cafe\u0301 est bon", "cafe\u0301"), ("the resume\u0301", "resume\u0301"), ("ran cafe\u0301s .", "cafe\u0301s"),
    ("राम विष्णु और", "विष्णु"), ("a ไม่ดี", "ไม่ดี"), ("a ര\u0d4d\u200d b", "ര\u0d4d\u200d"),
    ("the cafe\u200b ran", "cafe"), ("caf\u00e9 ran", "caf\u00e9"), ("서울은 the", "서울은"),
    (f"the {ENGLAND} ran", ENGLAND), (f"the {ENGLAND}", ENGLAND), ("a שלום\u200f b", "שלום\u200f"),
    ("(שלום\u200f) b", "שלום\u200f"), ("\u200fשלום b", "\u200fשלום"), ("a \u2067שלום\u2069.", "\u2067שלום\u2069"),
    ("a \U0001f469\u200d\U0001f4bb b", "\U0001f469\u200d\U0001f4bb"), ("a ب\u200d b", "ب\u200d"),
    ("a \u06dd١٢ b", "\u06dd١٢"), ("\ufeffcafe ran", "cafe")])
@pytest.mark.parametrize("lowercase", [True, False])
def test_answers_keep_the_marks_that_the_tokenizer_drops(tmp_path, lowercase, context, answer):
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *WORDS, *"abcdef", *(f"##{c}" for c in "abcdef")]))
    examples = [question((answer, context.index(answer)), context=context)]
    features, issues = make(task(), examples, load_tokenizer(tmp_path, lowercase))
    prediction, = task().decode(examples, features, gold_logits(features))
    assert prediction["answer"] == answer and not issues.counts


@needs_data
def test_a_tuned_threshold_reaches_the_best_f1():
    the_task = task(length=384, null_answers=True)
    examples = list(the_task.read(str(DATA / "squad-v2.0-train.json"), DataIssues()))[::12]
    features, _ = make(the_task, examples, load_tokenizer(CASED))
    logits = gold_logits(features, height=6.0)
    for values in logits.values():
        values[features.starts[:-1]] += 6  # a network that says "no answer" too often
    before = the_task.decode(examples, features, logits)
    assert fitted_values(the_task) == {}
    the_task = the_task.tune(examples, before)
    after = task(length=384, null_answers=True, fitted=fitted_values(the_task)).decode(
        examples, features, logits)
    first, then = the_task.score(examples, before), the_task.score(examples, after)
    assert then["f1"] == pytest.approx(first["best_f1"], abs=1e-6) and then["f1"] > first["f1"] + 1
    assert then["HasAns_f1"] > first["HasAns_f1"] and then["NoAns_f1"] <= first["NoAns_f1"]
    assert then["HasAns_total"] + then["NoAns_total"] == then["total"] == len(examples)
    assert {name: then[name] for name in then if name.startswith("best")} == {
        name: first[name] for name in first if name.startswith("best")}
    assert all((prediction["answer"] == "") == (prediction["null_odds"] > the_task.fitted.null_threshold)
               for prediction in after)


def test_without_null_answers_nothing_is_tuned(tokenizer):
    the_task, examples = task(), [question(("cat", 4))]
    features, _ = make(the_task, examples, tokenizer)
    predictions = the_task.decode(examples, features, gold_logits(features))
    the_task = the_task.tune(examples, predictions)
    assert fitted_values(the_task) == {} and the_task.score(examples, predictions) == {"exact": 100, "f1": 100,
                                                                                       "total": 1}


@pytest.mark.parametrize("null_answers", [True, False])
def test_files_in_the_official_formats(tokenizer, null_answers):
    the_task = task(null_answers=null_answers, n_best=3)
    examples = [question(("cat", 4), name="a"), question(impossible=True, name="b"), question(context="", name="c")]
    features, _ = make(the_task, examples, tokenizer)
    predictions = the_task.decode(examples, features, gold_logits(features))
    files = {name: json.loads(text) for name, text in the_task.files(examples, predictions).items()}
    assert files["predictions.json"]["a"] == "cat" and files["predictions.json"]["c"] == ""
    assert (files["predictions.json"]["b"] == "") == null_answers
    assert ("null_odds.json" in files) == null_answers
    if null_answers:
        odds = files["null_odds.json"]
        assert odds["a"] < 0 < odds["b"] and odds.keys() == {"a", "b", "c"}
    nbest = files["nbest_predictions.json"]
    assert nbest.keys() == {"a", "b", "c"} and nbest["a"][0]["text"] == "cat"
    for entries in nbest.values():
        assert all(entry.keys() == {"text", "probability", "start_logit", "end_logit"} for entry in entries)
        assert 0 < sum(entry["probability"] for entry in entries) <= 1
        assert len({entry["text"] for entry in entries}) == len(entries) <= 3 + null_answers


def test_languages_with_the_same_ids_are_one_part(tmp_path):
    """As those of XQuAD; each question keeps its own answer in the official files."""
    for language, text in (("de", "Katze"), ("en", "cat"), ("es", "gato")):
        record = {"id": "a", "question": "?", "context": text, "answers": {"text": [text], "answer_start": [0]}}
        (tmp_path / f"xquad.{language}.jsonl").write_text(json.dumps(record))
    issues = DataIssues()
    examples = read_all(task(), str(tmp_path), issues)
    assert [example.id for example in examples] == ["a", "a-2", "a-3"] and list(issues.counts.values()) == [2]
    predictions = [{"id": "a", "answer": example.context, "n_best": []} for example in examples]
    assert json.loads(task().files(examples, predictions)["predictions.json"]) == {
        "a": "Katze", "a-2": "cat", "a-3": "gato"}
    assert task().score(examples, predictions)["exact"] == 100


def test_answers_from_unspaced_texts_are_scored_by_character():
    examples = [question(("紅楼夢", 0), context="紅楼夢は小説である。"),
                question(("元朝", 12), context="the name is 元朝 in it")]
    metrics = task().score(examples, [{"answer": "《紅楼》"}, {"answer": "元"}])
    assert metrics["f1"] == pytest.approx(100 * (0.8 + 0) / 2)  # the second is a word of English text


def test_a_context_of_a_hundred_thousand_characters(tokenizer):
    words = ["the cat sat in the sitting ."] * 3_600
    words[3_000] = "the dogs ran ."
    context = " ".join(words)
    assert len(context) > 100_000
    example = question(("dogs", context.index("dogs")), context=context)
    the_task = task(length=384, stride=128)
    features, issues = make(the_task, [example, question(("dogs", context.index("dogs")), context=context, name="q2")],
                            tokenizer)
    count = len(tokenizer.encode(context, add_special_tokens=False).ids)
    assert not issues.counts and len(features) == 2 * (1 + math.ceil((count - 379) / 128))
    assert features.token_columns["max_context"].sum() == 2 * count
    prediction, _ = the_task.decode([example, example], features, gold_logits(features))
    assert (prediction["answer"], prediction["start"]) == ("dogs", context.index("dogs"))


def test_a_document_is_one_window_where_it_fits_and_several_of_bounded_length_where_it_does_not(tokenizer):
    long = task(8192, stride=4096)
    room = 8192 - 2 - 3  # beside two tokens of the question and three special ones
    for words, windows in ((room, 1), (room + 1, 2), (100_000, 24)):  # 24: (100,000 - 8,187) / 4,096 is 22.4
        features, issues = make(long, [question(("dog", 4 * (words - 1)), context="cat " * (words - 1) + "dog")],
                                tokenizer)
        assert len(features) == windows and not issues.counts
        assert features.lengths.max() <= 8192 and long.prediction_rows(features, 0)[0].length == 8192
        assert (features.columns["start"][-1], features.columns["weight"][-1]) == (features.lengths[-1] - 2, 1)


def test_the_threshold_if_never_answering_is_best(tokenizer):
    """The official threshold is then 0, with which questions below it would be answered."""
    the_task = task(length=60, stride=8, question_length=8, null_answers=True)
    examples = [question(name=f"q{number}", impossible=True) for number in range(4)]
    predictions = [{"best_answer": "cat", "answer": "cat", "null_odds": -float(odds)} for odds in (5, 2, 4, 3)]
    the_task = the_task.tune(examples, predictions)
    assert all(prediction["null_odds"] > the_task.fitted.null_threshold for prediction in predictions)
