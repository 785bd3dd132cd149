"""Packaging. The CUDA sources of cuda/ are installed inside the package, as convnet_ops/cuda/."""

import os
import re

from setuptools import setup

HERE = os.path.dirname(os.path.abspath(__file__))


def read(*path):
    with open(os.path.join(HERE, *path), encoding="utf-8") as text:
        return text.read()


setup(
    name="convnet_ops",
    version=re.search(r'__version__ = "(.+)"', read("convnet_ops", "version.py")).group(1),
    description="cuda-convnet's convolution and pooling ops for Theano, on CPU and GPU",
    long_description=read("README.md"),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    packages=["convnet_ops", "convnet_ops.c_code", "convnet_ops.compat", "convnet_ops.cuda", "convnet_ops.opt"],
    package_dir={"convnet_ops.cuda": "cuda"},
    package_data={"convnet_ops.c_code": ["*.c", "*.h"], "convnet_ops.cuda": ["*.cu", "*.cuh"]},
    python_requires=">=3.8,<3.12",
    install_requires=["theano==1.0.5", "numpy>=1.22,<1.24", "scipy", "setuptools<81"],
    extras_require={
        "test": ["pynose", "hypothesis", "Lasagne==0.1"],
        "examples": ["tqdm", "matplotlib", "mlxtend"],
        "gpu": ["mako", "pycuda"],
    },
    zip_safe=False,
)
