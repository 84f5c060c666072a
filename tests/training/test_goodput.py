"""Goodput: every moment of a run counts once, however its attempts end."""
import pytest

from spanbert_jax.training.display import format_goodput
from spanbert_jax.training.goodput import CATEGORIES, Goodput, GoodputRecord, TimeAtSave, read_record, write_record
from spanbert_jax.training.updates import Interval
from tests.disks import fill, small_disk


class World:
    """A clock set by hand, and the record that attempts store.

    Attributes:
      record: the last one; None before the first.
    """

    def __init__(self):
        self.now, self.record = 1000.0, None

    def attempt(self, step: int, starting: float = 0.0) -> Goodput:
        """A new attempt that resumes from a step after `starting` seconds."""
        goodput = Goodput(lambda: self.now)
        self.now += starting
        goodput.resume(self.record, step, self._store)
        return goodput

    def spend(self, goodput: Goodput, **seconds: float) -> None:
        """Spends time in some categories, one after another."""
        for category, spent in seconds.items():
            with goodput.during(category):
                self.now += spent

    def _store(self, record: GoodputRecord) -> None:
        self.record = record


def seconds(goodput: Goodput) -> dict[str, float]:
    """Seconds by category, without categories that took no time; checks their sum."""
    metrics = goodput.metrics()
    spent = {category: metrics[f"{category}_seconds"] for category in CATEGORIES}
    assert metrics["total_seconds"] == pytest.approx(sum(spent.values()))
    assert metrics["goodput"] == pytest.approx(spent["steps"] / metrics["total_seconds"])
    return {category: pytest.approx(spent) for category, spent in spent.items() if spent}


def test_time_in_a_nested_context_counts_in_its_own_category():
    world = World()
    goodput = world.attempt(0, starting=5)
    with goodput.during("steps"):
        world.spend(goodput, data=1, compile=20)
        world.now += 60
        with goodput.during("evaluation"):
            world.now += 8
            world.spend(goodput, compile=2)
            assert goodput.spent("steps", "data") == 61
        with pytest.raises(ValueError), goodput.during("checkpoint"):
            world.now += 3
            raise ValueError
        world.now += 1
    assert seconds(goodput) == {"starting": 5, "data": 1, "compile": 22, "steps": 61, "evaluation": 8, "checkpoint": 3}


def test_the_time_from_the_last_save_of_a_killed_attempt_to_the_next_attempt_is_lost():
    world = World()
    goodput = world.attempt(0, starting=5)
    world.spend(goodput, compile=10, steps=100, checkpoint=2)
    goodput.saved(50)
    world.spend(goodput, steps=40, evaluation=6)
    world.now += 30  # dead
    goodput = world.attempt(50, starting=4)
    world.spend(goodput, compile=3, steps=40)
    assert seconds(goodput) == {"starting": 9, "compile": 13, "steps": 140, "checkpoint": 2, "lost": 76}
    assert goodput.metrics()["total_seconds"] == world.now - 1000
    assert goodput.metrics()["restarts"] == 1


def test_a_stopped_attempt_loses_only_the_time_in_which_nothing_ran():
    world = World()
    goodput = world.attempt(0)
    world.spend(goodput, steps=10)
    goodput.saved(5)
    world.spend(goodput, steps=7, checkpoint=1)
    goodput.saved(8)
    world.now += 20
    assert seconds(world.attempt(8)) == {"steps": 17, "checkpoint": 1, "lost": 20}


def test_attempts_that_save_nothing_are_lost_completely():
    world = World()
    for _ in range(3):
        world.spend(world.attempt(0, starting=5), compile=10, steps=20)
    goodput = world.attempt(0, starting=5)
    assert seconds(goodput) == {"starting": 5, "lost": 105} and goodput.metrics()["restarts"] == 3
    world.spend(goodput, steps=1)
    goodput.saved(1)
    for _ in range(2):
        world.spend(world.attempt(1), steps=50)
    goodput = world.attempt(1)
    assert seconds(goodput) == {"starting": 5, "steps": 1, "lost": 205}
    assert goodput.metrics()["total_seconds"] == world.now - 1000


def test_resuming_from_an_older_checkpoint_loses_the_time_after_it():
    world = World()
    goodput = world.attempt(0)
    for step in (10, 20, 30):
        world.spend(goodput, steps=10)
        goodput.saved(step)
    assert seconds(world.attempt(10)) == {"steps": 10, "lost": 20}
    # The records of later steps are dropped.
    assert sorted(world.record.saved) == [0, 10]


def test_a_process_that_died_between_saving_and_recording_loses_the_time_since_the_record():
    world = World()
    goodput = world.attempt(0)
    world.spend(goodput, steps=10)
    goodput.saved(10)
    world.spend(goodput, steps=10)
    assert seconds(world.attempt(20)) == {"steps": 10, "lost": 10}


