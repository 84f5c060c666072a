"""Packed rows: all features, none mixed, little padding, and the same model outputs."""
import flax.linen as nn
import jax
import numpy as np
import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.model import BertConfig, ComputeConfig, EncoderModel, make_head
from spanbert_jax.tasks.features import FeatureBuilder, Features, check_ids
from spanbert_jax.tasks.packing import FULL, PackedRows, UnpackedOutputs, pack, row_length, shortest_full, split_rows
from spanbert_jax.tasks.question_answering import QuestionAnswering
from spanbert_jax.tasks.relation_extraction import RelationExtraction
from spanbert_jax.tasks.token_classification import TokenClassification


def make_features(lengths, seed: int = 0) -> Features:
    random, builder = np.random.default_rng(seed), FeatureBuilder()
    for number, length in enumerate(lengths):
        tokens = random.integers(5, 90, length)
        builder.add(number, tokens, random.integers(0, 2, length), {"label": number},
                 {"tag": np.arange(length) + 100 * number})
    return builder.build({"label": np.int32}, {"tag": np.int32})


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_every_feature_is_in_one_row_with_its_labels(seed):
    features = make_features(np.random.default_rng(3).integers(2, 30, 200))
    rows = pack(features, 32, 0, ("label", "tag"), seed)
    batch = rows.rows(np.arange(len(rows)))
    assert batch["tokens"].shape == (len(rows), 32) and batch["first"].shape == (len(rows), rows.texts)
    found = {}
    for row in range(len(rows)):
        for slot in range(rows.texts):
            inside = batch["segments"][row] == slot + 1
            if batch["weights"][row, slot]:
                label = int(batch["label"][row, slot])
                assert label not in found
                found[label] = tuple(batch[name][row, inside] for name in ("tokens", "token_types", "tag"))
                assert np.flatnonzero(inside)[0] == batch["first"][row, slot]
            else:
                assert not inside.any()
    assert sorted(found) == list(range(200))
    for label, (tokens, types, tags) in found.items():
        place = features.token_slice(label)
        np.testing.assert_array_equal(tokens, features.tokens[place])
        np.testing.assert_array_equal(types, features.token_types[place])
        np.testing.assert_array_equal(tags, features.token_columns["tag"][place])
    padding = batch["segments"] == 0
    assert not batch["tokens"][padding].any() and not batch["tag"][padding].any()


@pytest.mark.parametrize("changes, message", [
    ({"vocab_size": 90}, None), ({"token_types": 1}, None), ({"vocab_size": 50}, r"token id \d\d: .* has 50 rows"),
    ({"token_types": 2, "wrong": 2}, "token type 2: the model's embedding has 2 rows")])
def test_ids_without_a_row_in_the_embedding_are_an_error(changes, message):
    features, wrong = make_features([4, 30, 30]), changes.pop("wrong", 0)
    features.token_types[5] = wrong or features.token_types[5]
    model = EncoderModel(BertConfig.named("tiny", **{"vocab_size": 90, **changes}))
    if message is None:
        return check_ids(features, model)
    with pytest.raises(UserError, match=message):
        check_ids(features, model)


@pytest.mark.parametrize("lengths,length", [([300], 640), ([1030], 1152), ([8192, 5000], 8192)])
def test_rows_of_whole_documents_are_no_longer_than_the_longest(lengths, length):
    # Two texts of 300 fill rows of 640; two of 1,030 would fill rows of 2,176, whose memory is not worth it.
    assert row_length(np.array(lengths * 30)) == length


def test_the_order_depends_only_on_the_seed():
    features = make_features(np.full(100, 10))
    first, again, other = (pack(features, 32, 0, seed=seed).row for seed in (5, 5, 6))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("name,lengths", [
    ("short", np.random.default_rng(0).gamma(3, 6, 2000).astype(int) + 2),
    ("windows", np.minimum(np.random.default_rng(1).normal(180, 60, 2000).astype(int).clip(20), 384)),
    ("nearly all of one length, over half a row", np.random.default_rng(2).integers(260, 280, 500)),
    ("whole rows", np.full(300, 512))])
def test_rows_are_ninety_percent_full(name, lengths):
    features = make_features(lengths)
    length = row_length(features.lengths)
    assert length in (32, 64, *range(128, 2000, 128)) and length >= lengths.max()
    assert pack(features, length, 0, seed=0).filled >= FULL


@pytest.mark.parametrize("filled,length", [
    ([0.8, 0.91, 0.99], 2), ([0.85, 0.888, 0.893], 2), ([0.85, 0.87, 0.89], 3), ([0.89, 0.88], 1), ([0.0], 1)])
def test_the_shortest_full_rows_are_chosen(filled, length):
    assert shortest_full((share, number) for number, share in enumerate(filled, 1)) == length


def test_padding_rows_are_empty_and_all_rows_are_split():
    rows = pack(make_features([5] * 7), 32, 0, most=2)
    batches = split_rows(rows, 3)
    assert [list(batch) for batch in batches] == [[0, 1, 2], [3, -1, -1]]
    batch = rows.rows(batches[1])
    assert batch["segments"][0].any() and not batch["segments"][1:].any() and not batch["weights"][1:].any()


TASKS = {task.head: task for task in (QuestionAnswering, RelationExtraction, TokenClassification)}
HEADS = {"question_answering": (), "sequence_classification": ("a", "b", "c"), "token_classification": ("O", "B-X")}


@pytest.mark.parametrize("head", HEADS)
def test_packed_outputs_equal_those_of_single_texts(head):
    config = BertConfig(vocab_size=100, num_layers=2, width=32, num_heads=2, feed_forward=64, max_positions=24,
                        initializer_range=0.3)
    model = EncoderModel(config, make_head(head, HEADS[head]), ComputeConfig(dtype="float32"))
    params = nn.unbox(jax.jit(lambda key: model.init(key, **model.dummy_inputs))(jax.random.key(0)))["params"]
    features = make_features(np.random.default_rng(4).integers(2, 24, 40))
    program, outputs = TASKS[head](TASKS[head].Settings(length=512)).program(model, None), {}
    for name, rows in (("alone", PackedRows(features, [[number] for number in range(40)], 24, 0)),
                       ("packed", pack(features, 64, 0, seed=1))):  # a row is longer than the table of positions
        unpacked, compute = UnpackedOutputs(features, program.per_text), jax.jit(program.compute)
        for numbers in split_rows(rows, 6):
            unpacked.add(rows, numbers, jax.device_get(compute(params, program.inputs(rows.rows(numbers)))))
        outputs[name] = unpacked.outputs
    # By transformers' way of calling, a text a row with a mask.
    alone = PackedRows(features, [[number] for number in range(40)], 24, 0).rows(np.arange(40))
    plain = jax.jit(model.apply)({"params": params}, alone["tokens"], alone["segments"], alone["token_types"])
    for name, value in outputs["alone"].items():
        for number, expected in enumerate(np.asarray(getattr(plain, name))):
            place = features.token_slice(number)
            got = value[number] if program.per_text else value[place]
            np.testing.assert_allclose(got, expected if program.per_text else expected[:len(got)], atol=1e-5)
    for name, value in outputs["alone"].items():
        np.testing.assert_allclose(outputs["packed"][name], value, atol=1e-5)
        assert np.abs(value).max() > 0.1
