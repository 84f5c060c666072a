"""The lists of deliberate faults, of fast and of slow tests fit the source."""
import pytest

from tests.conftest import FAST, SLOW, TESTS
from tests.mutations import MUTATIONS, Mutation


def test_names_differ():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_no_mutation_is_stale(mutation: Mutation):
    assert mutation.stale() is None
    assert mutation.old != mutation.new


def test_files_named_in_conftest_exist():
    for name in (*FAST, *SLOW):
        file, _, test = name.partition("::")
        assert (TESTS / file).exists() and f"def {test}" in (TESTS / file).read_text(), name
