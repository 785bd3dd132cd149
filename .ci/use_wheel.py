"""Uses an installed convnet_ops from outside the checkout: its C code compiles, its CUDA sources are there."""

import os
import sys

import convnet_ops
import numpy as np
import theano
import theano.tensor as T
from convnet_ops.opt import GPU_TWINS

assert os.path.dirname(convnet_ops.__file__).startswith(sys.prefix), convnet_ops.__file__

images, filters = T.ftensor4s("images", "filters")
out = convnet_ops.MaxPool(ds=2, stride=2)(convnet_ops.FilterActs(pad=1)(images, filters))
function = theano.function([images, filters], [out] + T.grad(out.sum(), [images, filters]))
values = function(np.ones((3, 8, 8, 4), "float32"), np.ones((3, 3, 3, 16), "float32"))
assert [value.shape for value in values] == [(16, 4, 4, 4), (3, 8, 8, 4), (3, 3, 3, 16)], values
assert values[0].max() == 27, values[0].max()

for twin in GPU_TWINS.values():
    for family in twin.kernel_families:
        assert 'extern "C"' in family.cuda_text(family.rows[0])
print("convnet_ops %s works from %s" % (convnet_ops.__version__, os.path.dirname(convnet_ops.__file__)))
