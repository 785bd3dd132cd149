"""enable(): models in bc01 give the same values and gradients as before, and work in c01b from the first layer on."""

import io

import convnet_ops
import numpy as np
import theano
import theano.tensor as T
from convnet_ops import nnet
from convnet_ops.base import ConvnetOp, GpuOp
from convnet_ops.layout import ShuffleDims
from convnet_ops.opt.swap import slower
from theano.compile.mode import Mode
from theano.tensor.nnet import abstract_conv
from theano.tensor.signal.pool import pool_2d

from tests.processors import gpu_or_skip

# Without fusion the elementwise ops of all nets are the same few, and are compiled once.
CPU = Mode(linker="cvm", optimizer="fast_run").excluding("gpuarray", "fusion")
GPU = Mode(linker="cvm", optimizer="fast_run").including("gpuarray").excluding("fusion")


class Net(object):
    """A random net in bc01: layers as people write them, its parameters, and what it was built from."""

    def __init__(self, seed, dtype):
        self.rng = np.random.RandomState(seed)
        self.dtype = dtype
        self.steps = []
        self.inputs, self.values, self.parameters = [], [], []
        self.shape = tuple(self.rng.randint(low, high) for low, high in ((2, 5), (1, 4), (12, 17), (12, 17)))
        self.out = self.input(self.shape)
        self.convolution()
        for _ in range(self.rng.randint(4, 8)):
            self.step(self.rng.choice(LAYERS))
        self.cost = (self.out * self.out).sum() + (self.out.flatten(2)[:, :2] ** 3).sum()
        # A branch whose shape did not fit is left out.
        wanted = self.parameters + self.inputs[:1]
        self.gradients = T.grad(self.cost, wanted, disconnected_inputs="ignore")

    def step(self, layer):
        self.steps.append(layer)
        getattr(self, layer)()
        # What the layer's shape function says of the values.
        self.out = T.patternbroadcast(self.out, (False,) * 4)

    def input(self, shape):
        self.values.append(self.rng.standard_normal(shape).astype(self.dtype))
        self.inputs.append(T.TensorType(self.dtype, (False,) * len(shape))())
        return self.inputs[-1]

    def parameter(self, *shape):
        value = self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) if len(shape) == 4 else 4)
        self.parameters.append(theano.shared(value.astype(self.dtype)))
        return self.parameters[-1]

    def convolved(self, filters=None):
        rows, cols = self.rng.randint(1, 4, 2)
        filters = filters or self.rng.randint(2, 6)
        border = (rows // 2, cols // 2) if self.rng.rand() < 0.7 else "full"
        subsample = tuple(self.rng.randint(1, 3, 2).tolist()) if min(self.shape[2:]) > 9 else (1, 1)
        arguments = dict(border_mode=tuple(map(int, border)) if border != "full" else border, subsample=subsample)
        arguments["filter_flip"] = bool(self.rng.randint(2))
        w = self.parameter(filters, self.shape[1], rows, cols)
        shape = abstract_conv.get_conv_output_shape(
            self.shape, w.get_value().shape, arguments["border_mode"], arguments["subsample"]
        )
        return T.nnet.conv2d(self.out, w, **arguments), shape

    def convolution(self):
        self.out, self.shape = self.convolved()

    def bias(self):
        self.out = self.out + self.parameter(self.shape[1]).dimshuffle("x", 0, "x", "x")

    def untied_bias(self):
        self.out = self.out + self.parameter(*self.shape[1:]).dimshuffle("x", 0, 1, 2)

    def activation(self):
        function = self.rng.choice([T.tanh, T.nnet.sigmoid, T.nnet.relu, T.nnet.softplus, abs])
        self.out = function(self.out)

    def leaky(self):
        self.out = T.nnet.relu(self.out, 0.1)

    def pool(self):
        if min(self.shape[2:]) < 4:
            return
        stride = None if self.rng.rand() < 0.5 else (2, 1)
        border = bool(self.rng.randint(2))
        mode = str(self.rng.choice(["max", "average_inc_pad", "sum"]))
        self.out = pool_2d(self.out, (3, 2), ignore_border=border, stride=stride, mode=mode)
        self.shape = theano.tensor.signal.pool.Pool.out_shape(self.shape, (3, 2), border, stride)

    def channels(self):
        other, shape = self.convolved()
        if tuple(shape[2:]) == tuple(self.shape[2:]):
            self.out = T.concatenate([self.out, other], axis=1)
            self.shape = (shape[0], self.shape[1] + shape[1]) + tuple(shape[2:])

    def batches(self):
        self.out = T.concatenate([self.out, 2 * self.out[1:]], axis=0)
        self.shape = (2 * self.shape[0] - 1,) + tuple(self.shape[1:])

    def dropout(self):
        self.out = self.out * self.input(self.shape)

    def batch_norm(self):
        mean = self.out.mean(axis=(0, 2, 3), keepdims=True)
        deviation = T.sqrt(T.sqr(self.out - mean).mean(axis=(0, 2, 3), keepdims=True) + 0.5)
        self.out = (self.out - mean) / deviation * self.parameter(self.shape[1]).dimshuffle("x", 0, "x", "x")

    def theanos_batch_norm(self):
        scale, bias = (self.parameter(self.shape[1]).dimshuffle("x", 0, "x", "x") for _ in range(2))
        self.out = T.nnet.bn.batch_normalization_train(self.out, scale, bias, axes=(0, 2, 3), epsilon=0.5)[0]

    def response_norm(self):
        """As Lasagne writes it."""
        batch, channels, rows, cols = self.out.shape
        squares = T.alloc(np.asarray(0, self.dtype), batch, channels + 2, rows, cols)
        squares = T.set_subtensor(squares[:, 1 : 1 + channels], T.sqr(self.out))
        scale = 1 + sum(0.1 * squares[:, i : i + channels] for i in range(3))
        self.out = self.out / scale**0.75

    def crop(self):
        if min(self.shape[2:]) > 3:
            self.out = self.out[:, :, 1:, :-1]
            self.shape = tuple(self.shape[:2]) + (self.shape[2] - 1, self.shape[3] - 1)

    def compiled(self, mode):
        return theano.function(self.inputs, [self.cost, self.out] + self.gradients, mode=mode)


LAYERS = [name for name in vars(Net) if not name.startswith("_") and name not in ("step", "input", "parameter")]
LAYERS = [name for name in LAYERS if name not in ("convolved", "compiled")]


def compiled_enabled(net, mode):
    convnet_ops.enable()
    try:
        return net.compiled(mode)
    finally:
        convnet_ops.disable()


def difference(one, other, least):
    # np.asarray(array, dtype) reads pygpu's arrays as if they were of that dtype.
    one, other = (np.array(array).astype("float64") for array in (one, other))
    assert one.shape == other.shape, (one.shape, other.shape)
    assert np.isfinite(one).all()
    return np.linalg.norm(one - other) / max(np.linalg.norm(other), least)


def check_net(seed, gpu, layers=()):
    """The values and all gradients with the rewrites on and off; float64 on the CPU, where rounding tells nothing."""
    if gpu:
        gpu_or_skip()
    net = Net(seed, "float32" if gpu else "float64")
    # Theano's own values are computed on the CPU: its GPU ops are not what is tested.
    expected = net.compiled(CPU)(*net.values)
    function = compiled_enabled(net, GPU if gpu else CPU)
    found = function(*net.values)
    # A bias before batch normalisation has a gradient of rounding errors: they are measured by the other gradients.
    least = 1e-2 * max(np.linalg.norm(np.array(gradient)) for gradient in expected[2:])
    for index, (one, other) in enumerate(zip(found, expected)):
        error = difference(one, other, least)
        assert error < (1e-4 if gpu else 1e-10), (net.steps, index, error)
    nodes = function.maker.fgraph.toposort()
    assert not any(isinstance(node.op, nnet.CONV_OPS) for node in nodes)
    assert any(isinstance(node.op, GpuOp if gpu else ConvnetOp) for node in nodes)
    choices = function.maker.fgraph.convnet_ops_choices
    left = [choice for choice in choices if not choice.taken]
    assert choices and not any("Conv" in choice.node for choice in left), left


def test_cpu():
    seeds = np.random.RandomState().randint(2**31, size=3)
    for seed in seeds:
        yield check_net, int(seed), False


def test_gpu():
    seeds = np.random.RandomState().randint(2**31, size=1)
    for seed in seeds:
        yield check_net, int(seed), True


def stack(x, parameters):
    """Two layers as in Theano's tutorial, and what follows them."""
    w, b, v, c, dense = parameters
    for filters, bias in ((w, b), (v, c)):
        x = T.tanh(T.nnet.conv2d(x, filters) + bias.dimshuffle("x", 0, "x", "x"))
        x = pool_2d(x, (2, 2), ignore_border=True)
    return T.dot(x.flatten(2), dense)


def shared_parameters(dtype="float32"):
    rng = np.random.RandomState(5)
    shapes = (8, 1, 5, 5), (8,), (12, 8, 3, 3), (12,), (12 * 5 * 5, 3)
    return [theano.shared((rng.standard_normal(shape) * 0.2).astype(dtype)) for shape in shapes]


def images(function):
    """The shuffles of a compiled function that copy images, not filters."""
    stream = io.StringIO()
    convnet_ops.report(function, stream)
    return [line for line in stream.getvalue().splitlines() if line.startswith("  images")]


def training(mode):
    x, parameters = T.ftensor4("x"), shared_parameters()
    cost = T.sqr(stack(x, parameters)).mean()
    updates = [(p, p - np.float32(0.005) * g) for p, g in zip(parameters, T.grad(cost, parameters))]
    return theano.function([x], cost, updates=updates, mode=mode)


def test_stack_cpu():
    check_stack(gpu=False)


def test_stack_gpu():
    check_stack(gpu=True)


def check_stack(gpu):
    """A stack is in c01b from its first convolution to its last pooling, and trains the same."""
    if gpu:
        gpu_or_skip()
    mode = GPU if gpu else CPU
    x = T.ftensor4("x")
    value = np.random.RandomState().standard_normal((6, 1, 28, 28)).astype("float32")
    plain = training(CPU)
    convnet_ops.enable()
    try:
        forward = theano.function([x], stack(x, shared_parameters()), mode=mode)
        swapped = training(mode)
    finally:
        convnet_ops.disable()
    assert len(images(forward)) <= 2, images(forward)
    # Forward and back: images in, features out, their gradient in.
    assert len(images(swapped)) <= 3, images(swapped)
    curves = [[float(function(value)) for _ in range(5)] for function in (plain, swapped)]
    assert curves[0][-1] < curves[0][0]
    np.testing.assert_allclose(*curves, rtol=1e-5)


def test_disabled():
    """Off unless enabled, and off again after disable(); both may be called twice. Other modes follow too."""
    for mode in (CPU, Mode(linker="cvm", optimizer="fast_compile").excluding("gpuarray")):
        yield check_disabled, mode


def check_disabled(mode):
    x, parameters = T.ftensor4("x"), shared_parameters()
    out = stack(x, parameters)

    def count():
        nodes = theano.function([x], out, mode=mode).maker.fgraph.toposort()
        return sum(isinstance(node.op, ConvnetOp) and not isinstance(node.op, ShuffleDims) for node in nodes)

    assert count() == 0
    convnet_ops.enable()
    convnet_ops.enable()
    try:
        assert count() == 4
    finally:
        convnet_ops.disable()
    convnet_ops.disable()
    assert count() == 0
    # As Theano's flag optimizer_including does.
    nodes = theano.function([x], out, mode=mode.including("convnet_ops")).maker.fgraph.toposort()
    assert sum(isinstance(node.op, ConvnetOp) and not isinstance(node.op, ShuffleDims) for node in nodes) == 4


def report_of(function):
    stream = io.StringIO()
    convnet_ops.report(function, stream)
    return stream.getvalue()


def test_report():
    """It names what was taken and what was left, with the reason."""
    x, w = T.ftensor4s("x", "w")
    taken = pool_2d(T.nnet.conv2d(x, w), (2, 2), ignore_border=True)
    dilated = T.nnet.conv2d(x, w, filter_dilation=(2, 2))
    window = T.ivector("window")
    mode = CPU.including("convnet_ops")
    text = report_of(theano.function([x, w, window], [taken, dilated, pool_2d(taken, window, True)], mode=mode))
    assert "2 of Theano's convolution and pooling nodes taken, 2 left" in text, text
    assert "filter_dilation is (2, 2)" in text and "not known when the function is compiled" in text, text
    assert "1 MaxPool" in text and "shuffles between bc01 and c01b" in text, text

    text = report_of(theano.function([x], pool_2d(x, (2, 2), ignore_border=True), mode=mode))
    assert "0 of Theano's convolution and pooling nodes taken, 1 left" in text, text
    assert "no convolution beside it" in text, text

    text = report_of(theano.function([x, w], T.nnet.conv2d(x, w), mode=CPU))
    assert "without convnet_ops.enable()" in text and "Corr" in text, text


def test_slower():
    """Known shapes on which Theano's op is faster are left to it; without a BLAS, on the CPU, all are taken."""
    for gpu, images, filters, word in (
        (True, (7, 3, 9, 9), None, "batch is 7"),
        (True, (8, 3, 9, 9), (512, 512, 3, 3), ""),
        (False, (15, 3, 9, 9), None, "batch is 15"),
        (False, (16, 3, 9, 9), (64, 32, 5, 5), ""),
        (False, (None, 3, 9, 9), (384, 256, 3, 3), "weights"),
        (False, None, (64, 32, 1, 1), "1 x 1"),
        (True, None, (64, 32, 1, 1), ""),
        (False, None, None, ""),
    ):
        yield check_slower, gpu, images, filters, word


def check_slower(gpu, images, filters, word):
    op = T.nnet.conv2d(T.ftensor4(), T.ftensor4(), images, filters).owner.op
    with theano.configparser.change_flags(**{"blas.ldflags": "-lopenblas"}):
        reason = slower(op, gpu)
    assert (word in reason) if word else reason == "", reason
    with theano.configparser.change_flags(**{"blas.ldflags": ""}):
        assert gpu or slower(op, gpu) == ""


def test_report_refuses():
    for value in (None, T.ftensor4(), lambda x: x):
        try:
            convnet_ops.report(value)
        except TypeError as error:
            assert "theano.function" in str(error)
        else:
            raise AssertionError(value)
