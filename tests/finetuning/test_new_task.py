"""The task of the page "A task of your own": it trains and predicts."""
import json
import re
import sys
import types

import jax
import numpy as np

import spanbert_jax
from spanbert_jax import tasks
from spanbert_jax.finetuning.run import finetune
from tests.runs import ROOT
from tests.tasks.small import make_start, small_config, texts, write


def test_the_task_of_the_page_is_learned(tmp_path, monkeypatch):
    code, = (block for block in re.findall(r"```python\n(.*?)```", (ROOT / "spanbert_jax/docs/tasks.md").read_text(), re.DOTALL)
             if "(Task)" in block)
    module = types.ModuleType("spanbert_jax.tasks.readability")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(code, module.__dict__)
    monkeypatch.setitem(tasks.TASKS, "readability", ("readability", "Readability"))
    grades = {"red": 1.0, "blue": -1.0, "green": 0.0}
    train = write(tmp_path / "train.jsonl", [{**text, "grade": grades[text["label"]]} for text in texts(200)])
    config = small_config("readability", make_start(tmp_path / "network"), train, dev_fraction=0.2)
    config.evaluation.batch_size = config.train.batch_size = 4 * jax.device_count()
    config.train.duration = "80 steps"
    finetune(config, tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    unlearned = -np.mean(np.abs(list(grades.values())))  # of always saying 0
    assert results["dev"]["closeness"] > 0.6 * unlearned
    call = spanbert_jax.pipeline("readability", tmp_path / "run")
    assert call("the red house .")["grade"] > call("the blue house .")["grade"]
