"""The rule baseline of coreference on a text by hand."""
from tests.tasks.coreference_baseline import rule_chains


def test_names_and_pronouns():
    words = "It rained . Tonight Mr. Darcy met the Bennets , and Jane saw him . MR. DARCY smiled tonight".split()
    chains = [[" ".join(words[first:end]) for first, end in chain] for chain in rule_chains(words)]
    assert chains == [["It"], ["Mr. Darcy", "MR. DARCY"], ["the Bennets"], ["Jane", "him"]]
    assert rule_chains([]) == []
