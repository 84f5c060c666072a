"""Import of a large file takes little more memory than its parameters."""
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from spanbert_jax.interop import layout
from spanbert_jax.interop.configuration import to_values
from spanbert_jax.interop.formats.huggingface import write_json
from spanbert_jax.model import BertConfig, EncoderModel, MaskedLm

MEASURE = """
import os, resource, sys
import jax
jax.config.update("jax_platforms", "cpu")
import spanbert_jax
spanbert_jax.from_pretrained(sys.argv[1], "masked_lm")  # a small network: what is needed once is there
def memory(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1]) * 1024
before = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the peak is counted from here on
loaded = spanbert_jax.from_pretrained(sys.argv[2], "masked_lm")
jax.block_until_ready(loaded[1])
print((memory("VmHWM") - before) / os.path.getsize(f"{sys.argv[2]}/model.safetensors"))
"""


def write(folder, **fields) -> None:
    folder.mkdir()
    model = EncoderModel(BertConfig(vocab_size=28_996, **fields), MaskedLm())
    save_file({name: np.ones(leaf.tensor_shape, np.float32) for leaf in layout.leaves(model) for name in leaf.names},
              folder / "model.safetensors")
    write_json(folder / "config.json", to_values(model))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks of memory are read from Linux's /proc")
def test_peak_memory_is_below_one_and_a_half_times_the_parameters(tmp_path):
    write(tmp_path / "small", num_layers=1, width=64, num_heads=1, feed_forward=64)
    write(tmp_path / "base")
    done = subprocess.run([sys.executable, "-c", MEASURE, tmp_path / "small", tmp_path / "base"], capture_output=True,
                          text=True, check=True)
    assert 0.9 < float(done.stdout) < 1.5  # the parameters themselves are 1
