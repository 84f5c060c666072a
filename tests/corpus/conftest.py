"""Fixtures: real prose from the Python installation, and a small vocabulary trained on it."""
import pydoc_data.topics

import pytest

from spanbert_jax.text import train_tokenizer


@pytest.fixture(scope="session")
def prose() -> list[str]:
    """Python's help topics: about 80 documents of real English."""
    return sorted(pydoc_data.topics.topics.values())


@pytest.fixture(scope="session")
def vocabulary(prose, tmp_path_factory) -> str:
    """Path of a tokenizer.json with a vocabulary of 1,000."""
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    train_tokenizer(prose, 1000).save(str(path))
    return str(path)


@pytest.fixture
def books(prose, tmp_path):
    """A folder of twelve text files."""
    folder = tmp_path / "books"
    folder.mkdir()
    for i, text in enumerate(prose[:12]):
        (folder / f"{i:02}.txt").write_text(text if text.endswith("\n") else text + "\n")
    return folder