def test_the_time_after_a_finished_run_is_not_lost():
    world = World()
    goodput = world.attempt(0)
    world.spend(goodput, steps=10)
    goodput.saved(10)
    goodput.finish()
    world.now += 1e6
    goodput = world.attempt(10)
    assert seconds(goodput) == {"steps": 10} and goodput.metrics()["restarts"] == 0
    world.spend(goodput, steps=5)
    world.now += 3
    goodput = world.attempt(10)  # which has died
    assert seconds(goodput) == {"steps": 10, "lost": 8} and goodput.metrics()["restarts"] == 1


def test_a_clock_that_is_behind_gives_no_negative_time():
    world = World()
    goodput = world.attempt(0)
    world.spend(goodput, steps=10)
    goodput.saved(10)
    world.now -= 100
    assert seconds(world.attempt(10)) == {"steps": 10}


def test_the_record_stays_short_after_many_saves(tmp_path):
    world = World()
    goodput = world.attempt(0)
    for step in range(1, 1000):
        world.spend(goodput, steps=1)
        goodput.saved(step)
    write_record(tmp_path, world.record)
    assert (tmp_path / "goodput.json").stat().st_size < 50_000
    assert seconds(world.attempt(995)) == {"steps": 995, "lost": 4}
    world.record = read_record(tmp_path, pytest.fail)
    assert seconds(world.attempt(0)) == {"lost": 999}


def test_a_record_is_read_back(tmp_path):
    record = GoodputRecord(3, None, {0: TimeAtSave(1e9, dict.fromkeys(CATEGORIES, 0.0)), 7: TimeAtSave(
        1e9 + 0.123, dict.fromkeys(CATEGORIES, 1 / 3))})
    assert read_record(tmp_path, pytest.fail) is None
    write_record(tmp_path, record)
    assert read_record(tmp_path, pytest.fail) == record


@pytest.mark.parametrize("text", ["", "{}", "[]", "{\"restarts\": 1, \"finished\": null, \"saved\": {\"x\": {}}}",
                                  "{\"restarts\": 1, \"finished\": null, \"saved\": [1]}", "[" * 100_000, "\xff"])
def test_a_damaged_record_is_logged_and_ignored(tmp_path, text):
    (tmp_path / "goodput.json").write_text(text, encoding="latin-1")
    logged = []
    assert read_record(tmp_path, logged.append) is None
    assert len(logged) == 1 and str(tmp_path / "goodput.json") in logged[0] and "\n" not in logged[0]


def test_a_full_disk_keeps_the_previous_record(tmp_path):
    record = GoodputRecord(0, None, {0: TimeAtSave(1.0, dict.fromkeys(CATEGORIES, 0.0))})
    with small_disk(tmp_path / "disk", "64k") as disk:
        write_record(disk, record)
        fill(disk)
        write_record(disk, GoodputRecord(1, None, dict.fromkeys(range(1000), record.saved[0])))
        assert read_record(disk, pytest.fail) == record and sorted(path.name for path in disk.iterdir()) == [
            "filler", "goodput.json"]


def test_goodput_as_a_line():
    metrics = dict.fromkeys((f"{category}_seconds" for category in CATEGORIES), 0.0)
    metrics |= {"goodput": 0.8727, "total_seconds": 252.4, "steps_seconds": 220, "compile_seconds": 12,
                "data_seconds": 1, "checkpoint_seconds": 5.04, "evaluation_seconds": 8, "starting_seconds": 4.4,
                "lost_seconds": 2, "restarts": 1}
    assert format_goodput(metrics) == (
        "Goodput 87.3%: of 4 m 12 s since the first start, steps 3 m 40 s, compiling 12 s, data 1.0 s, "
        "checkpoints 5.0 s, evaluation 8.0 s, starting 4.4 s, lost to restarts 2.0 s (1 restart)")
    line = format_goodput(metrics | {"profile_seconds": 9.97, "lost_seconds": 36_610, "restarts": 2})
    assert "profiling 10 s, " in line and line.endswith("lost to restarts 10 h 10 m (2 restarts)")


def test_speeds_count_only_the_time_of_updates():
    world = World()
    goodput = world.attempt(0)
    interval = Interval(lambda: goodput.spent("steps", "data"))
    world.spend(goodput, compile=50, data=1, steps=2)
    interval.add({"tokens": 600})
    world.spend(goodput, evaluation=30, steps=3)
    interval.add({"tokens": 600})
    speeds = {"seconds_per_step": 3, "tokens_per_second": 200, "model_flops_per_second": 5}
    assert interval.speeds(15) == pytest.approx(speeds)
    interval.reset()
    world.spend(goodput, steps=1)
    interval.add({"tokens": 600})
    assert interval.speeds(15)["tokens_per_second"] == pytest.approx(600)
