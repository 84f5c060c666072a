"""The rule baseline of coreference on a text by hand, and how good it is on real ones."""
import pytest

from spanbert_jax.tasks.metrics.coreference import coreference_metrics
from tests.paths import DATA, needs_data
from tests.tasks.coreference_baseline import read_with_rule_chains, rule_chains


def test_names_and_pronouns():
    words = "It rained . Tonight Mr. Darcy met the Bennets , and Jane saw him . MR. DARCY smiled tonight".split()
    chains = [[" ".join(words[first:end]) for first, end in chain] for chain in rule_chains(words)]
    assert chains == [["It"], ["Mr. Darcy", "MR. DARCY"], ["the Bennets"], ["Jane", "him"]]
    assert rule_chains([]) == []


@needs_data
@pytest.mark.parametrize("folder, f1", [("litbank/coref_conll", 35.8), ("ontogum", 24.5)])
def test_scores_of_real_documents(folder, f1):
    metrics = coreference_metrics(read_with_rule_chains(DATA / folder))
    assert metrics["conll_f1"] == pytest.approx(f1, abs=0.5)
