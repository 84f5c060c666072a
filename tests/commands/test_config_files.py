"""Config files, their variants and overrides, and messages about mistakes in them."""
import json
import pathlib
import re

import pytest

from spanbert_jax.commands.config_files import as_run_config, load_config
from spanbert_jax.commands.main import main
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.settings import to_dict
from spanbert_jax.finetuning.config import as_finetuning_config
from spanbert_jax.pretraining.config import as_pretraining_config, pretraining_heads

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"


def load(name: str, *overrides: str):
    return load_config(str(CONFIGS / name), overrides)


def validate(config):
    as_run_config(config).validate("config")


@pytest.mark.parametrize("name", ["quickstart.py", "books.py"])
def test_config_files_are_valid(name):
    validate(load(name))


@pytest.mark.parametrize("name,size,steps,batch,rate", [
    ("base.py", "base", "300k steps", 2048, 5e-4), ("large.py", "large", "2.4M steps", 256, 1e-4)])
def test_published_hyperparameters(name, size, steps, batch, rate):
    config = load(name, "--config.data.path=corpus")
    validate(config)
    assert (config.model.size, config.train.duration, config.train.batch_size) == (size, steps, batch)
    assert config.optimizer.learning_rate == rate and config.schedule.warmup == "10k steps"
    spec = config.masking
    assert (spec.scheme, spec.rate, spec.geometric_p) == ("geometric", 0.15, 0.2)
    assert (spec.span_lower, spec.span_upper) == (1, 10)
    assert (spec.replacement, spec.endpoints, spec.max_span_positions) == ("span", "external", 15)


@pytest.mark.parametrize("argument,scheme,upper,boundary,next_sentence", [
    ("scheme=subword", "token", 10, False, False), ("scheme=whole_word,sbo=false", "whole_word", 10, False, False),
    ("scheme=named_entity,sbo=false,segments=2", "annotated", 1, False, True),
    ("scheme=noun_phrase", "annotated", 1, True, False),
    ("scheme=geometric+token", "geometric+token", 10, True, False)])
@pytest.mark.parametrize("name", ["base.py", "large.py"])
def test_ablations_are_one_line_variants(name, argument, scheme, upper, boundary, next_sentence):
    config = load(f"{name}:{argument}", "--config.data.path=corpus")
    validate(config)
    heads = pretraining_heads(as_pretraining_config(config))
    assert (config.masking.scheme, config.masking.span_upper) == (scheme, upper)
    assert (heads.boundary, heads.next_sentence) == (boundary, next_sentence)


@pytest.mark.parametrize("name,task,length,epochs", [
    ("squad.py", "question_answering", 512, 4), ("squad.py:version=2", "question_answering", 512, 4),
    ("mrqa.py", "question_answering", 512, 4), ("sentiment.py", "text_classification", 128, 10),
    ("intent.py", "text_classification", 128, 10), ("glue.py:task=cola", "text_classification", 128, 4),
    ("glue.py:task=mnli,data=glue", "text_classification", 128, 10), ("tacred.py", "relation_extraction", 128, 10),
    ("semeval.py", "relation_extraction", 128, 10), ("ner.py", "token_classification", 128, 10)])
def test_published_hyperparameters_of_tasks(name, task, length, epochs):
    config = load(name, "--config.task.train=files")
    validate(config)
    assert (config.task.name, config.task.length, config.train.duration) == (task, length, f"{epochs} epochs")
    assert (config.optimizer.learning_rate, config.train.batch_size) == (2e-5, 32)
    assert (config.schedule.warmup, config.optimizer.weight_decay) == ("10 percent", 0.01)
    if task == "question_answering":
        assert (config.task.stride, config.task.question_length, config.task.max_answer_length) == (128, 64, 30)
        assert config.task.null_answers == ("version=2" in name)


@pytest.mark.parametrize("name,task,batch", [
    ("summarization.py", "summarization", 128), ("translation.py", "translation", 32)])
