import os
import sys

# The tests of the examples import them.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "examples"))

import lenet_tools  # noqa: E402

# Theano's device for all tests: what the user's settings say, else a GPU if one opens.
DEVICE, REASON = lenet_tools.choose_device("auto")

# Before any test imports Theano: convnet_ops gives it a BLAS.
import convnet_ops  # noqa: E402, F401
