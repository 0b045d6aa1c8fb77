"""Packaging of jaxspeech. `pip install -e .` for the core, `pip install -e .[test]` to run the tests."""

import pathlib

from setuptools import find_packages, setup

CORE = [
    "absl-py>=2.1",
    "flax>=0.12,<0.13",
    "grain>=0.2.18,<0.3",
    "jax>=0.10.2,<0.13",
    "jaxtyping>=0.3",
    "jiwer>=4.0,<5",
    "matplotlib>=3.9",
    "ml-collections>=1.1,<2",
    "msgspec>=0.20",  # JSON lines by the million
    "numpy>=2.0",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.3,<0.13",
    "rapidfuzz>=3.9",  # distances between texts; jiwer has it too
    "safetensors>=0.5",
    "sentencepiece>=0.2.1",
    "soundfile>=0.13",
    "soxr>=0.5",
    "tokenizers>=0.21",
    "tqdm>=4.66",
    # The normaliser decides what WER means: pinned exactly, changed only with a note.
    "whisper-normalizer==0.1.15",
]

EXTRAS = {
    "beam": ["apache-beam>=2.65,<3"],
    "cuda": ["jax[cuda13]>=0.10.2,<0.13"],
    "tpu": ["jax[tpu]>=0.10.2,<0.13"],
    "keras": ["h5py>=3.11"],
    "synth": ["espeakng-loader>=0.2.4"],
    # `jaxspeech prepare`: each for one of its names, imported only there.
    "download": ["pooch>=1.8"],
    "huggingface": ["pyarrow>=17"],
    "remote": ["fsspec>=2024.6"],  # s3fs for s3://…, gcsfs for gs://…
    "rooms": ["pyroomacoustics>=0.8"],
    "tfds": ["tensorflow>=2.18", "tensorflow-datasets>=4.9.7"],  # its audio features need TensorFlow
    "wandb": ["wandb>=0.19"],
    "xmanager": ["xmanager>=0.7"],
    # torch without a version would pull in CUDA packages; this one has a CPU build.
    "parity": ["torch==2.13.0", "transformers>=5.15,<6", "h5py>=3.11"],
    "test": [
        "espeakng-loader>=0.2.4",
        "fsspec>=2024.6",
        "h5py>=3.11",
        "hypothesis>=6.100",
        "ipykernel>=6.29",
        "mypy>=1.13",
        "nbclient>=0.10",
        "nbformat>=5.10",
        "pooch>=1.8",
        "pyarrow>=17",
        "pytest>=8.3",
        "pytest-xdist>=3.6",
        "ruff>=0.8",
        "tensorboardX>=2.6.2",
    ],
}

setup(
    name="jaxspeech",
    version="0.1.0",
    description="One trainer for speech models in JAX",
    long_description=pathlib.Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["jaxspeech", "jaxspeech.*"]),
    package_data={"jaxspeech": ["py.typed", "ops/native/*.cc", "ops/native/*.h"]},
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["jaxspeech=jaxspeech.cli:main"]},
)
