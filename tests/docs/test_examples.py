"""The commands and Python snippets of README and pages run, with small inputs and settings; the others name a
reason."""
import contextlib
import io
import re

import pytest

from spanbert_jax.commands import main
from tests.docs.markdown import PAGES, blocks
from tests.docs.workspace import COREFERENCE, FINETUNE, PREPARE, PRETRAIN, QUESTIONS, make_workspace

# Beginning of a command -> words appended to it, and words replaced in it. The longest beginning that fits counts.
RUN = {
    "spanbert-jax prepare --source texts/*.txt": (PREPARE["extra"], {"30000": "400"}),
    "spanbert-jax train --config configs/own_text.py:corpus=corpora/mine": (PRETRAIN, {}),
    "spanbert-jax train --config configs/base.py --config.init_from=models/spanbert": (PRETRAIN, {}),
    "spanbert-jax evaluate --workdir runs/mine": ((), {}),
    "spanbert-jax import --from spanbert_hf_base.tar.gz": ((), {}),
    "spanbert-jax train --config configs/squad.py --config.init_from=models/spanbert": (QUESTIONS, {}),
    "spanbert-jax train --config configs/sentiment.py --config.init_from=models/spanbert": (FINETUNE, {}),
    "spanbert-jax train --config configs/coreference.py": (COREFERENCE, {}),
    "spanbert-jax predict --model runs/coreference": ((), {}),
    "spanbert-jax predict --model runs/squad": ((), {}),
    "spanbert-jax predict --model runs/reviews": ((), {}),
    "spanbert-jax evaluate --workdir runs/squad": ((), {}),
    "spanbert-jax export --workdir runs/domain": ((), {}),
    "spanbert-jax export --workdir runs/mine": ((), {}),
    "spanbert-jax fill --model models/domain": ((), {}),
    "spanbert-jax checkpoints": ((), {"runs/quickstart": "runs/mine"}),
    "spanbert-jax verify": ((), {"runs/quickstart": "runs/mine"}),
    "spanbert-jax plan --budget": ((), {}),
    "spanbert-jax config configs": ((), {}),
}
# Beginning of a command -> why it is not run here.
NOT_RUN = {
    "pip": "installs packages",
    "pytest": "starts the tests, of which this is one",
    "tensorboard": "starts a server of another project",
    "python -m tests.benchmarks": "measures for minutes",
    "python -m tests.mutations": "runs tests for half an hour",
    "spanbert-jax prepare --source texts/*.txt --tokenizer vocab.txt": "needs a vocabulary; another command prepares",
    "spanbert-jax train --config configs/base.py --config.init_from=runs/base": "needs a model of base size",
    "spanbert-jax train --config configs/modern.py": "trains models of base size; tests/pretraining trains a small one",
    "spanbert-jax train --config configs/squad.py:whole=true": "needs a model of 8,192 positions",
    "spanbert-jax train --config configs/sentiment.py --config.init_from=runs/long": "needs a model of 8,192 positions",
    "SPANBERT_DATA=data": "needs public data, and takes minutes",
    "spanbert-jax train --config configs/quickstart.py": "takes minutes; base.py runs the same code",
    "spanbert-jax train --config configs/base.py --config.init_from=spanbert-base-cased": "needs the Hugging Face hub",
    "spanbert-jax train --config configs/translation.py": "needs a multilingual model; tests/finetuning trains one",
    "spanbert-jax predict --model runs/en-de": "needs the model above",
    "spanbert-jax sweep": "trains a dozen models; tests/finetuning/test_sweep.py runs one",
    "spanbert-jax train --config readability_config.py": "needs the file above; tests/finetuning/test_new_task.py "
                                                         "uses it",
    "spanbert-jax predict --model runs/readability": "needs the model above",
    "spanbert-jax evaluate --workdir runs/coreference": "needs public data; tests/tasks scores rows of GAP",
    "spanbert-jax plan --config": "compiles for minutes; tests/planning does it",
}
# (page, text in a block) -> texts replaced in the block.
PYTHON = {
    ("pretraining", "load_config"): {
        '"corpora/mine", vocab_size=30_000': '"corpora/python", vocab_size=400, length=64, validation_fraction=0.2',
        '["--config.data.path=corpora/mine"]': repr(["--config.data.path=corpora/mine", *PRETRAIN]),
        '"runs/mine"': '"runs/python"'},
    ("weights", "from_pretrained"): {"spanbert-base-cased": "models/spanbert", "models/mine": "models/python"},
    ("training_loop", "STEPS = 1000"): {"STEPS = 1000": "STEPS = 10", "% 100": "% 10"},
}
# The same blocks, which are not run -> why.
PYTHON_NOT_RUN = {
    ("tasks", "(Task)"): "tests/finetuning/test_new_task.py trains it",
    ("tasks", "import readability"): "needs the file above; tests/finetuning/test_new_task.py uses it",
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, one_device):
    """The folder, in which the README's examples have run."""
    folder = tmp_path_factory.mktemp("workspace")
    make_workspace(folder)
    with contextlib.chdir(folder):
        examples = _Examples()
        examples.run("README")
        yield examples


class _Examples:
    """Runs the examples of pages, each command once."""

    def __init__(self):
        self._done: set[tuple[str, ...]] = set()

    def run(self, page):
        names = {"__name__": "example"}
        for block in blocks(page):
            place = f"{page}, line {block.line}"
            skipped = any(page == of and part in block.text for of, part in PYTHON_NOT_RUN)
            if block.language == "python" and not skipped:
                exec(compile(_replaced(block), place, "exec"), names)
            for command in block.commands() if block.language == "sh" else ():
                self._command(tuple(command), place)

    def _command(self, command, place):
        text = " ".join(command)
        found = [beginning for beginning in (*RUN, *NOT_RUN) if text.startswith(beginning)]
        assert found, f"{place}: {text}: give it a line in RUN, or a reason in NOT_RUN"
        beginning = max(found, key=len)
        if beginning in NOT_RUN or command in self._done:
            return
        self._done.add(command)
        more, words = RUN[beginning]
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = main([*(words.get(word, word) for word in command[1:]), *more])
        assert status == 0, f"{place}: {text}\n{output.getvalue()}"


def _replaced(block):
    text = block.text
    for (page, part), words in PYTHON.items():
        if page == block.page and part in text:
            for old, new in words.items():
                assert old in text, old
                text = text.replace(old, new)
    return text


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_run(page, workspace):
    if page == "README":
        return  # the fixture has run them
    workspace.run(page)


def test_each_line_of_the_tables_is_of_use():
    texts = [" ".join(command) for page in PAGES for block in blocks(page, "sh") for command in block.commands()]
    for beginning in (*RUN, *NOT_RUN):
        assert any(text.startswith(beginning) for text in texts), beginning
    snippets = [(page, block.text) for page in PAGES for block in blocks(page, "python")]
    for page, part in (*PYTHON, *PYTHON_NOT_RUN):
        assert any(page == of and part in text for of, text in snippets), part


def test_config_snippets_are_whole_configs():
    for page in PAGES:
        for block in blocks(page, "python"):
            assert not re.search(r"^\s*\.\.\.$", block.text, re.MULTILINE), f"{page}, line {block.line}"
