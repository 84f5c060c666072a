"""Generates hostile files of texts and tokenizers, and reads each as the commands do."""
import bz2
import gzip
import json
import lzma
import pathlib
import random
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus.sources import FieldNames, read_documents, resolve_sources
from spanbert_jax.tasks import TASKS
from spanbert_jax.tasks.protocol import read_all
from spanbert_jax.text import load_tokenizer, word_starts
from spanbert_jax.text.targets import load_target_tokenizer
from tests.tasks import small
from tests.text import kinds

MOST_SECONDS, MOST_MEMORY = 10, 1 << 30  # of one artefact, besides the memory of the program
SIZES = (1_000, 100_000, 3_000_000)
PARALLEL = [{"en": f"The house {number}.", "de": f"Das Haus {number}."} for number in range(9)]
# Readers of a file: a task with its settings, or None for a corpus, and records that it reads.
READERS: dict[str, tuple[str | None, dict[str, Any], list[dict[str, Any]]]] = {
    "corpus": (None, {}, [{"text": text} for text in kinds.TEXTS]),
    "classes": ("text_classification", {"text": "text"}, small.texts(9)),
    "glue": ("text_classification", {"glue": "sst2"}, [{"sentence": "good", "label": 1, "idx": 3}] * 3),
    "questions": ("question_answering", {"length": 384}, small.questions(9)),
    "relations": ("relation_extraction", {}, small.relations(9)),
    "tags": ("token_classification", {}, small.tagged(9)),
    "spans": ("token_classification", {}, [{"text": "Ann is old", "label": [[0, 3, "PER"]]}] * 5),
    "summaries": ("extractive_summarization", {}, small.documents(9)),
    "chains": ("coreference", {}, small.stories(9)),
    "translations": ("translation", {"source": "en", "target": "de"}, PARALLEL)}
STRANGE = ["", "\0", "a\0b", "\ud800", "\u202e\x1b[2J", "x" * 100_000, "nan", "[[[[", "1e999", None, True, -1, 2**31,
           2**63, 10**400, -0.0, 1e308, float("nan"), float("inf"), [], {}, [[]], [None], {"": {}}, [[0, 1]],
           [0, 2**70, "A"]]


