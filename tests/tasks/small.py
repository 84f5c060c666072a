"""A small random model and small synthetic files that each task can learn."""
from __future__ import annotations

import json
import pathlib

import flax.linen as nn
import jax
import numpy as np

from spanbert_jax.finetuning.config import default_task_config
from spanbert_jax.interop import save_pretrained
from spanbert_jax.model import BertConfig, EncoderModel
from spanbert_jax.text import SPECIAL_TOKENS, load_tokenizer

COLOURS, THINGS = ("red", "blue", "green"), ("house", "tree", "cat", "stone", "river")
NAMES = ("Ann", "Bob", "Eve")
FILLING = ("the", "a", "is", "was", "of", "by", "near", "old", "new", ".", ",", "?", "what")
WORDS = (*COLOURS, *THINGS, *NAMES, *FILLING, "##s", *(f"[unused{number}]" for number in range(12)))


def make_start(folder: pathlib.Path) -> str:
    """A transformers directory with a random two-layer model and a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab = folder / "vocab.txt"
    vocab.write_text("".join(f"{piece}\n" for piece in (*SPECIAL_TOKENS, *WORDS)), encoding="utf-8")
    tokenizer = load_tokenizer(vocab, lowercase=False)
    config = BertConfig(vocab_size=tokenizer.get_vocab_size(), num_layers=2, width=32, num_heads=2, feed_forward=64,
                        max_positions=128, initializer_range=0.3)
    model = EncoderModel(config)
    params = nn.unbox(jax.jit(lambda key: model.init(key, **model.dummy_inputs))(jax.random.key(0)))["params"]
    save_pretrained(model, params, folder / "start", tokenizer)
    return str(folder / "start")


def sentences(count: int, seed: int = 0) -> list[list[str]]:
    """Sentences of different lengths, each with one colour and one name."""
    random = np.random.default_rng(seed)
    features = []
    for _ in range(count):
        words = list(random.choice([*THINGS, *FILLING], random.integers(3, 12)))
        for kind in (COLOURS, NAMES):
            words.insert(random.integers(0, len(words) + 1), random.choice(kind))
        features.append([str(word) for word in words])
    return features


def texts(count: int, seed: int = 0) -> list[dict]:
    """Texts of three classes, given by the colour; four per group."""
    return [{"id": f"t{number}", "text": " ".join(words), "label": next(word for word in words if word in COLOURS),
             "source": f"book {number // 4}"} for number, words in enumerate(sentences(count, seed))]


def questions(count: int, seed: int = 0) -> list[dict]:
    """Questions that ask for the colour."""
    found = []
    for number, record in enumerate(texts(count, seed)):
        start = record["text"].split().index(record["label"])
        at = len(" ".join(record["text"].split()[:start])) + (start > 0)
        found.append({"id": f"q{number}", "question": "what is the colour ?", "context": record["text"],
                      "answers": {"text": [record["label"]], "answer_start": [at]}, "title": record["source"]})
    return found


def relations(count: int, seed: int = 0) -> list[dict]:
    """Relations between the name and the colour, given by the colour."""
    found = []
    for number, words in enumerate(sentences(count, seed)):
        colour, name = ([word in kind for word in words].index(True) for kind in (COLOURS, NAMES))
        found.append({"id": f"r{number}", "token": words, "subj_start": name, "subj_end": name, "obj_start": colour,
                      "obj_end": colour, "subj_type": "PERSON", "obj_type": "COLOUR",
                      "relation": "no_relation" if words[colour] == "red" else f"likes_{words[colour]}"})
    return found


def tagged(count: int, seed: int = 0) -> list[dict]:
    """Sentences with the name tagged."""
    return [{"tokens": words, "tags": ["B-PER" if word in NAMES else "O" for word in words]}
            for words in sentences(count, seed)]


def documents(count: int, seed: int = 0) -> list[dict]:
    """Documents of two sentences; the summary is the one that mentions Eve."""
    random, features, found = np.random.default_rng(seed), iter(sentences(2 * count, seed)), []
    for chosen in random.integers(0, 2, count):
        both = [" ".join(name if word in NAMES else word for word in next(features))
                for name in (("Eve", "Ann") if chosen == 0 else ("Ann", "Eve"))]
        found.append({"document": both, "summary": both[chosen]})
    return found


def stories(count: int, seed: int = 0) -> list[dict]:
    """Documents of three sentences about one name and one colour; the mentions of each are a chain."""
    random, features, found = np.random.default_rng(seed), iter(sentences(3 * count, seed)), []
    for number in range(count):
        name, colour = str(random.choice(NAMES)), str(random.choice(COLOURS))
        story = [[name if word in NAMES else colour if word in COLOURS else word for word in next(features)]
                 for _ in range(3)]
        words = [word for sentence in story for word in sentence]
        clusters = [[[place, place] for place, word in enumerate(words) if word == kind] for kind in (name, colour)]
        found.append({"doc_key": f"d{number}", "sentences": story, "clusters": clusters})
    return found


MAKERS = {"text_classification": texts, "question_answering": questions, "relation_extraction": relations,
          "token_classification": tagged, "extractive_summarization": documents, "coreference": stories}


def write(path: pathlib.Path, records: list[dict]) -> str:
    """A file of JSON lines."""
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return str(path)


def small_config(name: str, start: str, train: str, **settings):
    """The config of a short run of a task."""
    defaults = {"length": 64, "cache": str(pathlib.Path(train).parent / "features")}
    if name == "question_answering":
        defaults |= {"stride": 8, "question_length": 16}
    if name == "relation_extraction":
        defaults["marking"] = "text"
    if name == "coreference":
        defaults["ffnn_size"] = 64
    config = default_task_config(name, train=train, **(defaults | settings))
    config.init_from = start
    config.compute.dtype, config.compute.layers = "float32", "scanned"
    config.model.dropout = config.model.attention_dropout = 0.0
    config.optimizer.learning_rate = 3e-3
    config.train.batch_size, config.train.duration, config.train.log_every = 16, "30 steps", 1
    config.evaluation.batch_size = 8
    config.evaluation.every, config.checkpoint.every = "10 steps", "1000 steps"  # saves the best and the last
    return config
