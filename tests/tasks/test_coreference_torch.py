"""The coreference model against the same model in torch: losses, gradients, mentions and antecedents."""
import jax
import numpy as np
import pytest

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.interop import load_tokenizer
from spanbert_jax.interop.pretrained import open_pretrained
from spanbert_jax.model import ComputeConfig
from spanbert_jax.tasks import make_task
from tests.tasks.small import stories, write

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def joined(records):
    """One document of several."""
    sentences, clusters = [], []
    for record in records:
        shift = sum(map(len, sentences))
        clusters += [[[first + shift, last + shift] for first, last in cluster] for cluster in record["clusters"]]
        sentences += record["sentences"]
    return {"sentences": sentences, "clusters": clusters}


@pytest.fixture(scope="module")
def sides(start, tmp_path_factory):
    """Task, features, model and parameters of ours, and the model of torch with the same ones."""
    from tests.benchmarks.torch_coreference import TorchCoreference
    data = write(tmp_path_factory.mktemp("data") / "data.jsonl", [joined(stories(4, seed)) for seed in range(3)])
    task = make_task("coreference", {"length": 24, "ffnn_size": 8, "max_span_width": 3})
    tokenizer, examples = load_tokenizer(start), list(task.read(data, DataIssues()))
    model = task.build_model(open_pretrained(start).config, ComputeConfig(dtype="float32"), tokenizer)
    params = task.initial_params(model, start, tokenizer, seed=0)
    random = np.random.default_rng(0)  # scores of the size that they have after training
    params["scorer"] = jax.tree.map(lambda leaf: leaf + random.normal(size=leaf.shape).astype(np.float32) * 0.3,
                                    params["scorer"])
    for score, odds in (("first_word", 2), ("start", 6)):
        params["scorer"][score]["bias"] += odds
    encoder = transformers.BertModel.from_pretrained(start, add_pooling_layer=False, hidden_dropout_prob=0.0,
                                                     attention_probs_dropout_prob=0.0)
    theirs = TorchCoreference(encoder, 8, 3, task.settings.top_span_ratio, 0.0)
    theirs.load_scorer(params["scorer"])
    return task, task.features(examples, tokenizer, DataIssues()), model, tokenizer, params, theirs


def test_losses_and_gradients(sides):
    from tests.benchmarks.torch_coreference import loss_of
    task, features, model, _, params, theirs = sides
    rows = task.pack({"train": features}, 0, 0)["train"]
    batch = rows.rows(np.arange(len(rows)))
    words = (batch["documents"] > 0).sum()

    def mean(params):
        sums = task.loss(task.apply(model, params, batch), batch)
        return sums.loss.sum() / words

    loss, gradients = jax.value_and_grad(mean)(params)
    expected = loss_of(theirs, batch)
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    scorer, encoder = gradients["scorer"], gradients["encoder"]
    for ours, parameter in (
            (scorer["pair"]["kernel"].T, theirs.pair.weight), (scorer["distance"]["bias"], theirs.distance.bias),
            (scorer["start_to_end"]["kernel"].T, theirs.start_to_end.weight),
            (scorer["mention_end"]["projection"]["kernel"].T, theirs.mention_end.projection.weight),
            (encoder["embeddings"]["norm"]["scale"], theirs.encoder.embeddings.LayerNorm.weight)):
        np.testing.assert_allclose(ours, parameter.grad, rtol=1e-3, atol=1e-5)


def test_mentions_and_antecedents(sides):
    task, features, model, tokenizer, params, theirs = sides
    program = task.program(model, tokenizer)
    rows = task.pack({"dev": features}, 0, 0)["dev"]
    batch = rows.rows(np.arange(len(rows)))
    hidden = np.asarray(program.compute(params, program.inputs(batch))["hidden"])
    flat = np.concatenate([hidden[row, column:column + length] for row, column, length in zip(
        rows.row, rows.column, features.lengths)])
    ours = program.finish({"hidden": flat}, features, params)["documents"]
    theirs.eval()
    for one, other in zip(ours, theirs.documents(features), strict=True):
        assert len(one.mentions) > 5 and one.mentions.tolist() == other.mentions.tolist()
        np.testing.assert_allclose(one.mention_scores, other.mention_scores, rtol=1e-4, atol=1e-4)
        assert one.antecedents.tolist() == other.antecedents.tolist()
