"""The loader: rows equal to those TFDS reads, order as a function of (seed, step), batches with read-ahead."""
import itertools

import numpy as np
import pytest

from spanbert_jax.corpus import RowOrder, RowSource, batches, builder, prepare
from spanbert_jax.corpus.example_layout import ExampleLayout, feature_positions


@pytest.fixture(scope="module")
def corpus(prose, vocabulary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("loader")
    (folder / "prose.txt").write_text("\n\n".join(text.replace("\n\n", "\n") for text in prose))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "_ROWS_PER_SHARD", 100)
        made = prepare(str(folder / "prose.txt"), folder / "out", tokenizer=vocabulary, length=64, format="blank-lines",
                       blocks="pairs", validation_fraction=0.1, progress=False)
    assert len(list(made.path.glob("*train.array_record*"))) > 3
    return made


@pytest.mark.parametrize("split", ["train", "validation"])
def test_rows_equal_those_of_tfds(corpus, split):
    import tensorflow_datasets as tfds
    theirs = tfds.builder_from_directory(str(corpus.path)).as_data_source(split=split)
    source = RowSource(corpus, split)
    assert len(source) == len(theirs) == corpus.num_rows[split]
    indices = np.random.default_rng(0).integers(0, len(source), 50)
    ours = source.rows(indices)
    assert {name: array.dtype.name for name, array in ours.items()} == {
        "tokens": "int32", "next_sentence": "int32",
        **dict.fromkeys(["word_starts", "segments", "token_types", "annotations"], "uint8")}
    for row, index in enumerate(indices):
        record = theirs[int(index)]
        assert record.keys() == ours.keys() and record["tokens"].dtype == np.uint16
        for name, array in record.items():
            np.testing.assert_array_equal(ours[name][row], array)


def test_tokens_of_a_large_vocabulary_are_stored_as_int32(tmp_path):
    import tensorflow_datasets as tfds
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (tmp_path / "vocab.txt").write_text("\n".join([*special, *(f"w{i}" for i in range(5, 70_000))]) + "\n")
    ids = np.arange(5, 70_000, 7)
    (tmp_path / "words.txt").write_text(" ".join(f"w{i}" for i in ids) + "\n")
    corpus = prepare(str(tmp_path / "words.txt"), tmp_path / "out", tokenizer=tmp_path / "vocab.txt", length=64,
                     blocks="contiguous", validation_fraction=0.0, progress=False)
    assert tfds.builder_from_directory(str(corpus.path)).info.features["tokens"].np_dtype == np.int32
    source = RowSource(corpus, "train")
    tokens = source.rows(np.arange(len(source)))["tokens"]
    np.testing.assert_array_equal(tokens[tokens > 4], ids)
    np.testing.assert_array_equal(np.flatnonzero(corpus.unigram), ids)


def test_row_numbers_out_of_range_are_an_error(corpus):
    source = RowSource(corpus, "train")
    for bad in ([-1], [len(source)]):
        with pytest.raises(IndexError, match="row numbers must lie in"):
            source.rows(np.array(bad))


def field(number, payload):
    """A length-delimited field of a protocol buffer."""
    size = len(payload)
    varint = [size] if size < 128 else [size & 127 | 128, size >> 7]
    return bytes([number << 3 | 2, *varint]) + payload


def test_features_in_any_order_are_read():
    def example(features):
        return field(1, b"".join(field(1, field(1, name.encode()) + field(2, field(1, field(1, value))))
                                 for name, value in features))

    one = [("a", bytes(range(200))), ("bc", b"\x00\x01")]
    records = [example(one), example(one[::-1]), example(one)]
    positions = feature_positions(records[1])
    assert {name: records[1][start:start + size] for name, (start, size) in positions.items()} == dict(one)
    layout = ExampleLayout(records[0], {"a": 200, "bc": 2})
    fields = layout.split(records)
    assert [row.tobytes() for row in fields["a"]] == [one[0][1]] * 3
    assert [row.tobytes() for row in fields["bc"]] == [one[1][1]] * 3
    with pytest.raises(ValueError, match="wire type"):
        feature_positions(b"\x0a\x02\x08\x01")
    for other in ([("a", bytes(200))], [("a", bytes(199)), ("bc", b"xx")], [*one, ("d", b"")]):
        with pytest.raises(ValueError, match="not a row"):
            layout.split([records[0], example(other)])


