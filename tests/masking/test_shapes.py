"""The array shapes and dtypes in masking's signatures, checked at run time in a process that imports it with checks."""
import os
import subprocess
import sys

from tests.runs import ROOT

PROGRAM = """
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

with jaxtyping.install_import_hook("spanbert_jax.masking", "beartype.beartype"):
    from spanbert_jax.masking import MaskingSettings, make_masker, spans
    from spanbert_jax.masking.schemes import annotated, geometric, step, token

from tests.masking import sampler

rng = np.random.default_rng(0)
rows = sampler.packed_rows([sampler.random_blocks(rng, 3, length, 0.7, unit_fraction=0.1) for length in (20, 9)])
keys = jax.random.split(jax.random.key(0), 3)
for endpoints in ("external", "internal"):
    settings = MaskingSettings(scheme="0.4*annotated+0.3*geometric+0.3*token", rate=0.3, endpoints=endpoints)
    masker = make_masker(settings, length=rows["tokens"].shape[1], max_blocks=2, special=sampler.SPECIAL,
                         unigram=sampler.UNIGRAM)
    masked = masker(keys, rows)
    assert masked.inputs.shape == rows["tokens"].shape and masked.positions.shape == (3, masker.max_masked)

with pytest.raises(jaxtyping.TypeCheckError):
    spans.merge(jnp.zeros(5, bool), jnp.zeros(4, jnp.int32), jnp.zeros(5, bool), "external")
with pytest.raises(jaxtyping.TypeCheckError):
    step.first(jnp.zeros(5, jnp.float32), jnp.zeros(5, bool))
print("checked")
"""


def test_arrays_have_the_annotated_shapes():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert done.stdout == "checked\n", done.stderr
