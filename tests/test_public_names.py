"""The public functions: those of the commands, and the types of their arguments."""
import inspect
import pathlib
import typing

import ml_collections
import numpy as np
import pytest

import spanbert_jax
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.types import check_arguments
from spanbert_jax.model import BertConfig, EncoderModel
from spanbert_jax.tasks import TASKS

MODEL = EncoderModel(BertConfig.named("tiny", vocab_size=64))
FIRST, ALL = "encoder/embeddings/norm/bias", "give all parameters of the model, as from_pretrained returns them"


@pytest.mark.parametrize("call,message", [
    (lambda: spanbert_jax.pipeline("text-classification", "m", batch_size="3"),
     "pipeline: batch_size='3': must be of type int, not str"),
    (lambda: spanbert_jax.pipeline(None, "m"), "pipeline: task=None: must be of type str, not NoneType"),
    (lambda: spanbert_jax.from_pretrained(None), "from_pretrained: name_or_path=None: must be of type str or Path, "
                                                 "not NoneType"),
    (lambda: spanbert_jax.load_config(None), "load_config: path=None: must be of type str or PathLike, not NoneType"),
    (lambda: spanbert_jax.load_config("base.py", "--config.seed=1"), "load_config: overrides='--config.seed=1': must "
                                                                     "be of type Sequence[str], not str"),
    (lambda: spanbert_jax.load_config("base.py", [1]), "load_config: overrides=[1]: must be of type Sequence[str], not "
                                                       "list"),
    (lambda: TASKS.get(["x"]), "Registry.get: name=['x']: must be of type str, not list"),
    (lambda: spanbert_jax.fill("m", "[MASK]", k=True), "fill: k=True: must be of type int, not bool"),
    (lambda: spanbert_jax.train("base.py", "runs/x"), "train: config='base.py': must be of type ConfigDict or "
                                                      "Settings, not str; load_config(FILE) reads a config file, and "
                                                      "default_config() and default_task_config(NAME) start one"),
    (lambda: spanbert_jax.sweep(spanbert_jax.default_config(), "runs/x", seeds=0), "seeds=0: must be at least 1"),
    (lambda: spanbert_jax.sweep(spanbert_jax.default_config(), "runs/x", grid={"seed": 1}),
     "sweep: grid={'seed': 1}: must be of type Mapping[str, Sequence[Any]] or None, not dict"),
    (lambda: spanbert_jax.sweep(spanbert_jax.default_config(), "runs/x", grid={"optimizer.b1": []}),
     "grid: optimizer.b1 has no values; give one or several"),
    (lambda: spanbert_jax.small_start(spanbert_jax.default_config(), "x"),
     "config='a config of pretraining': start from default_task_config(NAME)"),
    (lambda: spanbert_jax.parse_argument("a=1", a=()), "parse_argument: a=(): name one or several allowed values"),
    (lambda: spanbert_jax.save_pretrained(MODEL, None, "m"), f"params: no array {FIRST} in them; {ALL}"),
    (lambda: spanbert_jax.save_pretrained(MODEL, {"encoder": 3}, "m"), f"params: no array {FIRST} in them; {ALL}"),
    (lambda: spanbert_jax.finetune(spanbert_jax.default_config(), "runs/x"),
     "config.task=None: is a section; start from default_task_config(NAME), or give a pretraining config to "
     "spanbert_jax.train"),
    (lambda: spanbert_jax.plan(spanbert_jax.default_task_config("translation"), "v5e:2x2"),
     "config: configures a task; only pretraining can be planned")])
def test_wrong_arguments_are_one_line_errors(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value) == message


def test_the_hints_of_public_functions_can_be_checked():
    for name in spanbert_jax.__all__:
        function = getattr(spanbert_jax, name)
        if name != "UserError":
            assert getattr(spanbert_jax, name) is function  # made once
            hints = [parameter.annotation for parameter in inspect.signature(function).parameters.values()]
            assert not [hint for hint in hints if isinstance(hint, str) or hint is inspect.Parameter.empty], name


def test_arguments_of_right_types_are_passed_on():
    def function(number: int, share: float = 0.5, *words: str, text: typing.Optional[str] = None,  # noqa: UP045
                 **others: int) -> tuple:
        return number, share, words, text, others

    checked = check_arguments(function)
    assert checked(np.int64(2), 1, "a", "b", text=None, x="y") == (2, 1, ("a", "b"), None, {"x": "y"})
    with pytest.raises(UserError, match=r"function: share='1': must be of type float, not str$"):
        checked(2, "1")
    with pytest.raises(TypeError, match=r"function\(\) missing 1 required positional argument: 'number'"):
        checked()


def test_paths_may_be_path_like_and_lists(tmp_path, monkeypatch):
    path, calls = pathlib.Path("a.jsonl"), []
    monkeypatch.setattr("spanbert_jax.inference.files.predict_files", lambda model, inputs, output, **options: (
        calls.append((inputs, options["keep"])), options["on_examples"](0), DataIssues())[2])
    monkeypatch.setattr("spanbert_jax.inference.files.score_files", lambda model, inputs, *args, **options: (
        calls.append((inputs, "")), ({}, DataIssues()))[1])
    spanbert_jax.predict(tmp_path, path, "out", keep=["text", "date"])
    spanbert_jax.predict("model", [path, "b"], tmp_path / "out", keep="all")
    spanbert_jax.evaluate("model", inputs=[path, "b"])
    assert calls == [("a.jsonl", "text,date"), ("a.jsonl,b", "all"), ("a.jsonl,b", "")]
    (tmp_path / "text.txt").write_text("one two three\n\nfour five")
    corpus = spanbert_jax.prepare(tmp_path / "text.txt", tmp_path / "corpus", vocab_size=np.int64(64), length=8,
                                  progress=False)
    assert spanbert_jax.prepare([tmp_path / "text.txt"], tmp_path / "same", tokenizer=tmp_path / "corpus", length=8,
                                progress=False).vocab_size == corpus.vocab_size
    task = spanbert_jax.default_task_config("translation", train=[path, "b"], dev=path, tokenizer=path).task
    assert (task.train, task.dev, task.tokenizer) == ("a.jsonl,b", "a.jsonl", "a.jsonl")
    assert spanbert_jax.load_config(pathlib.Path("base")) == spanbert_jax.load_config("base")


@pytest.mark.parametrize("config", [
    lambda: spanbert_jax.default_task_config("text_classification", train="none.jsonl"), spanbert_jax.default_config])
def test_train_takes_configs_of_both_kinds(config, tmp_path, monkeypatch):
    calls = []
    for module, name in (("finetuning", "finetune"), ("pretraining", "train")):
        monkeypatch.setattr(f"spanbert_jax.{module}.run.{name}", lambda *args, name=name, **options: calls.append(
            (name, args[1], options["force"], options["time_limit"])))
    made = config()
    spanbert_jax.train(made, tmp_path, force=True)
    spanbert_jax.train(ml_collections.FrozenConfigDict(made), tmp_path, time_limit=3)
    name = "finetune" if "task" in made else "train"
    assert calls == [(name, tmp_path, True, 0.0), (name, tmp_path, False, 3)]