def nested(depth: int) -> Any:
    """Lists inside lists."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def changed(value: Any, chosen: random.Random) -> Any:
    """A JSON value of which one part is strange, missing or there many times."""
    if isinstance(value, (dict, list)) and value and chosen.random() < 0.85:
        value = dict(value) if isinstance(value, dict) else list(value)
        place = chosen.choice(list(value) if isinstance(value, dict) else range(len(value)))
        kind = chosen.random()
        if kind < 0.1:
            del value[place]
        elif kind < 0.2 and isinstance(value, list):
            value += [value[place]] * 10_000
        elif kind < 0.25 and isinstance(value, dict):
            value[chosen.choice(["", "\0", "id", "x" * 10_000, "\ud800"])] = value.pop(place)
        else:
            value[place] = changed(value[place], chosen)
        return value
    return chosen.choice([*STRANGE, nested(chosen.choice([3, 60, 900])), "{}"])


def text_file(folder: pathlib.Path, records: list[dict[str, Any]], chosen: random.Random) -> pathlib.Path:
    """A file of records as JSON lines, an array, a table or neither, damaged in one way and perhaps compressed."""
    records = [dict(record) for record in records]
    for _ in range(chosen.choice([0, 1, 1, 3])):
        place = chosen.randrange(len(records))
        records[place] = changed(records[place], chosen)
    kind = chosen.choice(["jsonl", "jsonl", "json", "csv", "tsv", "txt"])
    if kind in ("jsonl", "json"):
        lines = [json.dumps(record) for record in records]
        data = ("\n".join(lines) if kind == "jsonl" else f"[{','.join(lines)}]").encode()
    else:
        fields = records[0] if isinstance(records[0], dict) else {"text": ""}
        separator = "," if kind == "csv" else "\t" if kind == "tsv" else " "
        rows = [fields, *(record.values() for record in records if isinstance(record, dict))]
        data = "\n".join(separator.join(str(field)[:200_000] for field in row) for row in rows).encode(
            "utf-8", "surrogatepass")
    data = damaged(data, chosen)
    compress = chosen.choice([None, None, gzip.compress, bz2.compress, lzma.compress])
    if compress:
        data, kind = damaged(compress(data), chosen) if chosen.random() < 0.3 else compress(data), f"{kind}.gz"
    (folder / f"file.{kind}").write_bytes(data)
    return folder / f"file.{kind}"


def damaged(data: bytes, chosen: random.Random) -> bytes:
    """Bytes with one damage, or none."""
    place, size = chosen.randrange(len(data) + 1), chosen.choice(SIZES)
    return chosen.choice([
        lambda: data, lambda: data, lambda: data[:place], lambda: data[:place] + b"\0" * 9 + data[place:],
        lambda: data[:place] + b"\xff\xfe\x80" + data[place:], lambda: data[:place] + b'"' + data[place:],
        lambda: data[:place] + b"[" * size + data[place:], lambda: data[:place] + b'{"a":' * (size // 5) + data[place:],
        lambda: data[:place] + b"\n" * size + data[place:], lambda: data[:place] + b"9" * size + data[place:],
        lambda: data[:place] + b"\r" + data[place:], lambda: data[:place] + b"x " * (size // 2) + data[place:]])()


def tokenizer_file(folder: pathlib.Path, chosen: random.Random) -> pathlib.Path:
    """A tokenizer.json of any kind, or the files beside it, with a strange part."""
    kinds.write(chosen.choice(kinds.KINDS), folder)
    file = folder / chosen.choice(["tokenizer.json", "tokenizer.json", "tokenizer.json", "tokenizer_config.json"])
    values = json.loads(file.read_text())
    for _ in range(chosen.randint(1, 3)):
        values = changed(values, chosen)
        if chosen.random() < 0.3 and isinstance(values, dict) and "normalizer" in values:
            values["normalizer"] = {"type": "Sequence", "normalizers": [values["normalizer"], *[
                {"type": "Replace", "pattern": {chosen.choice(["String", "Regex"]): chosen.choice(["a", "(a+)+", ""])},
                 "content": "a" * chosen.choice([1, 60, 10_000])}] * chosen.randint(1, 5)]}
    data = json.dumps(values).encode()
    file.write_bytes(damaged(data, chosen) if chosen.random() < 0.2 else data)
    return folder


def read(seed: int, folder: pathlib.Path) -> str:
    """Makes the artefact of a seed and reads it. Returns the error, or "" if there is none."""
    chosen = random.Random(seed)
    folder.mkdir()
    try:
        if chosen.random() < 0.3:
            path = tokenizer_file(folder, chosen)
            for load in (load_tokenizer, load_target_tokenizer):
                word_starts(load(path))
            return ""
        name = chosen.choice(list(READERS))
        task, settings, records = READERS[name]
        path = text_file(folder, records, chosen)
        issues = DataIssues()
        if task is None:
            for file in resolve_sources([str(path)], "auto"):
                for _ in read_documents(file, FieldNames(annotations=chosen.choice([None, "units"])), issues):
                    pass
        else:
            made = TASKS.get(task)
            read_all(made(made.Settings(**settings)), str(path), issues, with_labels=chosen.random() < 0.7)
    except UserError as error:
        return str(error)
    return ""


def outcomes(seeds: range, folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Reads the artefacts of seeds. What is no UserError is raised."""
    for seed in seeds:
        begun, here = time.process_time(), folder / f"{seed}"
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        error = read(seed, here)
        yield {"seed": seed, "error": error, "seconds": time.process_time() - begun,
               "memory": 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory),
               "files": sorted(path.name for path in here.iterdir())}


if __name__ == "__main__":  # FIRST LAST FOLDER
    for outcome in outcomes(range(int(sys.argv[1]), int(sys.argv[2])), pathlib.Path(sys.argv[3])):
        print(json.dumps(outcome), flush=True)
