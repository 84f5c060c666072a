"""Regular expressions of tokenizers: a check that the library, which backtracks, matches them in bounded time.

Published tokenizers, such as those of GPT-2, Llama 3, Qwen and BLOOM, list alternatives of a few character classes with
quantifiers. Of the syntax of Oniguruma, this is what is allowed.
"""
import dataclasses
import re

from spanbert_jax.common.errors import UserError

_MOST_CHARACTERS = 2_000
_MOST_REPEATS = 1_000  # of {n,m}
_MOST_REPEATED = 16  # characters of a repeated group
_BOUNDED = 16  # quantifiers of up to so many repeats count by their choices, others as unbounded
_MOST_CHOICES = 1_000  # products of the choices of bounded quantifiers, in one alternative
# In one alternative, unbounded quantifiers before the last part that may fail. For each, every length is tried from
# every character: with one, the time is at most the square of the length of a text, with two its cube.
_MOST_RETRIED = 1
_MOST_RETRIED_CHOICES = 64  # then
_PART = re.compile(r"""
    (?P<anchor> \^ | \$ | \\[AzZbBG] | \(\?i\) )
  | (?P<atom> \\[pP]\{\^?[\w\ -]{1,40}\} | \\x\{[0-9A-Fa-f]{1,6}\} | \\x[0-9A-Fa-f]{2} | \\u[0-9A-Fa-f]{4}
      | \\[dDsSwWhHntrfve] | \\[^\w\s] | \\[ ]
      | \[ \^?+ (?: [^][\\] | \\. | \[ (?: [^][\\] | \\. )++ \] )++ \]
      | [^][\\()|^$?*+{] )
  | (?P<look> \(\?<?[=!] )
  | (?P<open> \( (?: \?(?:[:>]|i:) | (?!\?) ) )
  | (?P<close> \) )
  | (?P<or> \| )
""", re.VERBOSE | re.DOTALL)
_QUANTIFIER = re.compile(r"(?:([?*+])[?+]?|\{(\d{1,9})?(,)?(\d{1,9})?\}\??)")
_AGAIN = re.compile(r"[?*+]|\{")


@dataclasses.dataclass
class _Alternative:
    """What a part of a pattern, up to the next | or ), matches."""
    least: int = 0  # characters
    unbounded: int = 0  # quantifiers
    retried: int = 0  # of these, those before the last part that may fail
    fails: bool = False  # whether it may not match
    choices: int = 1  # of bounded quantifiers
    groups: bool = False  # whether it has a repeated group


@dataclasses.dataclass
class _Group:
    """An open group."""
    look: bool
    done: list[_Alternative] = dataclasses.field(default_factory=list)
    now: _Alternative = dataclasses.field(default_factory=_Alternative)


def shortest_match(pattern: str) -> int:
    """The fewest characters that a pattern matches. Raises UserError if it is not of the allowed syntax.

    Forbidden are back references, calls, and a repeated group whose content varies, such as (a+)+ or (a|b)*, which
    takes exponential time.
    """
    if len(pattern) > _MOST_CHARACTERS:
        raise _refused(pattern, f"{_MOST_CHARACTERS:,} characters are the most")
    groups, place = [_Group(look=False)], 0
    while place < len(pattern):
        part = _PART.match(pattern, place)
        if part is None:
            raise _refused(pattern, f"{pattern[place:place + 8]!r} is not part of the syntax that tokenizers use")
        place, kind = part.end(), part.lastgroup
        if kind in ("look", "open"):
            groups.append(_Group(kind == "look"))
        elif kind == "or":
            groups[-1].done.append(groups[-1].now)
            groups[-1].now = _Alternative()
        elif kind == "close" and len(groups) == 1:
            raise _refused(pattern, "a parenthesis is closed that is not open")
        elif kind == "anchor":
            _fail(groups[-1].now, 0, pattern)
        else:
            content = _closed(groups.pop()) if kind == "close" else _Alternative(least=1, fails=True)
            place = _append(groups[-1].now, content, pattern, place)
    if len(groups) > 1:
        raise _refused(pattern, "a parenthesis is not closed")
    return _closed(groups[0]).least


def _closed(group: _Group) -> _Alternative:
    """What a whole group matches. The alternatives of several are choices too."""
    every = [*group.done, group.now]
    return _Alternative(0 if group.look else min(one.least for one in every), max(one.unbounded for one in every),
                        max(one.retried for one in every), group.look or all(one.fails for one in every),
                        sum(one.choices for one in every), any(one.groups for one in every))


def _append(now: _Alternative, content: _Alternative, pattern: str, place: int) -> int:
    """Adds an atom or a group, and its quantifier at a place, to an alternative. Returns the place behind."""
    least, most = 1, 1
    quantifier = _QUANTIFIER.match(pattern, place)
    if quantifier:
        place = quantifier.end()
        sign, low, comma, high = quantifier.groups()
        least = {"?": 0, "*": 0, "+": 1}[sign] if sign else int(low or 0)
        most = (1 if sign == "?" else _MOST_REPEATS + 1) if sign else (
            int(high) if high else _MOST_REPEATS + 1 if comma else least)
        if not sign and max(least, int(high or 0)) > _MOST_REPEATS:
            raise _refused(pattern, f"{_MOST_REPEATS:,} repeats are the most")
    if _AGAIN.match(pattern, place):
        raise _refused(pattern, "a quantifier follows another one")
    is_group = content != _Alternative(least=1, fails=True)
    if most > 1 and is_group and (content.unbounded or content.choices > 1 or content.groups):
        raise _refused(pattern, "a group that can match in several ways is repeated, which could take exponential time")
    if most > 1 and content.least > _MOST_REPEATED:
        raise _refused(pattern, f"a group of more than {_MOST_REPEATED} characters is repeated")
    now.least += least * content.least
    now.groups |= content.groups or (is_group and most > 1)
    now.choices *= content.choices * (1 if most - least > _BOUNDED else max(1, most - least + 1))
    if least and content.fails:
        _fail(now, content.retried, pattern)
    now.retried = max(now.retried, content.retried)
    now.unbounded += content.unbounded + (most - least > _BOUNDED)
    if now.choices > (_MOST_RETRIED_CHOICES if now.retried else _MOST_CHOICES):
        raise _refused(pattern, "an alternative has too many bounded quantifiers")
    return place


def _fail(now: _Alternative, retried: int, pattern: str) -> None:
    """Adds a part that may fail, in which so many unbounded quantifiers are retried, to an alternative."""
    now.fails, now.retried = True, now.unbounded + retried
    if now.retried > _MOST_RETRIED:
        raise _refused(pattern, f"an alternative has more than {_MOST_RETRIED} unbounded quantifier before a part that "
                                "may not match")


def _refused(pattern: str, why: str) -> UserError:
    return UserError(f"the regular expression {pattern!r:.80} is not used: {why}")
