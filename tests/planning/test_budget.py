"""Choosing a model size by a budget of chips, time and tokens."""
import jax
import pytest
from flax import linen as nn

from spanbert_jax.commands.main import main
from spanbert_jax.common.errors import UserError
from spanbert_jax.model import BertConfig, PretrainingHeads, SpanBert, train_step_flops
from spanbert_jax.planning.budget import UTILIZATION, estimate_sizes, largest_feasible, parse_budget
from spanbert_jax.training.experiment import parameter_count
from spanbert_jax.training.state import init_params


@pytest.mark.parametrize("size", ["mini", "large"])
def test_parameters_are_those_of_the_unrolled_model_of_a_run(size):
    model = BertConfig.named(size, vocab_size=28_996)
    params = nn.unbox(jax.eval_shape(lambda: init_params(SpanBert(model), jax.random.key(0))))
    estimate = next(each for each in estimate_sizes(parse_budget("8 v5e chips, 1 day")) if each.size == size)
    assert estimate.parameters == parameter_count(params, model)


def test_budgets_are_parsed_in_any_order_and_unit():
    budget = parse_budget("20B tokens, 32 v5e chips, 1.5 days")
    assert (budget.chips, budget.kind, budget.seconds, budget.tokens) == (32, "v5e", 129_600, 20e9)
    assert parse_budget("8 H100, 2 weeks").seconds == 14 * 86400
    assert parse_budget("8 h100 GPUs, 500M tokens").tokens == 5e8


@pytest.mark.parametrize("text,part", [
    ("3 days", "give a number of chips"), ("32 v5e chips", "a time or a number of tokens"),
    ("32 v7 chips, 3 days", "'32 v7 chips' is neither a number of chips"), ("32 v5e, 3 fortnights", "'3 fortnights'"),
    ("32 v5e, 3 days, 0 tokens", "'0 tokens': the number of tokens must be above 0"),
    ("32 v5e, 0.0 days", "'0.0 days': the time must be above 0"), ("0 v5e, 1 day", "chips must be above 0"),
    ("32 v5e, 2 days, 3 hours", "'3 hours': is a second time"), ("8 h100, 8 v5e, 1 day", "'8 v5e': is a second number"),
    ("32 v5e, 1.2.3 days", "'1.2.3' is not a number"), ("", "give a number of chips")])
def test_malformed_budgets_give_a_one_line_error(text, part):
    with pytest.raises(UserError) as error:
        parse_budget(text)
    assert part in str(error.value) and "\n" not in str(error.value)


def test_time_and_tokens_follow_from_the_model_flops():
    budget = parse_budget("32 v5e chips, 3 days, 20B tokens")
    base = next(each for each in estimate_sizes(budget) if each.size == "base")
    per_token = train_step_flops(BertConfig.named("base", vocab_size=28_996), 1, 512, 77, PretrainingHeads()) / 512
    seconds = 20e9 * per_token / (32 * 197e12 * UTILIZATION["v5e"])
    assert base.seconds == pytest.approx(seconds) and base.tokens == pytest.approx(20e9 * 3 * 86400 / seconds)


def test_the_largest_feasible_size_is_chosen():
    def largest(text: str) -> str | None:
        budget = parse_budget(text)
        estimate = largest_feasible(budget, estimate_sizes(budget))
        return estimate and estimate.size

    assert largest("32 v5e chips, 3 days, 20B tokens") == "large"
    assert largest("8 v5e chips, 1 days, 200B tokens") in ("mini", "small", "medium")
    assert largest("1 v5e chips, 1 minute, 20B tokens") is None


def test_prices_give_the_cost_of_the_time_and_of_the_tokens(capsys):
    assert main(["plan", "--budget", "8 h200 GPUs, 3 days", "--price", "v5e=1,h200=2.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("cost of the time") and lines[2].split()[-1] == "1,440"  # 8 x 72 hours x 2.5
    assert main(["plan", "--budget", "8 h200, 20B tokens", "--price", "h200=2.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    seconds = estimate_sizes(parse_budget("8 h200, 20B tokens"))[-1].seconds
    large = next(line for line in lines if "large" in line)
    assert lines[0].endswith("cost of the tokens") and large.split()[-1] == f"{8 * seconds / 3600 * 2.5:,.0f}"
    for given, message in ((["2"], "'2': write it as v5e=1.2, above 0, with one of v4, "),
                           (["h200=0"], "'h200=0': write it as"), (["h200=1,v4=1,h200=2"], "h200 is given twice"),
                           (["h200=1", "--price", "h200=1"], "'h200=1': the price of h200 is given twice")):
        assert main(["plan", "--budget", "8 h200, 3 days", "--price", *given]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("argument", ["--config=modern", "--topology=v5e:2x2", "--search", "--config.model.size=tiny"])
def test_a_budget_is_given_without_a_config(argument, capsys):
    with pytest.raises(SystemExit):
        main(["plan", "--budget", "8 h200, 3 days", argument])
    assert "give either --budget, which reads no config, or --config and --topology" in capsys.readouterr().err


def test_a_budget_of_this_machine_follows_from_its_speed_and_free_memory(monkeypatch):
    monkeypatch.setattr("spanbert_jax.planning.budget.measure_flops", lambda: 100e9)
    monkeypatch.setattr("spanbert_jax.planning.hardware.free_host_memory", lambda: 1e9)
    assert not estimate_sizes(parse_budget("1 cpu, 8 hours"))[-1].fits
    monkeypatch.setattr("spanbert_jax.planning.hardware.free_host_memory", lambda: 16e9)
    tiny, *_, large = estimate_sizes(parse_budget("1 cpu, 8 hours"))
    per_token = train_step_flops(BertConfig.named("tiny", vocab_size=28_996), 1, 512, 77, PretrainingHeads()) / 512
    assert tiny.tokens_per_second == pytest.approx(100e9 * UTILIZATION["cpu"] / per_token) and large.fits


def test_the_command_prints_a_row_for_each_size(capsys):
    assert main(["plan", "--budget", "32 v5e chips, 3 days, 20B tokens"]) == 0
    printed = capsys.readouterr().out
    assert all(f" {size} " in printed for size in BertConfig.sizes) and "Largest feasible size: large." in printed
    assert "--topology v5e:4x8" in printed
