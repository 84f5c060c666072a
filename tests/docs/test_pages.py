"""README and pages: links, sizes, names of files and fields, images, and the command that shows pages."""
import ast
import functools
import re
import xml.etree.ElementTree

import pytest

import spanbert_jax.docs
from spanbert_jax import default_config
from spanbert_jax.commands import main
from spanbert_jax.common.settings import to_dict
from spanbert_jax.docs.draw import IMAGES, PACKAGES
from spanbert_jax.finetuning.config import default_task_config
from spanbert_jax.tasks import TASKS
from spanbert_jax.training.config import encoder_names, model_section
from tests.docs.markdown import LANGUAGES, PAGES, anchors, blocks, inline_code, links, text_of
from tests.runs import ROOT

PACKAGE = ROOT / "spanbert_jax"
# Inline code that looks like a config field.
_NOT_FIELDS = ("model.apply", "model.onnx")
_FIELD = re.compile(r"(?:--)?(?:config\.)?((?:data|model|compute|masking|objectives|optimizer|schedule|train|"
                    r"evaluation|checkpoint|skip|mesh|task)\.[a-z_0-9]+)(?:=.*)?")


def test_the_readme_is_at_most_10_kb():
    assert (ROOT / "README.md").stat().st_size <= 10_240


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in links(page):
        target, _, anchor = link.partition("#")
        path = PAGES[page].parent / target if target else PAGES[page]
        assert path.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(path), f"{page}: {link}: no such heading"


def test_the_readme_links_every_page():
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in links("README")}
    assert set(PAGES.values()) - linked == {ROOT / "README.md"}


@pytest.mark.parametrize("page", PAGES)
def test_blocks_have_a_known_language(page):
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page}, line {block.line}"
    assert text_of(page).count("```") == 2 * len(blocks(page))


@pytest.mark.parametrize("page", PAGES)
def test_named_files_and_modules_exist(page):
    for code in inline_code(page):
        if re.fullmatch(r"(launch|configs|tests|spanbert_jax)/[\w./]*", code.partition(":")[0]):
            assert (ROOT / code.partition(":")[0]).exists(), code
        if module := re.match(r"python -m (tests[\w.]+)", code):
            assert (ROOT / f"{module[1].replace('.', '/')}.py").exists(), code


@pytest.mark.parametrize("page", PAGES)
def test_named_config_fields_exist(page):
    for code in inline_code(page):
        match = _FIELD.fullmatch(code)
        if match and code not in _NOT_FIELDS:
            assert match[1] in _fields(), f"{page}: {code}"


@functools.cache
def _fields() -> set[str]:
    """Names of all config fields, of pretraining, of every task and of every architecture."""
    configs = [default_config(), *(default_task_config(name) for name in _task_names()),
               *({"model": to_dict(model_section(name)())} for name in encoder_names())]
    return {f"{section}.{field}" for config in configs for section, values in config.items() if hasattr(values, "keys")
            for field in values}


def _task_names() -> tuple[str, ...]:
    return tuple(TASKS.names() if hasattr(TASKS, "names") else TASKS)


def test_images_are_what_the_script_draws():
    stored = {path.stem: path.read_text(encoding="utf-8") for path in (PACKAGE / "docs/images").glob("*.svg")}
    assert stored == {name: draw() for name, draw in IMAGES.items()}, "run: python -m spanbert_jax.docs.draw"
    for image in stored.values():
        assert xml.etree.ElementTree.fromstring(image).tag.endswith("svg")


def test_every_image_is_shown():
    shown = {link.rpartition("/")[2] for page in PAGES for link in links(page) if link.endswith(".svg")}
    assert shown == {f"{name}.svg" for name in IMAGES}


def test_imports_run_down_the_picture_of_the_packages():
    level = {name: number for number, row in enumerate(PACKAGES) for name, _ in row}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders - {"docs"} == set(level)
    for path in PACKAGE.glob("*/**/*.py"):
        package = path.relative_to(PACKAGE).parts[0]
        for module in _imports(path):
            other = module.split(".")[1]
            if other in level and other != package and package != "docs":
                assert level[other] > level[package], f"{path.relative_to(ROOT)} imports {module}"


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = ([node.module or ""] if isinstance(node, ast.ImportFrom) else
                 [alias.name for alias in node.names] if isinstance(node, ast.Import) else [])
        yield from (name for name in names if name.startswith("spanbert_jax."))


def test_docs_lists_the_pages_with_a_short_line_each(capsys):
    assert main(["docs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(spanbert_jax.docs.pages())
    assert all(len(line) <= 120 for line in lines)


def test_docs_shows_a_page(capsys):
    assert main(["docs", "glossary"]) == 0
    shown = capsys.readouterr().out
    assert "span boundary objective" in shown
    assert "\x1b" not in shown


def test_docs_names_the_nearest_page(capsys):
    assert main(["docs", "finetunning"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "did you mean 'finetuning'?" in message
