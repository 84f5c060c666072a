"""The task of the documentation, as a plugin: it trains, and predicts in another process."""
import json
import os
import re
import subprocess
import sys

import numpy as np

from spanbert_jax.common.registry import load_plugins
from spanbert_jax.finetuning.run import finetune
from tests.runs import ROOT
from tests.tasks.small import small_config, texts, write

PAGES = (ROOT / "README.md", ROOT / "spanbert_jax" / "docs" / "tasks.md")
PREDICT = """
import spanbert_jax
call = spanbert_jax.pipeline("readability", {model!r})
print(call("the red house .")["grade"] - call("the blue house .")["grade"])
"""


def documented_task() -> str:
    """The code block that defines a task."""
    blocks = (block for page in PAGES if page.exists()
              for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL) if "(Task)" in block)
    return next(blocks)


def test_the_documented_task_is_a_plugin(start, tmp_path, monkeypatch, one_device):
    code = documented_task()
    if "TASKS.register" not in code:
        code += '\n\nfrom spanbert_jax.tasks import TASKS\n\nTASKS.register("readability")(Readability)\n'
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "readability_plugin.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path / "plugins"))
    load_plugins(["readability_plugin"])
    grades = {"red": 1.0, "blue": -1.0, "green": 0.0}
    train = write(tmp_path / "train.jsonl", [{**text, "grade": grades[text["label"]]} for text in texts(200)])
    config = small_config("readability", start, train, dev_fraction=0.2)
    config.plugins = ("readability_plugin",)
    config.evaluation.batch_size = config.train.batch_size = 32
    config.train.duration = "80 steps"
    finetune(config, tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    untrained = -np.mean(np.abs(list(grades.values())))  # of always predicting 0
    assert results["dev"]["closeness"] > 0.6 * untrained
    assert json.loads((tmp_path / "run" / "model" / "task.json").read_text())["plugins"] == ["readability_plugin"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path / "plugins")])}
    printed = subprocess.run([sys.executable, "-c", PREDICT.format(model=str(tmp_path / "run"))], env=environment,
                             capture_output=True, text=True, check=True)
    assert float(printed.stdout) > 0
