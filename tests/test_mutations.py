"""The list of deliberate faults fits the source."""
import pytest

from tests.mutations import MUTATIONS, Mutation


def test_there_are_sixty_with_different_names():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) == 60


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_no_mutation_is_stale(mutation: Mutation):
    assert mutation.stale() is None
    assert mutation.old != mutation.new
