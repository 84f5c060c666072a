"""Which config fields may change when a run resumes from a checkpoint."""
import copy

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.model import BertConfig, ComputeConfig, SpanBert, describe_model
from spanbert_jax.pretraining.config import PretrainingConfig, default_config
from spanbert_jax.training.resuming import check_changes, describe

DEFAULTS = default_config().to_dict()
CORPUS = {"tokenizer": "abc", "length": 64, "content": "123", "settings": {"blocks": "sentences"}}


def described(corpus=None, **fields):
    config = default_config()
    for field, value in fields.items():
        section, _, name = field.partition("__")
        if name:
            config[section][name] = value
        else:
            config[section] = value
    return {"config": config.to_dict(), "corpus": {**copy.deepcopy(CORPUS), **(corpus or {})}}


def test_nothing_changed():
    assert check_changes(5, described(), described(), force=False, defaults=DEFAULTS) == []


@pytest.mark.parametrize("change", [
    {"mesh__fsdp": 4}, {"mesh__zero1": True}, {"evaluation__every": "7 steps"}, {"checkpoint__keep": 9},
    {"skip__stop_after": 5}, {"train__log_every": 1}, {"compute__layers": "scanned"}, {"compute__remat": "full"},
    {"data__path": "/elsewhere"}, {"profile": "100-104"}, {"compute__attention": "plain"},
    {"trackers": ("json_lines",)},
    {"plugins": ("my_module",)}])
def test_changeable_fields_are_listed(change):
    (field, value), = change.items()
    line, = check_changes(5, described(), described(**change), force=False, defaults=DEFAULTS)
    assert line.startswith(f"config.{field.replace('__', '.')}: ") and line.endswith(f" -> {value!r}")


@pytest.mark.parametrize("change", [
    {"seed": 1}, {"train__batch_size": 8}, {"train__accumulation": 2}, {"compute__gradient_dtype": "bfloat16"},
    {"optimizer__learning_rate": 1.0}, {"optimizer__name": "lamb"}, {"masking__scheme": "token"},
    {"objectives__boundary_weight": 0.5}, {"model__dropout": 0.0}, {"compute__dtype": "float32"},
    {"corpus": {"length": 128}}, {"corpus": {"content": "456"}}, {"corpus": {"settings": {"blocks": "pairs"}}}])
def test_other_changes_are_refused_unless_forced(change):
    with pytest.raises(UserError, match=r"checkpoint of step 5: .* -> .*--force"):
        check_changes(5, described(), described(**change), force=False, defaults=DEFAULTS)
    assert len(check_changes(5, described(), described(**change), force=True, defaults=DEFAULTS)) == 1


def test_changes_of_content_are_named_without_hashes():
    before, after = (described(corpus={"content": character * 32}) for character in "ab")
    assert check_changes(5, before, after, force=True, defaults=DEFAULTS) == ["corpus.content: changed"]
    del before["corpus"]["content"]
    assert check_changes(5, before, after, force=True, defaults=DEFAULTS) == ["corpus.content: None -> (content)"]


def test_all_refused_changes_are_named_at_once():
    with pytest.raises(UserError, match=r"config\.seed: 0 -> 3; config\.train\.batch_size: 256 -> 8"):
        check_changes(5, described(), described(seed=3, train__batch_size=8, train__log_every=1), force=False,
                      defaults=DEFAULTS)


def test_another_tokenizer_is_refused_even_if_forced():
    with pytest.raises(UserError, match="another tokenizer"):
        check_changes(5, described(), described(corpus={"tokenizer": "xyz"}), force=True, defaults=DEFAULTS)


@pytest.mark.parametrize("schedule,allowed", [("constant", True), ("linear", False)])
def test_a_run_may_be_lengthened_if_its_schedule_does_not_depend_on_the_length(schedule, allowed):
    before = described(schedule__name=schedule)
    after = described(schedule__name=schedule, train__duration="9M steps")
    if allowed:
        assert len(check_changes(5, before, after, force=False, defaults=DEFAULTS)) == 1
    else:
        with pytest.raises(UserError, match="train.duration"):
            check_changes(5, before, after, force=False, defaults=DEFAULTS)


def test_a_warmup_in_percent_depends_on_the_length_of_the_run():
    fields = {"schedule__name": "constant", "schedule__warmup": "10 percent"}
    with pytest.raises(UserError, match="train.duration"):
        check_changes(5, described(**fields), described(**fields, train__duration="9M steps"), force=False,
                      defaults=DEFAULTS)


def test_a_checkpoint_with_old_field_names_is_compared_by_the_new_ones():
    before = described()
    config = before["config"]
    for name in ("dtype", "attention", "layers", "remat"):
        config["model"][name] = config["compute"].pop(name)
    config["train"]["gradient_dtype"] = config.pop("compute")["gradient_dtype"]
    schedule = config.pop("schedule")
    config["optimizer"] |= {"schedule": schedule.pop("name"), **schedule}
    assert check_changes(5, before, described(), force=False, defaults=DEFAULTS) == []
    config["optimizer"]["warmup"] = "3 steps"
    with pytest.raises(UserError, match="config.schedule.warmup: '3 steps' -> '10k steps'"):
        check_changes(5, before, described(), force=False, defaults=DEFAULTS)


def test_a_field_that_did_not_exist_had_its_default():
    before = described()
    del before["config"]["skip"], before["config"]["masking"]["scheme"]
    assert check_changes(5, before, described(), force=False, defaults=DEFAULTS) == []


def test_a_field_of_the_model_that_is_not_set_is_what_older_checkpoints_store_as_its_default():
    def described_model(architecture, **fields):
        config = default_config(architecture)
        config.model.update(fields)
        return {"config": config.to_dict(), "corpus": CORPUS}

    before = described_model("modernbert", max_positions=8192, dropout=0.0, window=128, pooling="", head_bias=False,
                             global_rotary_base=0.0, boundary_features=200)
    del before["config"]["model"]["global_every"]
    assert check_changes(5, before, described_model("modernbert"), force=False, defaults=DEFAULTS) == []
    with pytest.raises(UserError, match="config.model.dropout: 0.0 -> 0.1; config.model.pooling: 'cls' -> 'mean'"):
        check_changes(5, before, described_model("modernbert", dropout=0.1, pooling="mean"), force=False,
                      defaults=DEFAULTS)


def test_the_stored_model_does_not_depend_on_compute_options():
    plain, other = SpanBert(config := BertConfig(vocab_size=100)), SpanBert(config, compute=ComputeConfig(
        attention="splash", gradient_dtype="bfloat16"))
    assert describe(PretrainingConfig(), CORPUS, describe_model(other)) == describe(
        PretrainingConfig(), CORPUS, describe_model(plain))