def test_published_hyperparameters_of_generation(name, task, batch):
    config = load(name, "--config.task.train=files")
    validate(config)
    assert (config.task.name, config.train.batch_size, config.optimizer.learning_rate) == (task, batch, 5e-5)
    assert (config.task.decoder, config.task.label_smoothing, config.task.beams) == ("encoder", 0.1, 4)


@pytest.mark.parametrize("name", [
    "squad.py", "sentiment.py", "intent.py", "tacred.py", "semeval.py", "ner.py", "summarization_extractive.py",
    "summarization.py", "summarization.py:data=sentences", "summarization.py:data=scitldr", "translation.py",
    "translation.py:pair=debian"])
def test_small_variants_of_tasks_are_valid(name, monkeypatch):
    monkeypatch.setenv("SPANBERT_DATA", "/data")
    config = load(f"{name},small=true" if ":" in name else f"{name}:small=true")
    validate(config)
    assert config.task.train.startswith("/data/") and pathlib.Path(config.init_from, "model.safetensors").is_file()


def test_a_plan_of_a_task_is_refused(capsys):
    assert main(["plan", "--config", str(CONFIGS / "ner.py"), "--topology", "cpu:1"]) == 2
    assert "configures a task; only pretraining can be planned" in capsys.readouterr().err


def test_overrides_reach_nested_fields():
    config = load("quickstart.py", "--config.optimizer.learning_rate=1e-4", "--config.train.duration=7 steps",
                  "--config.data.sources=('a.txt','b.txt')", "--config.data.pack=true")
    assert config.optimizer.learning_rate == 1e-4 and config.train.duration == "7 steps"
    assert config.data.sources == ("a.txt", "b.txt") and config.data.pack is True


def test_an_override_replaces_what_cannot_stand_beside_it():
    data = load("quickstart.py", "--config.data.path=corpora/mine").data
    assert (data.path, data.sources, data.tokenizer, data.vocab_size) == ("corpora/mine", (), "", 0)
    data = load("quickstart.py", "--config.data.tokenizer=vocab.txt").data
    assert (data.sources, data.tokenizer, data.vocab_size) == (("python",), "vocab.txt", 0)
    data = load("quickstart.py", "--config.data.path=").data
    assert (data.path, data.sources, data.vocab_size) == ("", ("python",), 4096)
    with pytest.raises(UserError, match="set either data.path, a prepared corpus, or data.sources"):
        validate(load("quickstart.py", "--config.data.path=corpora/mine", "--config.data.sources=('a.txt',)"))
    task = load("ner.py", "--config.task.train=a", "--config.task.dev_fraction=0.2", "--config.task.test=b").task
    assert (task.dev, task.dev_fraction, task.test, task.test_fraction) == ("", 0.2, "b", 0.0)


@pytest.mark.parametrize("argument,message", [
    ("base.py:sheme=token", "unknown name 'sheme'; allowed: scheme, sbo, segments"),
    ("base.py:sbo=maybe", "sbo=maybe: not a bool"), ("base.py:segments=3", "segments=3: allowed are 1, 2"),
    ("glue.py:task=snli", "config argument task=snli: allowed are rte, cola"), ("squad.py:version=two", "not a int"),
    ("translation.py:small=true,pair=news", "pair=news: allowed are bible, debian"),
    ("nothing.py", "no such file"), ("quickstrat", "no such file .*quickstrat; did you mean 'quickstart'")])
def test_wrong_config_arguments_are_one_line_errors(argument, message):
    with pytest.raises(UserError, match=message) as error:
        load(argument)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("override,message", [
    ("--config.optimiser.learning_rate=1", "config has no field 'optimiser'; did you mean 'optimizer'"),
    ("--config.optimizer.learning_rat=1", "config.optimizer has no field 'learning_rat'; did you mean 'learning_rate'"),
    ("--config.train.batch_size=many", "must be of type int, like 64, and 'many' is not"),
    ("--config.train=5", "config.train is a section; set one of its fields: duration|config.train is a section"),
    ("--config.train.batch_size.x=3", "config.train.batch_size has no field 'x'")])