def test_the_parser_survives_any_bytes():
    """Cut, changed or random records are read or raise ValueError, and nothing else."""
    name, value = field(1, b"tokens"), field(2, field(1, field(1, bytes(range(60)))))
    record = field(1, field(1, name + value))
    assert feature_positions(record) == {"tokens": (len(record) - 60, 60)}
    random = np.random.default_rng(0)
    corrupt = [record[:size] for size in range(len(record))] + [random.bytes(40) for _ in range(2000)]
    for at, bit in itertools.product(range(len(record) - 60), range(8)):
        corrupt.append(record[:at] + bytes([record[at] ^ 1 << bit]) + record[at + 1:])
    refused = 0
    for data in corrupt:
        try:
            feature_positions(data)
        except ValueError:
            refused += 1
    assert refused > 2000


@pytest.mark.parametrize("rows, batch", [(10, 3), (7, 7), (3, 8), (1, 4), (64, 10)])
def test_order_is_one_permutation_after_another(rows, batch):
    order = RowOrder(rows, batch, seed=5)
    steps = 6 * rows // batch + 6
    flat = np.concatenate([order.indices(step) for step in range(steps)])
    epochs = [tuple(flat[i:i + rows].tolist()) for i in range(0, len(flat) - rows + 1, rows)]
    assert all(sorted(epoch) == list(range(rows)) for epoch in epochs)
    assert len(set(epochs)) == len(epochs) or rows < 6
    assert order.indices(0).dtype == np.int64


def test_order_is_a_function_of_seed_and_step():
    steps = [41, 3, 999_999]
    one = [RowOrder(100, 8, 1).indices(step) for step in steps]
    order = RowOrder(100, 8, 1)
    np.testing.assert_array_equal(one, [order.indices(step) for step in steps[::-1]][::-1])
    assert not np.array_equal(one, [RowOrder(100, 8, 2).indices(step) for step in steps])


def test_batches_can_start_at_any_step(corpus):
    source = RowSource(corpus, "train")
    order = RowOrder(len(source), 6, seed=0)
    read = list(batches(source, order.indices, range(17, 21)))
    assert [step for step, _, _ in read] == [17, 18, 19, 20]
    for step, indices, rows in read:
        np.testing.assert_array_equal(indices, order.indices(step))
        for name, array in source.rows(indices).items():
            np.testing.assert_array_equal(rows[name], array)


@pytest.mark.parametrize("parts", [[[0, 1, 2, 3, 4, 5]], [[0, 1, 2], [3, 4, 5]], [[1], [0, 4, 5], [], [2, 3]]])
def test_each_process_reads_its_rows_of_the_same_batches(parts, corpus):
    class Watched(RowSource):
        def __init__(self, *args):
            self.sizes = set()
            super().__init__(*args)

        def rows(self, indices):
            self.sizes.add(len(indices))
            return super().rows(indices)

    order = RowOrder(corpus.num_rows["train"], 6, seed=3)
    whole = list(batches(RowSource(corpus, "train"), order.indices, range(5, 8)))
    for part in parts:
        source = Watched(corpus, "train")
        own = batches(source, order.indices, range(5, 8), np.array(part, np.int64))
        for (step, indices, rows), (whole_step, whole_indices, whole_rows) in zip(own, whole, strict=True):
            assert step == whole_step
            np.testing.assert_array_equal(indices, whole_indices)
            assert rows.keys() == whole_rows.keys()
            for name, array in rows.items():
                assert array.dtype == whole_rows[name].dtype
                np.testing.assert_array_equal(array, whole_rows[name][part])
        assert source.sizes == {len(part)}
