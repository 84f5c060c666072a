"""The pages of launch/: the output of dry runs, commands of gcloud, and links."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "launch").rglob("*.md"))
ROADS = [page for page in PAGES if page != ROOT / "launch" / "README.md"]


def name(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page):
    """What a page shows in blocks: their lines, those that go on in the next one joined."""
    text = re.sub(r"\\\n +", "", page.read_text())
    found = re.findall(r"(?:^    .*\n)+", text, re.M)
    return [[line[4:] for line in block.splitlines()] for block in found]


@pytest.fixture
def programs(tmp_path):
    """A PATH with this Python as `python`, and spanbert-jax."""
    for program, arguments in (("python", ""), ("spanbert-jax", "-m spanbert_jax")):
        (tmp_path / program).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        (tmp_path / program).chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


@pytest.mark.parametrize("page", ROADS, ids=name)
def test_a_dry_run_prints_what_the_page_shows(page, programs):
    (command, shown), = [(line.removeprefix("$ "), block[at + 1:]) for block in blocks(page)
                         for at, line in enumerate(block) if line.startswith("$ ") and "--dry-run" in line]
    environment = {**{key: value for key, value in os.environ.items() if "CUDA" not in key}, "PATH": programs,
                   "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = [line for line in shown if line != "..."]
    assert len(shown) >= 2
    for line in shown:
        # Three dots stand for anything; ports and the number of cores are those of the day.
        pattern = re.escape(line).replace(r"\.\.\.", ".*")
        pattern = re.sub(r"(127\\.0\\.0\\.1:|NPROC=)\d+", r"\1\\d+", pattern)
        assert re.search(f"^{pattern}$", done.stdout, re.M), line


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_files_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:launch|configs|tests|spanbert_jax)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.skipif(not shutil.which("gcloud"), reason="needs gcloud, which checks its arguments without a network")
def test_gcloud_accepts_the_commands_of_the_pages(tmp_path):
    lines = [line.strip() for page in PAGES for block in blocks(page) for line in block]
    lines = [line for line in lines if line.startswith("gcloud ")]
    assert len(lines) >= 10
    (tmp_path / "commands.json").write_text(json.dumps([{"command_string": line} for line in lines]))
    checked = subprocess.run(["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={tmp_path}/commands.json"],
                             capture_output=True, text=True)
    assert [result["error_message"] for result in json.loads(checked.stdout)] == [None] * len(lines)
