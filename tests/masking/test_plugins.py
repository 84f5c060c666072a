"""A masking scheme from a plugin: training with `config.plugins`, evaluation of its workdir, unknown names."""
import json

import jax
import numpy as np
import pytest

import spanbert_jax
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.registry import load_plugins
from spanbert_jax.masking import MaskingSettings, make_masker
from spanbert_jax.masking.schemes import SCHEMES
from spanbert_jax.pretraining.config import as_pretraining_config
from tests.masking import sampler
from tests.runs import run

PLUGIN = "tests.masking.every_other"


@pytest.fixture(scope="module")
def workdir(files, tmp_path_factory):
    """A run of two steps with the plugin's scheme, in a process that has not imported it before."""
    workdir = tmp_path_factory.mktemp("run")
    run(files, workdir, f"--config.plugins=('{PLUGIN}',)", "--config.masking.scheme=0.5*every_other+0.5*geometric",
        "--config.train.duration=2 steps", "--config.evaluation.every=0")
    return workdir


def test_the_plugin_is_stored_with_the_run(workdir):
    stored = json.loads((workdir / "config.json").read_text())
    assert stored["plugins"] == [PLUGIN] and stored["masking"]["scheme"] == "0.5*every_other+0.5*geometric"


def test_evaluation_of_the_workdir_finds_the_scheme(files, workdir):
    assert json.loads(run(files, workdir, "--json", command="evaluate").splitlines()[-1])["step"] == 2


def test_the_scheme_is_looked_up_by_its_name_and_masks_as_it_proposes():
    load_plugins([PLUGIN])
    assert "every_other" in SCHEMES
    masker = make_masker(MaskingSettings(scheme="every_other", rate=0.3), length=12, max_blocks=1,
                         special=sampler.SPECIAL, unigram=sampler.UNIGRAM)
    ones = np.ones((1, 12), np.int32)
    tokens = np.array([[sampler.CLS, *range(20, 30), sampler.SEP]])
    masked = masker(jax.random.split(jax.random.key(0), 1), {
        "tokens": tokens, "word_starts": ones, "segments": ones, "token_types": 0 * ones, "annotations": 0 * ones})
    # 30 % of 10 tokens: the first, the third and the fifth after [CLS].
    assert masked.positions[0, :3].tolist() == [1, 3, 5] and masked.weights[0].sum() == 3


def test_without_the_plugin_the_name_is_unknown():
    config = spanbert_jax.default_config()
    config.data.path, config.masking.scheme = "corpus", "every_othr"
    with pytest.raises(UserError, match="config.masking.scheme='every_othr': allowed are annotated, geometric, token, "
                       "whole_word.*schemes of modules in config.plugins"):
        as_pretraining_config(config).validate("config")
