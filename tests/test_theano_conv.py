"""FilterActs and MaxPool against Theano's own conv2d and pool_2d, flip and floor taken into account."""

import numpy as np
import theano
import theano.tensor as T
from convnet_ops import FilterActs, MaxPool, bc01_to_c01b, c01b_to_bc01
from theano.compile.mode import Mode
from theano.tensor.nnet import conv2d
from theano.tensor.signal.pool import pool_2d

from tests import problems
from tests.comparison import assert_close, assert_identical
from tests.processors import DEVICES, GPU_CONTEXT, gpu_or_skip


def function(inputs, outputs, device):
    mode = Mode(linker="cvm", optimizer="fast_run")
    if device == "cpu":
        return theano.function(inputs, outputs, mode=mode.excluding("gpuarray"))
    outputs = [output.transfer(GPU_CONTEXT).transfer("cpu") for output in outputs]
    return theano.function(inputs, outputs, mode=mode.including("gpuarray"))


def test_conv2d():
    for device in DEVICES:
        for problem in problems.tier(problems.CONV_PROBLEMS, "quick"):
            # Theano 1.0.5 has no groups on the CPU.
            if problem.groups == 1:
                yield check_conv2d, problem, device


def check_conv2d(problem, device):
    """Values and both gradients, of the outputs that Theano's floor has too; Theano computes in float64."""
    if device == "gpu":
        gpu_or_skip()
    rng = np.random.RandomState()
    images = rng.standard_normal(problem.images).astype("float32").transpose(3, 0, 1, 2)
    filters = rng.standard_normal(problem.filters).astype("float32").transpose(3, 0, 1, 2)
    op = FilterActs(pad=problem.pad, stride=problem.stride)
    border_mode = "valid" if problem.pad == 0 else problem.pad

    x, w, cotangent = T.dtensor4s("images", "filters", "cotangent")
    out = conv2d(x, w, border_mode=border_mode, subsample=op.stride, filter_flip=True)
    (theirs,) = function([x, w], [out], "cpu")(images, filters)
    gz = rng.standard_normal(theirs.shape).astype("float32")
    their_gradients = function([x, w, cotangent], T.grad((out * cotangent).sum(), [x, w]), "cpu")(images, filters, gz)

    x, w, cotangent = T.ftensor4s("images", "filters", "cotangent")
    out = c01b_to_bc01(op(bc01_to_c01b(x), bc01_to_c01b(w[:, :, ::-1, ::-1])))
    rows, cols = theirs.shape[2:]
    gradients = T.grad((out[:, :, :rows, :cols] * cotangent).sum(), [x, w])
    ours, *our_gradients = function([x, w, cotangent], [out] + gradients, device)(images, filters, gz)

    what = "%s on %s" % (problem.name, device)
    assert ours.shape[2] - rows in (0, 1) and ours.shape[3] - cols in (0, 1), (ours.shape, theirs.shape)
    terms = int(np.prod(problem.filters[:3]))
    assert_close(ours[:, :, :rows, :cols], theirs, terms, what)
    taps = int(np.prod(problem.filters[1:]))
    assert_close(our_gradients[0], their_gradients[0], taps, "gradient of the images, " + what)
    assert_close(our_gradients[1], their_gradients[1], gz[:, 0].size, "gradient of the filters, " + what)


def test_pool_2d():
    for device in DEVICES:
        for problem in problems.tier(problems.POOL_PROBLEMS, "quick"):
            if problem.start == 0 and problem.outputs == 0:
                yield check_pool_2d, problem, device


def check_pool_2d(problem, device):
    """Values and gradients, with ties, of the outputs that Theano's floor has too."""
    if device == "gpu":
        gpu_or_skip()
    rng = np.random.RandomState()
    images = rng.randint(0, 3, problem.images).astype("float32").transpose(3, 0, 1, 2)
    x, cotangent = T.ftensor4s("images", "cotangent")
    op = MaxPool(problem.ds, problem.stride)
    out = pool_2d(x, ws=op.ds, stride=op.stride, ignore_border=True)
    (theirs,) = function([x], [out], "cpu")(images)
    gz = rng.standard_normal(theirs.shape).astype("float32")
    (their_gradient,) = function([x, cotangent], [T.grad((out * cotangent).sum(), x)], "cpu")(images, gz)

    out = c01b_to_bc01(op(bc01_to_c01b(x)))
    rows, cols = theirs.shape[2:]
    gradient = T.grad((out[:, :, :rows, :cols] * cotangent).sum(), x)
    ours, our_gradient = function([x, cotangent], [out, gradient], device)(images, gz)
    assert_identical(ours[:, :, :rows, :cols], theirs, problem.name)
    assert ours.shape[2] - rows in (0, 1) and ours.shape[3] - cols in (0, 1)
    # Two float32 sums, perhaps in another order.
    assert_close(our_gradient, their_gradient.astype("float64"), 9, "gradient, %s on %s" % (problem.name, device))
