"""Symbolic differentiation end to end: gradients, second derivatives and directions, of every op, on CPU and GPU."""

import numpy as np
import theano
import theano.tensor as T
from convnet_ops import AvgPool, AvgPoolGrad, FilterActs, ImageActs, MaxPool, MaxPoolGrad, MaxPoolRop, WeightActs
from convnet_ops.pool import SumPool, SumPoolGrad
from theano.compile.mode import Mode
from theano.gradient import verify_grad

from tests.directions import DEVICE_DTYPES, check_direction
from tests.processors import DEVICES

CPU_MODE = Mode(linker="cvm", optimizer="fast_run").excluding("gpuarray")

OPTIONS = [
    dict(),
    dict(pad=1, stride=2),
    dict(pad="full", partial_sum=1),
    dict(pad=(0, 1), stride=(1, 2)),
    dict(groups=2, pad="half"),
]


def arrays(options, seed=None):
    """Tiny images, filters and output gradients in float64, with the output's size."""
    rng = np.random.RandomState(seed)
    groups = options.get("groups", 1)
    images, filters = rng.standard_normal((2 * groups, 5, 4, 2)), rng.standard_normal((2, 3, 2, 2 * groups))
    x, w = T.dtensor4s("x", "w")
    shape = theano.function([x, w], FilterActs(**options)(x, w).shape, mode=CPU_MODE)(images, filters)
    return images, filters, rng.standard_normal(shape)


def conv_functions(options):
    """{name: (function of symbolic variables, arrays)} of the three ops."""
    images, filters, hid = arrays(options)
    size, taps = images.shape[1:3], filters.shape[1:3]
    return {
        "FilterActs": (FilterActs(**options), [images, filters]),
        "ImageActs": (lambda h, w: ImageActs(**options)(h, w, size), [hid, filters]),
        "WeightActs": (lambda x, h: WeightActs(**options)(x, h, taps)[0], [images, hid]),
    }


POOL_ARGUMENTS = [dict(ds=2, stride=2), dict(ds=3, stride=2, start=-1), dict(ds=(2, 3), stride=(3, 1), outputs=2)]


def pool_functions(arguments):
    # Distinct values, far apart: a finite difference must not change which is the largest.
    rng = np.random.RandomState()
    images = rng.permutation(2 * 6 * 5 * 2).reshape(2, 6, 5, 2).astype("float64") * 0.1
    x = T.dtensor4("x")
    maxout = theano.function([x], MaxPool(**arguments)(x), mode=CPU_MODE)(images)
    return {
        "MaxPool": (MaxPool(**arguments), [images]),
        "MaxPoolGrad": (
            lambda gz: MaxPoolGrad(**arguments)(images.astype(gz.dtype), maxout.astype(gz.dtype), gz),
            [rng.standard_normal(maxout.shape)],
        ),
        "MaxPoolRop": (
            lambda direction: MaxPoolRop(**arguments)(images.astype(direction.dtype), direction),
            [rng.standard_normal(images.shape)],
        ),
        "AvgPool": (AvgPool(**arguments), [images]),
        "SumPool": (SumPool(**arguments), [images]),
        "AvgPoolGrad": (
            lambda gz: AvgPoolGrad(**arguments)(gz, images.shape[1:3]),
            [rng.standard_normal(maxout.shape)],
        ),
        "SumPoolGrad": (
            lambda gz: SumPoolGrad(**arguments)(gz, images.shape[1:3]),
            [rng.standard_normal(maxout.shape)],
        ),
    }


def all_functions():
    for options in OPTIONS:
        for name, (function, values) in conv_functions(options).items():
            yield "%s %s" % (name, options), function, values
    for arguments in POOL_ARGUMENTS:
        for name, (function, values) in pool_functions(arguments).items():
            yield "%s %s" % (name, arguments), function, values


def test_verify_grad():
    for name, function, values in all_functions():
        yield check_verify_grad, name, function, values


def check_verify_grad(name, function, values):
    verify_grad(function, values, rng=np.random.RandomState(), mode=CPU_MODE, n_tests=1)


def test_verify_second_derivative():
    for options in OPTIONS:
        for name, (function, values) in conv_functions(options).items():
            yield check_second_derivative, "%s %s" % (name, options), function, values


def check_second_derivative(name, function, values):
    """The gradient, as a function of everything that it depends on, has the right gradient itself."""

    def gradient(*variables):
        return T.concatenate([g.flatten() for g in T.grad((function(*variables) ** 3).sum(), list(variables))])

    # Small values: those of size 1 make sums in the thousands, whose finite differences are off by 1e-4; these by 1e-6.
    values = [0.3 * value for value in values]
    verify_grad(gradient, values, rng=np.random.RandomState(), mode=CPU_MODE, n_tests=1, rel_tol=2e-4)


def test_directions():
    for device, dtype in DEVICE_DTYPES + [("cpu", "float32")] * ("cpu" in DEVICES):
        for name, function, values in all_functions():
            yield check_direction, name, function, values, device, dtype
