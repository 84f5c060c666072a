"""Messages stay on one line and have no effect on a terminal."""
import logging
import pickle

import pytest

from spanbert_jax.common.errors import UserError, suggestion


@pytest.mark.parametrize("foreign, shown", [
    ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"), ("a\nb\r\tc", "a\\nb\\r\\tc"), ("\x9b31m", "\\x9b31m"),
    ("\u202egnp.exe", "\\u202egnp.exe"), ("\u2028", "\\u2028"), ("\ud800", "\\ud800"),
    ("naïve \u3000 \U0001f600 C:\\new", "naïve \u3000 \U0001f600 C:\\new")])
def test_control_characters_are_escaped(foreign, shown, caplog):
    error = UserError(f"name {foreign} is wrong")
    assert str(error) == f"name {shown} is wrong" == str(UserError(str(error)))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    logging.getLogger("spanbert_jax").warning("ignored %s: %d", foreign, 3)
    assert caplog.messages == [f"ignored {shown}: 3"]


def test_long_messages_are_abbreviated():
    message = str(UserError("x" * 50_000 + "; fetch it again"))
    assert len(message) < 10_000 and message.endswith("; fetch it again") and " ... " in message


def test_long_names_are_not_compared_in_full():
    assert suggestion("x" * 10**6, ["xx", "y" * 10**6]) == ""
