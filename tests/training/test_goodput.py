"""The time of a run: every moment counts once, whatever becomes of its attempts."""
import pytest

from spanbert_jax.training.display import goodput_words
from spanbert_jax.training.goodput import CATEGORIES, Account, Record, Saved, read_record, write_record
from spanbert_jax.training.timer import Timer
from tests.disks import fill, small_disk


class World:
    """A clock that is set by hand, and the record that attempts leave in it.

    Attributes:
      record: the newest; None before the first.
    """

    def __init__(self):
        self.now, self.record = 1000.0, None

    def attempt(self, step: int, starting: float = 0.0) -> Account:
        """A new attempt that goes on from a step after `starting` seconds."""
        account = Account(lambda: self.now)
        self.now += starting
        account.resume(self.record, step, self._keep)
        return account

    def spend(self, account: Account, **seconds: float) -> None:
        """Lets an attempt do some things, one after another."""
        for category, spent in seconds.items():
            with account.during(category):
                self.now += spent

    def _keep(self, record: Record) -> None:
        self.record = record


def seconds(account: Account) -> dict[str, float]:
    """What has been spent, without the categories that took no time, after a look at the sum."""
    figures = account.figures()
    spent = {category: figures[f"{category}_seconds"] for category in CATEGORIES}
    assert figures["total_seconds"] == pytest.approx(sum(spent.values()))
    assert figures["goodput"] == pytest.approx(spent["steps"] / figures["total_seconds"])
    return {category: pytest.approx(spent) for category, spent in spent.items() if spent}


def test_what_is_done_within_something_else_counts_as_itself():
    world = World()
    account = world.attempt(0, starting=5)
    with account.during("steps"):
        world.spend(account, data=1, compile=20)
        world.now += 60
        with account.during("evaluation"):
            world.now += 8
            world.spend(account, compile=2)
            assert account.spent("steps", "data") == 61
        with pytest.raises(ValueError), account.during("checkpoint"):
            world.now += 3
            raise ValueError
        world.now += 1
    assert seconds(account) == {"starting": 5, "data": 1, "compile": 22, "steps": 61, "evaluation": 8, "checkpoint": 3}


def test_what_a_killed_attempt_did_after_its_last_save_is_lost_with_the_time_until_the_next():
    world = World()
    account = world.attempt(0, starting=5)
    world.spend(account, compile=10, steps=100, checkpoint=2)
    account.saved(50)
    world.spend(account, steps=40, evaluation=6)
    world.now += 30  # dead
    account = world.attempt(50, starting=4)
    world.spend(account, compile=3, steps=40)
    assert seconds(account) == {"starting": 9, "compile": 13, "steps": 140, "checkpoint": 2, "lost": 76}
    assert account.figures()["total_seconds"] == world.now - 1000
    assert account.figures()["restarts"] == 1


def test_a_stopped_attempt_loses_no_more_than_the_time_in_which_nothing_ran():
    world = World()
    account = world.attempt(0)
    world.spend(account, steps=10)
    account.saved(5)
    world.spend(account, steps=7, checkpoint=1)
    account.saved(8)
    world.now += 20
    assert seconds(world.attempt(8)) == {"steps": 17, "checkpoint": 1, "lost": 20}


def test_attempts_that_save_nothing_are_lost_as_a_whole():
    world = World()
    for _ in range(3):
        world.spend(world.attempt(0, starting=5), compile=10, steps=20)
    account = world.attempt(0, starting=5)
    assert seconds(account) == {"starting": 5, "lost": 105} and account.figures()["restarts"] == 3
    world.spend(account, steps=1)
    account.saved(1)
    for _ in range(2):
        world.spend(world.attempt(1), steps=50)
    account = world.attempt(1)
    assert seconds(account) == {"starting": 5, "steps": 1, "lost": 205}
    assert account.figures()["total_seconds"] == world.now - 1000


def test_an_older_checkpoint_loses_what_came_after_it():
    world = World()
    account = world.attempt(0)
    for step in (10, 20, 30):
        world.spend(account, steps=10)
        account.saved(step)
    assert seconds(world.attempt(10)) == {"steps": 10, "lost": 20}
    # Nor does what was noted of the later ones count any more.
    assert sorted(world.record.saved) == [0, 10]


def test_a_process_that_died_between_saving_and_noting_it_loses_a_little_more():
    world = World()
    account = world.attempt(0)
    world.spend(account, steps=10)
    account.saved(10)
    world.spend(account, steps=10)
    assert seconds(world.attempt(20)) == {"steps": 10, "lost": 10}


