"""Questions about whole articles and tales: each document as one input, next to windows of 512 tokens.

  SPANBERT_DATA=../shared/data python -m tests.benchmarks.bench_articles --workdir runs/articles

Trains a model on questions about paragraphs of SQuAD's training articles, then, from that model, both ways on some
questions about whole documents, which are drawn at random. Every fifth document is dev. Each training, with the
evaluation on dev at its end, is one command in a process of its own; the table has the scores on dev, and the time,
processor time and peak memory of that process. If it is stopped, the same command continues, and the times are those of
the last process.
"""
import argparse
import gzip
import json
import os
import pathlib
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import rich.console
import rich.table

Json = dict[str, Any]
WAYS = {"whole": ["configs/squad.py:small=true,whole=true", "--config.task.length=16384",
                  "--config.model.max_positions=16384"],
        "windows": ["configs/squad.py:small=true", "--config.task.contexts=articles", "--config.task.length=512",
                    "--config.task.stride=384"]}


def main() -> None:
    """Trains, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--data", nargs="+", choices=("articles", "tales"), default=["articles", "tales"])
    parser.add_argument("--train-questions", type=int, default=60, help="in all, at most")
    parser.add_argument("--dev-questions", type=int, default=60, help="in all, at most")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    args = parser.parse_args()
    folder = pathlib.Path(os.environ.get("SPANBERT_DATA", "../shared/data"))
    counts = {"train": args.train_questions, "dev": args.dev_questions}
    args.workdir.mkdir(parents=True, exist_ok=True)

    articles = json.loads((folder / "squad-v1.1-train.json").read_text(encoding="utf-8"))["data"]
    tales = folder / "longdoc" / "fairytaleqa-train.jsonl.gz"
    with gzip.open(tales, "rt", encoding="utf-8") as file:
        documents = {"articles": articles, "tales": [json.loads(line) for line in file]}
    learned = write(args.workdir / "paragraphs.json", split(articles)["train"])
    start = args.workdir / "start"
    train(start, ["configs/squad.py:small=true", "--config.train.duration=1 epochs", "--config.task.dev_fraction=0",
                  "--config.task.test_fraction=0", f"--config.task.train={learned}"])

    table = rich.table.Table("documents", "way", "F1", "exact match", "minutes", "processor minutes", "peak GB")
    for name in args.data:
        files = {part: write(args.workdir / f"{name}-{part}.json", drawn(those, counts[part]))
                 for part, those in split(documents[name]).items()}
        for way in args.ways:
            figures = train(args.workdir / f"{name}-{way}", [
                *WAYS[way], f"--config.init_from={start}", f"--config.task.train={files['train']}",
                f"--config.task.dev={files['dev']}", "--config.task.dev_fraction=0", "--config.task.test_fraction=0",
                "--config.train.duration=1 epochs", "--config.evaluation.every=1 epochs",
                "--config.train.batch_size=1", "--config.evaluation.batch_size=1"])
            table.add_row(name, way, *(f"{figures[key]:.1f}" for key in
                                       ("f1", "exact", "minutes", "processor_minutes", "gigabytes")))
    rich.console.Console(width=100).print(table)


def split(documents: Sequence[Json]) -> dict[str, list[Json]]:
    """The documents to learn and the dev ones."""
    return {"train": [document for number, document in enumerate(documents) if number % 5 != 4],
            "dev": list(documents[4::5])}


def drawn(documents: Sequence[Json], total: int) -> list[Json]:
    """Documents with some of their questions, as many of each, those with an answer in the text."""
    generator, result = random.Random(0), []
    count = max(1, total // len(documents))
    for document in documents[:total]:
        if "questions" in document:
            possible = [question for question in document["questions"] if question["answer_spans"]]
            result.append(document | {"questions": generator.sample(possible, min(count, len(possible)))})
            continue
        names = [question["id"] for paragraph in document["paragraphs"] for question in paragraph["qas"]]
        chosen = set(generator.sample(names, min(count, len(names))))
        result.append(document | {"paragraphs": [
            paragraph | {"qas": [question for question in paragraph["qas"] if question["id"] in chosen]}
            for paragraph in document["paragraphs"]]})
    return result


def write(path: pathlib.Path, documents: Sequence[Json]) -> pathlib.Path:
    """Writes SQuAD's format for articles, JSON lines for others."""
    if "paragraphs" in documents[0]:
        path.write_text(json.dumps({"version": "1.1", "data": documents}), encoding="utf-8")
    else:
        path = path.with_suffix(".jsonl")
        path.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    return path


def train(workdir: pathlib.Path, arguments: Sequence[str]) -> dict[str, float]:
    """Runs a training, unless it is done: its scores on dev, if it has dev files, with its time and memory."""
    stored = workdir / "figures.json"
    if not stored.exists():
        began = time.perf_counter()
        command = [sys.executable, "-m", "spanbert_jax", "train", "--workdir", str(workdir), "--config", *arguments]
        with subprocess.Popen(command) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{workdir}: the training ended with status {process.returncode}; the same command continues")
        figures = {"minutes": (time.perf_counter() - began) / 60, "gigabytes": usage.ru_maxrss / 1e6,
                   "processor_minutes": (usage.ru_utime + usage.ru_stime) / 60}
        scores = json.loads((workdir / "results.json").read_text(encoding="utf-8")).get("dev", {})
        stored.write_text(json.dumps(figures | scores), encoding="utf-8")
    return json.loads(stored.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