def test_wrong_overrides_are_one_line_errors(override, message):
    with pytest.raises(UserError, match=message) as error:
        load("quickstart.py", override)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("override,message", [
    ("--config.masking.scheme=geometrc", "config.masking.scheme=.geometrc.: allowed.* whole_word"),
    ("--config.masking.rate=1.5", "config.masking.rate=1.5: must be above 0 and at most 1"),
    ("--config.model.size=huge", "config.model.size='huge'.*'base'"),
    ("--config.compute.remat=some", "config.compute.remat='some'.*'names'"),
    ("--config.compute.gradient_dtype=float16", "config.compute.gradient_dtype='float16'.*'float32', 'bfloat16'"),
    ("--config.optimizer.name=adamm", "config.optimizer.name='adamm'.*'adamw'"),
    ("--config.schedule.name=step", "config.schedule.name='step'.*'wsd'"),
    ("--config.train.duration=soon", "config.train.duration='soon'"),
    ("--config.train.duration=0 steps", "config.train.duration='0 steps': must be longer than nothing"),
    ("--config.train.accumulation=3", "config.train.batch_size=64.*multiple of train.accumulation=3"),
    ("--config.objectives.next_sentence=true", "config.objectives.next_sentence=True: needs data.blocks='pairs'"),
    ("--config.data.sources=", "config.data.path='': set either data.path, a prepared corpus, or data.sources"),
    ("--config.data.vocab_size=0", "config.data.tokenizer='': set either data.tokenizer or data.vocab_size"),
    ("--config.train.duration=1.2.3 steps", "not a duration"),
    ("--config.seed=-1", "config.seed=-1: must be at least 0"),
    ("--config.optimizer.b1=1.5", "config.optimizer.b1=1.5: must be at least 0 and below 1"),
    ("--config.data.length=256", "config.data.length=256: must be at most model.max_positions=128"),
    ("--config.model.num_heads=3", "config.model.num_heads=3: 3 heads do not divide the width 128; set"),
    ("--config.mesh.tensor=0", "config.mesh.tensor=0: must be at least 1"),
    ("--config.model.dropout=1.0", "config.model.dropout=1.0")])
def test_wrong_values_and_combinations_are_refused_before_any_work(override, message, tmp_path, capsys):
    workdir = tmp_path / "run"
    status = main(["train", "--config", str(CONFIGS / "quickstart.py"), "--workdir", str(workdir), override])
    told = capsys.readouterr().err
    assert status == 2 and not workdir.exists()
    assert told.startswith("spanbert-jax train: ") and told.count("\n") == 1
    with pytest.raises(UserError, match=message):
        validate(load("quickstart.py", override))


@pytest.mark.parametrize("command", ["config", "plan", "prepare", "train", "evaluate", "predict", "sweep"])
def test_help_of_each_command_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    examples = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"  spanbert-jax {command} ")]
    assert any("--" in line for line in examples)


@pytest.mark.parametrize("body,message", [
    ("config.optimizer.learnin_rate = 1.0",
     "config.optimizer has no field 'learnin_rate'; did you mean 'learning_rate'"),
    ("config.maskin = {}", "config has no field 'maskin'; did you mean 'masking'"),
    ("config.train.batch_size = 'many'", "line 5: TypeError: .*batch_size"),
    ("config.seed = undefined", "line 5: NameError: name 'undefined' is not defined"),
    ("config.plugins = ('no_such_plugin_module',)",
     "config.plugins: module 'no_such_plugin_module' cannot be imported"),
    ("config.plugins = None", "config.plugins=None: must be a tuple of names of modules"),
    ("config.optimizer = None", "config.optimizer=None: is a section"),
    ("config.compute = None; config.model.dtype = 'float32'", "config.compute=None: is a section; set its fields"),
    ("config.task = 'squad'", "config.task='squad': is a section; start from default_task_config"),
    ("config.trackers = (1,)", r"config.trackers=\(1,\): must be of type tuple"),
    ("raise SystemExit('no data')", "line 5: SystemExit: no data"),
    ("return 5", "get_config returns int, not a ConfigDict"), ("config = = 3", "line 5: SyntaxError"),
    ("parse_argument('x=1', y=2)", "config argument 'x=1': unknown name 'x'; allowed: y")])
