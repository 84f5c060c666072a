"""Mixtures of masking schemes, written as text."""
import math
import re

from spanbert_jax.common.settings import require
from spanbert_jax.masking.schemes import SCHEMES

_TERM = re.compile(r"(?:(?P<share>[0-9.eE-]+)\*)?(?P<name>\w+)")


def scheme_shares(scheme: str, field: str = "config.masking.scheme") -> tuple[tuple[str, float], ...]:
    """Reads "a", "a+b" or "0.8*a+0.2*b" as ((name, probability), ...); the probabilities sum to 1.

    Args:
      field: name of the setting, for messages.

    Raises:
      UserError: the text has another form, names no registered scheme, or its probabilities do not sum to 1.
    """
    allowed = (f"allowed are {', '.join(SCHEMES.names())}, schemes of modules in config.plugins, and mixtures as a+b "
               "or 0.8*a+0.2*b with shares that sum to 1")
    terms = [match for term in scheme.split("+") if (match := _TERM.fullmatch(term.strip()))]
    require(len(terms) == scheme.count("+") + 1 and all(term["name"] in SCHEMES for term in terms), field, scheme,
            allowed)
    given = [term["share"] for term in terms]
    try:
        shares = [1 / len(terms)] * len(terms) if not any(given) else [float(share or "nan") for share in given]
    except ValueError:
        shares = [math.nan]
    # NaN fails both comparisons.
    require(abs(sum(shares) - 1) < 1e-6 and min(shares) > 0, field, scheme, allowed)
    return tuple((term["name"], share) for term, share in zip(terms, shares))
