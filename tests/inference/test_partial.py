"""An incomplete output is continued only if it is ours, intact and made from the same; nothing else is written to."""
import os

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.inference.partial import open_partial, partial_difference
from tests.damage import flip_bit

IDENTITY = {"model": "m1", "input": "i1"}
LINES = ['{"id": "1", "label": "red"}\n', '{"id": "2", "label": "blue"}\n']


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.jsonl"


@pytest.fixture
def begun(output):
    """The path of an incomplete output of two lines."""
    with open_partial(output, IDENTITY, []) as partial:
        for line in LINES:
            partial.append(line)
    return output.with_name("out.jsonl.partial")


def continued(output, identity=None) -> int:
    """The number of lines that a call continues from."""
    with open_partial(output, identity or IDENTITY, []) as partial:
        return partial.lines


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_lines_are_continued_and_completed(begun, output, caplog):
    with open(begun, "a") as file:
        file.write('{"id": "3", "la')  # killed before the manifest had it
    with open_partial(output, IDENTITY, []) as partial:
        assert partial.lines == 2
        partial.keep(1)
        partial.append("more\n")
        partial.verify()
        partial.complete(output)
    assert contents(output.parent) == {"out.jsonl": (LINES[0] + "more\n").encode()} and not caplog.text


def test_every_flipped_bit_is_noticed_and_the_output_set_aside(begun, output, caplog):
    manifest = begun.with_name("out.jsonl.partial.of")
    whole = contents(output.parent)
    for file, step in ((begun, 1), (manifest, 7)):
        for bit in range(0, 8 * file.stat().st_size, step):
            flip_bit(file, bit)
            assert partial_difference(begun) == f"{file.name}: contents differ", bit
            flip_bit(file, bit)
    assert partial_difference(begun) is None
    flip_bit(begun, 99)
    damaged = begun.read_bytes()
    assert continued(output) == 0
    assert [record.message for record in caplog.records] == [
        f"{begun}: out.jsonl.partial: contents differ; it is now out.jsonl.partial-1, and prediction starts from the "
        "first input"]
    assert contents(output.parent).items() >= {
        "out.jsonl.partial-1": damaged, "out.jsonl.partial-1.of": whole[manifest.name], begun.name: b""}.items()


@pytest.mark.parametrize("changed,named", [
    ({"model": "m2"}, "model"), ({"input": "i2"}, "input"), ({"model": "m2", "input": "i2"}, "model, input")])
def test_what_was_made_from_something_else_is_set_aside(begun, output, caplog, changed, named):
    assert continued(output) == 2
    for number in (1, 2):
        assert continued(output, IDENTITY | changed) == 0
        assert f"it was made with another {named}; it is now out.jsonl.partial-{number}, and" in caplog.text
        assert continued(output) == 0
    aside = contents(output.parent)
    assert aside["out.jsonl.partial-1"] == "".join(LINES).encode()
    assert aside["out.jsonl.partial-2"] == aside["out.jsonl.partial-3"] == b""
    assert partial_difference(output.with_name("out.jsonl.partial-1")) is None


def test_one_of_an_older_version_is_set_aside(output, caplog):
    output.with_name("out.jsonl.partial").write_text("".join(LINES))
    output.with_name("out.jsonl.partial.of").write_text("5f" * 32)
    assert continued(output) == 0 and output.with_name("out.jsonl.partial-1").read_text() == "".join(LINES)


@pytest.mark.parametrize("ending", ["partial", "partial.of"])
@pytest.mark.parametrize("make", ["text", "link", "dangling", "folder", "pipe"])
def test_what_no_call_has_written_is_neither_changed_nor_followed(output, ending, make):
    own, planted = output.with_name("own.txt"), output.with_name(f"out.jsonl.{ending}")
    own.write_text("my notes\n")
    if make == "text":
        planted.write_text("my notes\n")
    elif make == "folder":
        planted.mkdir()
    elif make == "pipe":
        os.mkfifo(planted)
    else:
        planted.symlink_to(own if make == "link" else output.with_name("nothing"))
    before = sorted(output.parent.iterdir())
    with pytest.raises(UserError, match="is no file that predict has written.*; move it away, or give another output"):
        continued(output)
    assert sorted(output.parent.iterdir()) == before and own.read_text() == "my notes\n"


def test_an_input_is_not_written_to(begun, output):
    for name in (begun, output.with_name("link")):
        if not name.exists():
            name.symlink_to(begun)
        with pytest.raises(UserError, match=f"{name}: is an input and the incomplete output of {output}; give another"):
            with open_partial(output, IDENTITY, [str(name)]):
                pass
    assert begun.read_text() == "".join(LINES)


def test_an_output_that_appears_meanwhile_is_not_replaced(begun, output):
    with open_partial(output, IDENTITY, []) as partial:
        output.write_text("mine")
        with pytest.raises(FileExistsError):
            partial.complete(output)
    assert output.read_text() == "mine"
    with pytest.raises(UserError, match="out.jsonl: exists already and is not overwritten"):
        continued(output)
    output.unlink()
    assert continued(output) == 2


def test_damage_while_it_is_written_is_noticed_at_the_end(begun, output):
    with open_partial(output, IDENTITY, []) as partial:
        flip_bit(begun, 3)
        with pytest.raises(UserError, match="out.jsonl.partial: contents differ: changed after it was written"):
            partial.verify()


def test_two_calls_do_not_write_the_same_output(begun, output):
    with open_partial(output, IDENTITY, []) as partial:
        with pytest.raises(UserError, match="out.jsonl.partial: another call is writing it"):
            continued(output, {"model": "m2", "input": "i1"})
        partial.append("more\n")
    assert continued(output) == 3