def test_mistakes_in_config_files_are_one_line(body, message, tmp_path):
    (tmp_path / "mine.py").write_text("from spanbert_jax import default_config, parse_argument\n\ndef get_config():\n"
                                      f"    config = default_config()\n    {body}\n    return config\n")
    with pytest.raises(UserError, match=message) as error:
        load_config(str(tmp_path / "mine.py"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("last", ["config.lock()", "config = ml_collections.FrozenConfigDict(config)"])
def test_locked_configs_may_have_old_names(last, tmp_path):
    (tmp_path / "locked.py").write_text(
        "import ml_collections\nfrom spanbert_jax import default_config\n\ndef get_config():\n    config = "
        f"default_config()\n    config.model.dtype = 'float32'\n    {last}\n    return config\n")
    assert as_run_config(load_config(str(tmp_path / "locked.py"))).compute.dtype == "float32"


def test_an_error_of_an_imported_module_names_the_line_of_the_import(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_helper.py").write_text("\n\n\ndef f(:\n")
    (tmp_path / "mine.py").write_text("import broken_helper\n")
    with pytest.raises(UserError, match=r"mine.py, line 1: SyntaxError: .*broken_helper.py, line 4"):
        load_config("mine.py")


@pytest.mark.parametrize("config", [{}, "configs/base.py", None])
@pytest.mark.parametrize("typed", [as_pretraining_config, as_finetuning_config])
def test_runs_take_only_configs(typed, config):
    with pytest.raises(UserError, match="config=.*: must be a config as load_config, default_config or"):
        typed(config)


def test_finetuning_needs_the_section_of_a_task():
    with pytest.raises(UserError, match="config.task=None: is a section; start from default_task_config"):
        as_finetuning_config(load("quickstart.py"))


def test_trackers_are_registered_names():
    message = r"config.trackers=\('tensorbord',\): unknown tracker 'tensorbord'; did you mean"
    with pytest.raises(UserError, match=message):
        validate(load("quickstart.py", "--config.trackers=tensorbord"))


@pytest.mark.parametrize("name,text,message", [
    ("empty.py", "", "has no function get_config"), ("config.txt", "", "not a Python file"),
    ("config.yaml", "train: {batch_size: 8}", "not a Python file; a config is a .py file"),
    ("settings.json", "{}", "not a Python file; .* or the config.json of a workdir"),
    ("config.json", "{}", "the stored config of a run has no variants"),
    ("plain.py", "def get_config():\n    pass\n", "plain.py has no variants; leave out :variant=1")])
def test_files_without_a_usable_get_config_are_refused(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(f"{tmp_path / name}:variant=1")


def test_configs_that_come_with_the_package_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("large:sbo=false") == load("large.py:sbo=false")
    (tmp_path / "large").write_text("")  # a file of that name comes first
    with pytest.raises(UserError, match="--config=large: not a Python file"):
        load_config("large")


@pytest.mark.parametrize("name", ["quickstart.py", "ner.py"])
def test_the_stored_config_of_a_run_is_a_config(name, tmp_path):
    config = as_run_config(load(name, "--config.plugins=('json',)", "--config.train.batch_size=24"))
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    assert as_run_config(load_config(str(tmp_path / "config.json"))) == config
    assert load_config(str(tmp_path / "config.json"), ["--config.train.batch_size=8"]).train.batch_size == 8


@pytest.mark.parametrize("change, message", [
    (lambda values: values.pop("task"), "not the config of a run .it lacks the sections train, and data or task"),
    (lambda values: values.clear(), "not the config of a run .it lacks the sections train"),
    (lambda values: values.update(task=None), "has a wrong field .config.task=None: is a section"),
    (lambda values: values["task"].update(length="a"), "has a wrong field .config.task.length='a': must be of"),
    (lambda values: values["task"].update(name="none"), "has a wrong field .unknown task 'none'")])
def test_a_damaged_stored_config_is_named(change, message, tmp_path, capsys):
    values = to_dict(as_run_config(load("ner.py")))
    change(values)
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert main(["train", "--workdir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert re.search(rf"train: {tmp_path}/config.json: .*{message}.*own command again, with --config", error)
    assert error.count("\n") == 1


def test_train_without_a_config_continues_with_the_stored_one(tmp_path, monkeypatch, capsys):
    assert main(["train", "--workdir", str(tmp_path)]) == 2
    assert "holds no run to continue; give --config too" in capsys.readouterr().err
    config = as_run_config(load("quickstart.py", "--config.seed=5"))
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    started = []

    def train(*arguments, **_):
        started.append(arguments)
        raise UserError("only the arguments matter")

    monkeypatch.setattr("spanbert_jax.pretraining.run.train", train)
    main(["train", "--workdir", str(tmp_path)])
    assert started == [(config, str(tmp_path))]


def test_a_config_of_another_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"], "hidden_size": 768}')
    with pytest.raises(UserError, match="config.json: not the config of a run"):
        load_config(str(tmp_path / "config.json"))


def test_config_files_of_the_first_version_still_work(tmp_path):
    (tmp_path / "old.py").write_text("from spanbert_jax.training import default_config, parse_argument\n\n"
                                     "def get_config(argument=None):\n    config = default_config()\n"
                                     "    config.seed = parse_argument(argument, seed=4).seed\n    return config\n")
    with pytest.warns(DeprecationWarning,
                      match="spanbert_jax.training.default_config is now spanbert_jax.default_config"):
        assert load_config(f"{tmp_path / 'old.py'}:seed=7").seed == 7


def test_references_between_fields_follow_overrides(tmp_path):
    (tmp_path / "linked.py").write_text("from spanbert_jax import default_config\n\ndef get_config():\n"
                                        "    config = default_config()\n    config.checkpoint.every = "
                                        "config.evaluation.get_ref('every')\n    return config\n")
    config = load_config(str(tmp_path / "linked.py"), ["--config.evaluation.every=7 steps"])
    assert as_run_config(config).checkpoint.every == "7 steps"


def test_a_field_that_may_be_none_is_read_by_its_type_whatever_a_file_sets(tmp_path):
    (tmp_path / "own.py").write_text("from spanbert_jax import default_config\n\ndef get_config():\n"
                                     "    config = default_config('modernbert')\n    config.model.dropout = 0\n"
                                     "    return config\n")
    file = str(tmp_path / "own.py")
    assert as_run_config(load_config(file)).model.dropout == 0
    model = as_run_config(load_config(file, ["--config.model.dropout=0.25", "--config.model.norm_bias=true"])).model
    assert (model.dropout, model.norm_bias, model.attention_bias) == (0.25, True, None)
    for override, kind in (("window=12.5", "int"), ("norm_bias=maybe", "bool"), ("dropout=high", "float")):
        with pytest.raises(UserError, match=f"^--config.model.{override}: must be of type {kind}, and '.*' is not$"):
            load_config(file, [f"--config.model.{override}"])


def test_an_architecture_has_its_own_fields_and_defaults():
    """What the config file changes is kept where the architecture has the field."""
    config = load_config("quickstart", ["--config.model.window=64", "--config.model.architecture=modernbert"])
    model = as_run_config(config).model
    assert (model.size, model.max_positions, model.window) == ("tiny", 128, 64)
    assert (model.config(50).layer_norm_epsilon, model.dropout) == (1e-5, 0) and not hasattr(model, "token_types")
    assert model.config(100).num_layers == 4 and model.config(100).window == 64
    with pytest.raises(UserError, match="has no field 'token_types'"):
        load_config("quickstart", ["--config.model.architecture=modernbert", "--config.model.token_types=1"])
    with pytest.raises(UserError, match="'pooling', which --config.model.architecture=modernbert adds; it has"):
        load_config("sentiment", ["--config.model.pooling=mean"])
    with pytest.raises(UserError, match="config.model.architecture='modern': allowed are 'bert', 'modernbert'"):
        load_config("quickstart", ["--config.model.architecture=modern"])
