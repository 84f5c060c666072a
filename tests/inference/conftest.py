"""Stored models with random parameters that tests of prediction share."""
import flax.linen as nn
import jax
import pytest

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.inference import executors
from spanbert_jax.inference.model_folder import FineTuned, StoredTask, save_model
from spanbert_jax.interop import load_tokenizer
from spanbert_jax.interop.pretrained import open_pretrained
from spanbert_jax.model import ComputeConfig
from spanbert_jax.tasks import make_task
from tests.runs import make_once
from tests.tasks.small import MAKERS, write

SETTINGS = {"question_answering": {"length": 64, "stride": 40, "question_length": 16},
            "text_classification": {"length": 32},
            "relation_extraction": {"length": 32, "marking": "text"}, "token_classification": {"length": 32},
            "extractive_summarization": {"length": 32}, "coreference": {"length": 32, "ffnn_size": 8}}


def save_random_model(folder, start, name, task):
    """Stores a fitted task with random parameters."""
    tokenizer = load_tokenizer(start)
    model = task.build_model(open_pretrained(start).config, ComputeConfig(), tokenizer)
    params = nn.unbox(model.init(jax.random.key(1), **model.dummy_inputs))["params"]
    if name == "coreference":  # as many mentions as after training
        for score, odds in (("first_word", 2), ("start", 6)):
            params["scorer"][score]["bias"] += odds
    save_model(folder, FineTuned(StoredTask(name, task), model, params, tokenizer))


@pytest.fixture(scope="session")
def models(start, shared_folder):
    """A stored random model for each task."""
    def make(folder):
        for name in SETTINGS:
            task = make_task(name, SETTINGS[name])
            examples = list(task.read(write(folder / f"{name}.jsonl", MAKERS[name](50)), DataIssues()))
            save_random_model(folder / name / "model", start, name, task.fit(examples, load_tokenizer(start)))

    folder = make_once(shared_folder / "models", make)
    return {name: folder / name for name in SETTINGS}


@pytest.fixture
def small_groups(monkeypatch):
    """Few examples per group and few positions per chunk, so that there are several of both."""
    monkeypatch.setitem(executors._SIZES, "cpu", (128, 16))