def test_the_time_after_a_finished_run_is_not_lost():
    world = World()
    account = world.attempt(0)
    world.spend(account, steps=10)
    account.saved(10)
    account.finish()
    world.now += 1e6
    account = world.attempt(10)
    assert seconds(account) == {"steps": 10} and account.figures()["restarts"] == 0
    world.spend(account, steps=5)
    world.now += 3
    account = world.attempt(10)  # which has died
    assert seconds(account) == {"steps": 10, "lost": 8} and account.figures()["restarts"] == 1


def test_a_clock_that_is_behind_makes_no_time_negative():
    world = World()
    account = world.attempt(0)
    world.spend(account, steps=10)
    account.saved(10)
    world.now -= 100
    assert seconds(world.attempt(10)) == {"steps": 10}


def test_a_run_that_has_been_saved_very_often_leaves_a_short_record(tmp_path):
    world = World()
    account = world.attempt(0)
    for step in range(1, 1000):
        world.spend(account, steps=1)
        account.saved(step)
    write_record(tmp_path, world.record)
    assert (tmp_path / "goodput.json").stat().st_size < 50_000
    assert seconds(world.attempt(995)) == {"steps": 995, "lost": 4}
    world.record = read_record(tmp_path, pytest.fail)
    assert seconds(world.attempt(0)) == {"lost": 999}


def test_a_record_is_read_back(tmp_path):
    record = Record(3, None, {0: Saved(1e9, dict.fromkeys(CATEGORIES, 0.0)), 7: Saved(
        1e9 + 0.123, {category: 1 / 3 for category in CATEGORIES})})
    assert read_record(tmp_path, pytest.fail) is None
    write_record(tmp_path, record)
    assert read_record(tmp_path, pytest.fail) == record


@pytest.mark.parametrize("text", ["", "{}", "[]", "{\"restarts\": 1, \"finished\": null, \"saved\": {\"x\": {}}}",
                                  "{\"restarts\": 1, \"finished\": null, \"saved\": [1]}", "[" * 100_000, "\xff"])
def test_a_damaged_record_is_told_of_and_counts_for_nothing(tmp_path, text):
    (tmp_path / "goodput.json").write_text(text, encoding="latin-1")
    said = []
    assert read_record(tmp_path, said.append) is None
    assert len(said) == 1 and str(tmp_path / "goodput.json") in said[0] and "\n" not in said[0]


def test_a_full_disk_keeps_the_record_before(tmp_path):
    record = Record(0, None, {0: Saved(1.0, dict.fromkeys(CATEGORIES, 0.0))})
    with small_disk(tmp_path / "disk", "64k") as disk:
        write_record(disk, record)
        fill(disk)
        write_record(disk, Record(1, None, {step: record.saved[0] for step in range(1000)}))
        assert read_record(disk, pytest.fail) == record and sorted(path.name for path in disk.iterdir()) == [
            "filler", "goodput.json"]


def test_the_line():
    figures = dict.fromkeys((f"{category}_seconds" for category in CATEGORIES), 0.0)
    figures |= {"goodput": 0.8727, "total_seconds": 252.4, "steps_seconds": 220, "compile_seconds": 12,
                "data_seconds": 1, "checkpoint_seconds": 5.04, "evaluation_seconds": 8, "starting_seconds": 4.4,
                "lost_seconds": 2, "restarts": 1}
    assert goodput_words(figures) == (
        "Goodput 87.3%: of 4 m 12 s since the first start, steps 3 m 40 s, compiling 12 s, data 1.0 s, "
        "checkpoints 5.0 s, evaluation 8.0 s, starting 4.4 s, lost to restarts 2.0 s (1 restart)")
    words = goodput_words(figures | {"profile_seconds": 9.97, "lost_seconds": 36_610, "restarts": 2})
    assert "profiling 10 s, " in words and words.endswith("lost to restarts 10 h 10 m (2 restarts)")


def test_speeds_leave_out_what_is_no_update():
    world = World()
    account = world.attempt(0)
    timer = Timer(lambda: account.spent("steps", "data"))
    world.spend(account, compile=50, data=1, steps=2)
    timer.lap(600)
    world.spend(account, evaluation=30, steps=3)
    timer.lap(600)
    speeds = {"seconds_per_step": 3, "tokens_per_second": 200, "model_flops_per_second": 5}
    assert timer.speeds(15) == pytest.approx(speeds)
    timer.reset()
    world.spend(account, steps=1)
    timer.lap(600)
    assert timer.speeds(15)["tokens_per_second"] == pytest.approx(600)
