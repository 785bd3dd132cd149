import os
import sys

# Before any test imports Theano: convnet_ops gives it a BLAS.
import convnet_ops  # noqa: F401

# The tests of the examples import them.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "examples"))
