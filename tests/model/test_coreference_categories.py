"""Categories of pairs of mentions against sets of words."""
import jax
import numpy as np
import pytest

from spanbert_jax.model.coreference_categories import CATEGORIES, mention_words, pair_categories
from spanbert_jax.tasks.coreference_words import word_class
from tests.model.test_coreference import defined_category


def categories_of(mentions, longest=8):
    widths = np.array([len(mention) for mention in mentions])
    classes = np.array([(mention * longest)[:longest] for mention in mentions])  # classes beyond the end do not count
    words = jax.jit(mention_words)(classes, widths)
    return np.asarray(jax.jit(pair_categories)(words, words))


@pytest.mark.parametrize("vocabulary", [5, 200])
def test_categories_are_those_of_sets_of_words(vocabulary):
    random = np.random.default_rng(vocabulary)
    names = [word_class(f"name{number}") for number in range(vocabulary)]
    mentions = [random.choice([0, *names], random.integers(1, 5)).tolist() for _ in range(150)]
    mentions += [[pronoun] for pronoun in (1, 2, 3, 3, 2)] + [[1, 2], [names[0], 1]]
    expected = [[defined_category(mention, antecedent) for antecedent in mentions] for mention in mentions]
    found = categories_of(mentions)
    assert set(np.unique(expected)) == set(range(len(CATEGORIES)))
    # Contained words are found by bits that other words may share; the rest is exact.
    differ = found != np.array(expected)
    assert set(zip(found[differ], np.array(expected)[differ])) <= {(4, 5)} and differ.mean() < 0.02


@pytest.mark.parametrize(("mention", "antecedent", "category"), [
    ("She", "herself", "agreeing pronouns"), ("she", "he", "other pronouns"), ("her", "Ann", "pronoun and other"),
    ("the old Dog", "an old dog 's", "same words"), ("Mrs. Dalloway", "Clarissa Dalloway Mrs.", "contained words"),
    ("Ann Lee", "Ann Bell", "other"), ("her dog", "her", "pronoun and other"), ("her dog", "his dog", "same words"),
    (". ,", "the", "other"), ("\u0418\u0432\u0430\u043d", "\u0438\u0432\u0430\u043d", "same words")])
def test_categories_of_english(mention, antecedent, category):
    both = [[word_class(word) for word in words.split()] for words in (mention, antecedent)]
    found = categories_of(both)
    assert CATEGORIES[found[0, 1]] == CATEGORIES[found[1, 0]] == category
