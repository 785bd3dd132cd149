"""FusedFilterActs and FusedActsGrad against reference.py, their derivatives, and the rewrite that makes them."""

import pickle

import numpy as np
import theano
import theano.tensor as T
from convnet_ops import FilterActs, FusedActsGrad, FusedFilterActs, MaxPool, reference, tiles
from convnet_ops.opt import GPU_TWINS
from theano.compile.mode import Mode
from theano.gradient import verify_grad

from tests import problems
from tests.comparison import assert_close, assert_identical, slack_of
from tests.directions import check_direction
from tests.processors import DEVICES, GPU_CONTEXT, Processor, compiled, cpu, gpu, gpu_or_skip, row_allows, to_gpu
from tests.test_bad_input import raises

# Elemwise nodes as they are, for all tests the same: else most of the time here is their compilation.
CPU_MODE = Mode(linker="cvm", optimizer="fast_run").excluding("gpuarray", "fusion", "inplace")
CPU_MODE = CPU_MODE.including("convnet_ops_cpu_fusion")
GPU_MODE = Mode(linker="cvm", optimizer="fast_run").including("gpuarray").excluding("fusion", "inplace")
UNFUSED_MODE = CPU_MODE.excluding("convnet_ops_fusion")

ACTIVATIONS = [
    dict(activation="linear"),
    dict(activation="relu"),
    dict(activation="leaky_relu", slope=0.1),
    dict(activation="tanh"),
    dict(activation="sigmoid"),
]

# Groups, loads of 1 and of 4 floats, tiles of filters and columns that are not whole, sums that blocks share.
PROBLEMS = [
    problem
    for problem in problems.CONV_PROBLEMS
    if problem.name
    in (
        "one of everything",
        "odd sizes",
        "odd filters",
        "two tiles of filters",
        "three groups",
        "alexnet 1, small",
        "few outputs",
        "many channels, one image",
    )
]

# Of each layout of sums, on which the place of a sum's bias depends, one row.
ROWS = ("fma_128x128_n1", "fma_16x256_n1", "3xtf32_96x128_n1", "3xtf32_16x256_n1")


def test_cpu():
    for problem in PROBLEMS:
        for activation in ACTIVATIONS:
            for dtype in ("float32", "float64"):
                yield check_values, problem, activation, [cpu()], dtype


def test_gpu():
    for number, problem in enumerate(PROBLEMS):
        # Every activation with one problem, and with every problem one.
        for activation in ACTIVATIONS if problem.name == "odd sizes" else [ACTIVATIONS[number % len(ACTIVATIONS)]]:
            yield check_gpu_values, problem, activation


def check_gpu_values(problem, activation):
    gpu_or_skip()
    rows = [Processor("gpu", "fused_filter_acts=%s" % row) for row in ROWS]
    # One size of Fourier transforms with each problem, with both rows of its outputs if it has two.
    sizes = [row for row in tiles.OPERANDS.rows if row.window == 0]
    outputs = [row.name for row in tiles.OUTPUTS.rows]
    number = PROBLEMS.index(problem) % len(sizes)
    possible = [
        row
        for row in tiles.OPERANDS.rows
        if problems.tiles_allow(problem, row) and (row.window > 0 or row is sizes[number])
    ]
    for name in (row.name for row in possible):
        rows.append(Processor("gpu", "tiles=%s" % name))
        if name + "_odd" in outputs:
            rows.append(Processor("gpu", "tiles=%s,fused_tile_outputs=%s_odd" % (name, name)))
    # The last image by the direct kernels.
    rows += [Processor("gpu", "tiles=%s,tile_images=%d" % (row.name, problem.images[3] - 1)) for row in possible[-1:]]
    check_values(problem, activation, gpu(FusedFilterActs(), all_rows=False) + rows, "float32")
    halves = gpu(FusedFilterActs(precision="float16"), False, PROBLEMS.index(problem))
    check_values(problem, dict(activation, precision="float16"), halves, "float32")


def check_values(problem, activation, processors, dtype):
    rng = np.random.RandomState()
    # Sums of about 1, as networks have them: tanh of larger ones is 1 nearly everywhere, and says little of the rest.
    terms = np.prod(problem.filters[:3])
    images = rng.standard_normal(problem.images).astype(dtype)
    filters = (rng.standard_normal(problem.filters) / np.sqrt(terms)).astype(dtype)
    bias = rng.standard_normal(filters.shape[3]).astype(dtype)
    options = dict(pad=problem.pad, stride=problem.stride, groups=problem.groups)
    sums = reference.filter_acts(images, filters, **options)
    if sums.size == 1:
        # A single sum that the bias nearly takes away has few right digits in any float32.
        bias = np.copysign(bias, sums.ravel()).astype(dtype)
    precision = activation.get("precision", "float32")
    as_reference = {name: value for name, value in activation.items() if name != "precision"}
    wanted = reference.fused_filter_acts(images, filters, bias, **dict(options, **as_reference))
    for processor in processors:
        (out,) = processor.run(FusedFilterActs(**dict(options, **activation)), images, filters, bias)
        what = "%s, %s, on %r" % (activation, problem.name, processor)
        assert_close(out, wanted, terms, what, precision, slack_of(processor, out))


# Several blocks a channel, whole and not, with loads of 4 and of 1; a channel smaller than a block; one value.
GRADIENT_SHAPES = [(2, 33, 32, 12), (3, 31, 29, 13), (40, 3, 3, 4), (1, 1, 1, 1)]


def gradient_values(shape, activation, dtype):
    """An activation's values, with both zeros among them, and their gradients."""
    rng = np.random.RandomState()
    values = rng.standard_normal(shape)
    values.ravel()[::7] = 0
    acts = reference.activate(values, activation["activation"], activation.get("slope", 0.0)).astype(dtype)
    if "relu" in activation["activation"]:
        acts[values < 0] = np.copysign(acts[values < 0], -1)
    return acts, (rng.standard_normal(shape) + 0.5).astype(dtype)


def test_grad_cpu():
    for shape in GRADIENT_SHAPES:
        for activation in ACTIVATIONS[1:]:
            for dtype in ("float32", "float64"):
                yield check_gradient_values, shape, activation, dtype, "cpu"


def test_grad_gpu():
    for shape in GRADIENT_SHAPES:
        for activation in ACTIVATIONS[1:]:
            yield check_gradient_values, shape, activation, "float32", "gpu"


def check_gradient_values(shape, activation, dtype, device):
    if device == "gpu":
        gpu_or_skip()
    options = dict(activation, at_zero=0.25) if "relu" in activation["activation"] else activation
    op = FusedActsGrad(**options)
    acts, gacts = gradient_values(shape, activation, dtype)
    wanted = reference.fused_acts_grad(acts, gacts, **options)
    size = int(np.prod(shape[1:]))
    for processor in gpu(op, all_rows=True) if device == "gpu" else [cpu()]:
        gz, gbias = processor.run(op, acts, gacts, allowed=row_allows(op, processor, size))
        what = "%s, %s, on %r" % (options, shape, processor)
        assert_close(gz, wanted[0], 1, what)
        assert_close(gbias, wanted[1], size, what + ", bias")


def test_grad_of_linear_is_its_input():
    for device in DEVICES:
        yield check_grad_of_linear, device


def check_grad_of_linear(device):
    if device == "gpu":
        gpu_or_skip()
    acts, gacts = gradient_values((2, 33, 32, 12), ACTIVATIONS[0], "float32")
    function, _ = compiled(FusedActsGrad(), device, [acts, gacts])
    gz, gbias = function(*[to_gpu(array) if device == "gpu" else array for array in (acts, gacts)])
    assert_identical(np.array(gz), gacts, "gz")
    assert_close(np.array(gbias), gacts.sum(axis=(1, 2, 3), dtype="float64"), gacts[0].size, "gbias")


def test_nan_stays_nan():
    for activation in ACTIVATIONS:
        x = T.ftensor4("x")
        acts = FusedFilterActs(**activation)(x, np.ones((1, 1, 1, 1), "float32"), np.zeros(1, "float32"))
        gradient = FusedActsGrad(**activation)(acts, acts)
        found = theano.function([x], [acts, gradient], mode=CPU_MODE)(np.full((1, 1, 1, 2), np.nan, "float32"))
        assert np.isnan(found[0]).all(), activation
        assert np.isnan(found[1]).all(), activation


# What FilterActs and its gradients compute, as functions of 4-D arrays.


def fused(activation):
    op = FusedFilterActs(pad=1, stride=2, **activation)
    return lambda x, w, b: op(x, w, b[:, 0, 0, 0])


def gradient(activation):
    op = FusedActsGrad(**activation)

    def both(acts, gacts):
        gz, gbias = op(acts, gacts, return_list=True)
        return gz + gz.shape[1] * gbias.dimshuffle(0, "x", "x", "x")

    return both


def differentiable(op_class, activation):
    """(name, function of 4-D arrays, arrays)."""
    rng = np.random.RandomState()
    name = "%s, %s" % (op_class.__name__, activation["activation"])
    if op_class is FusedActsGrad:
        return name, gradient(activation), [rng.uniform(0.1, 0.9, (3, 2, 3, 2)) for _ in range(2)]
    shapes = (2, 5, 4, 2), (2, 3, 2, 3), (3, 1, 1, 1)
    return name, fused(activation), [rng.standard_normal(shape) for shape in shapes]


def test_verify_grad():
    for activation in ACTIVATIONS:
        yield check_verify_grad, FusedFilterActs, activation
    for activation in ACTIVATIONS[2:]:
        yield check_verify_grad, FusedActsGrad, activation


def check_verify_grad(op_class, activation):
    _, function, arrays = differentiable(op_class, activation)
    # A step of 1e-7, so that none of the few values crosses 0.
    verify_grad(function, arrays, rng=np.random.RandomState(), mode=CPU_MODE, eps=1e-7)


def test_directions():
    yield check_directions, FusedFilterActs, ACTIVATIONS[2]
    yield check_directions, FusedActsGrad, ACTIVATIONS[4]


def check_directions(op_class, activation):
    check_direction(*differentiable(op_class, activation) + ("cpu", "float64"))


# The rewrite.

RECTIFIERS = {
    "T.nnet.relu": T.nnet.relu,
    "T.nnet.relu, alpha": lambda z: T.nnet.relu(z, 0.1),
    "T.nnet.relu, small alpha": lambda z: T.nnet.relu(z, 0.01),
    "T.maximum(z, 0)": lambda z: T.maximum(z, 0),
    "T.maximum(0, z)": lambda z: T.maximum(0, z),
    "T.maximum(z, 0.1 * z)": lambda z: T.maximum(z, 0.1 * z),
    "T.switch(z > 0, z, 0)": lambda z: T.switch(z > 0, z, 0),
    "T.switch(z < 0, 0, z)": lambda z: T.switch(z < 0, 0, z),
    "T.switch(z > 0, z, 0.1 * z)": lambda z: T.switch(z > 0, z, 0.1 * z),
    "z * (z > 0)": lambda z: z * (z > 0),
    "(z + abs(z)) / 2": lambda z: (z + abs(z)) / 2,
}

OTHERS = {
    "T.tanh": T.tanh,
    "T.nnet.sigmoid": T.nnet.sigmoid,
    "1 / (1 + T.exp(-z))": lambda z: 1 / (1 + T.exp(-z)),
}

# An activation that is not known, or is so only on one side of a constant.
UNKNOWN = {
    "T.clip": lambda z: T.clip(z, 0, 1e30),
    "threshold": lambda z: T.switch(z > 1e-3, z, 0),
    "scaled tanh": lambda z: 1.7159 * T.tanh(2 * z / 3),
    "two activations": lambda z: T.nnet.relu(z) * T.tanh(z),
    "a slope below 0": lambda z: T.nnet.relu(z, -0.2),
    "PReLU": lambda z: T.nnet.relu(z, T.arange(8).astype(z.dtype).dimshuffle(0, "x", "x", "x")),
}


def conv_layers(activation, x, w, b, v, c):
    """Two layers and a cost: the second one's bias is followed by pooling."""
    layer = activation(FilterActs(pad=1)(x, w) + b.dimshuffle(0, "x", "x", "x"))
    return layer, MaxPool(2, 2)(FilterActs()(layer, v) + c.dimshuffle(0, "x", "x", "x"))


def layers_data(dtype):
    """Zeros among the images, and biases of 0: the activation is at exactly 0 there."""
    rng = np.random.RandomState()
    shapes = (3, 8, 8, 4), (3, 3, 3, 8), (8,), (8, 3, 3, 4), (4,)
    values = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    values[0][:, :4] = 0
    values[2][:5] = 0
    return values


def layers_function(activation, dtype, device, fusion):
    variables = [T.TensorType(dtype, (False,) * ndim)() for ndim in (4, 4, 1, 4, 1)]
    inputs = [variable.transfer(GPU_CONTEXT) for variable in variables] if device == "gpu" else variables
    layer, pooled = conv_layers(activation, *inputs)
    cost = (pooled**3).sum()
    outputs = [layer, cost] + T.grad(cost, variables)
    mode = GPU_MODE if device == "gpu" else CPU_MODE
    if not fusion:
        mode = mode.excluding("convnet_ops_fusion")
    return theano.function(variables, outputs, mode=mode)


def op_types(function):
    return [type(node.op) for node in function.maker.fgraph.toposort()]


def check_layers(activation, dtype, device):
    """Two layers: the same values with the rewrite and without; with it no node is left that it should have taken."""
    if device == "gpu":
        gpu_or_skip()
    on, off = (layers_function(activation, dtype, device, fusion) for fusion in (True, False))
    forward, backward, conv = FusedFilterActs, FusedActsGrad, FilterActs
    if device == "gpu":
        forward, backward, conv = (GPU_TWINS[op] for op in (forward, backward, conv))
    types = op_types(on)
    assert types.count(forward) == 2 and types.count(backward) == 1 and conv not in types, types
    assert forward not in op_types(off) and backward not in op_types(off)
    values = layers_data(dtype)
    for found, wanted in zip(on(*values), off(*values)):
        # Two results, each within its own rounding.
        assert_close(np.array(found), np.array(wanted, "float64"), 10000, "fused, %s on %s" % (dtype, device))


def test_layers():
    yield check_layers, T.nnet.relu, "float64", "cpu"


def test_layers_gpu():
    yield check_layers, T.nnet.relu, "float32", "gpu"
    yield check_layers, T.tanh, "float32", "gpu"


def one_layer(activation, fusion):
    """A layer, and its gradients; its output's gradients are the images', of the same shape."""
    x, w, b = T.ftensor4("x"), T.ftensor4("w"), T.fvector("b")
    acts = activation(FilterActs(pad=1)(x, w) + b.dimshuffle(0, "x", "x", "x"))
    outputs = [acts] + T.grad(None, [w, b], known_grads={acts: x})
    return theano.function([x, w, b], outputs, mode=CPU_MODE if fusion else UNFUSED_MODE)


def one_layer_data():
    rng = np.random.RandomState()
    images, filters = (rng.standard_normal(shape).astype("float32") for shape in ((8, 8, 8, 4), (8, 3, 3, 8)))
    images[:, :4] = 0
    return images, filters, np.float32([0, 0, 0, 0, 0, 0.1, -0.2, 0.3])


def test_rewrite():
    for name, activation in dict(RECTIFIERS, **OTHERS).items():
        yield check_rewrite, name, activation


def check_rewrite(name, activation):
    on, off = (one_layer(activation, fusion) for fusion in (True, False))
    assert FilterActs not in op_types(on) and op_types(on).count(FusedActsGrad) == 1, op_types(on)
    values = one_layer_data()
    for found, wanted in zip(on(*values), off(*values)):
        assert_close(found, wanted.astype("float64"), 10000, name)


def test_derivative_at_zero():
    for name, activation in RECTIFIERS.items():
        yield check_derivative_at_zero, name, activation


def check_derivative_at_zero(name, activation):
    """Where the sum with the bias is exactly 0, the gradient is that of the form that the model is written in."""
    x, w, b = T.ftensor4("x"), T.ftensor4("w"), T.fvector("b")
    derivatives = []
    for mode in (CPU_MODE, UNFUSED_MODE):
        acts = activation(FilterActs()(x, w) + b.dimshuffle(0, "x", "x", "x"))
        function = theano.function([x, w, b], [T.grad((acts * (1 + x)).sum(), b), acts], mode=mode)
        # One value a channel: -1, 0 and 1.
        images, filters = np.zeros((3, 1, 1, 1), "float32"), np.zeros((3, 1, 1, 3), "float32")
        gradient, _ = function(images, filters, np.float32([-1, 0, 1]))
        derivatives.append((FusedActsGrad in op_types(function), gradient))
    (is_fused, found), (was_fused, wanted) = derivatives
    assert is_fused and not was_fused, name
    np.testing.assert_allclose(found, wanted, 1e-6, err_msg=name)


def test_unknown_activations_stay():
    for name, activation in UNKNOWN.items():
        yield check_unknown, name, activation


def check_unknown(name, activation):
    on, off = (one_layer(activation, fusion) for fusion in (True, False))
    assert FusedFilterActs not in op_types(on), name
    values = one_layer_data()
    for found, wanted in zip(on(*values), off(*values)):
        assert_identical(found, wanted, name)


def test_a_clipped_gradient():
    """What is not proportional to the gradient is no part of it."""
    x, w, b = T.ftensor4("x"), T.ftensor4("w"), T.fvector("b")
    biased = theano.gradient.grad_clip(FilterActs(pad=1)(x, w) + b.dimshuffle(0, "x", "x", "x"), -5, 5)
    acts = T.nnet.relu(biased)
    outputs = [acts] + T.grad(None, [w, b], known_grads={acts: x})
    on, off = (theano.function([x, w, b], outputs, mode=mode) for mode in (CPU_MODE, UNFUSED_MODE))
    assert FusedActsGrad in op_types(on)
    images, filters, bias = one_layer_data()
    for found, wanted in zip(*(function(10 * images, filters, bias) for function in (on, off))):
        assert_close(found, wanted.astype("float64"), 10000, "clipped")


def test_other_readers_keep_what_they_read():
    """The sum before the activation as an output: then it cannot go, and nothing is fused twice over."""
    x, w, b = T.ftensor4("x"), T.ftensor4("w"), T.fvector("b")
    conv = FilterActs()(x, w)
    biased = conv + b.dimshuffle(0, "x", "x", "x")
    values = layers_data("float32")[:3]
    sums = reference.fused_filter_acts(*values)
    for outputs in ([conv, T.tanh(biased)], [biased, T.tanh(biased)]):
        function = theano.function([x, w, b], outputs, mode=CPU_MODE)
        convolutions = [op for op in op_types(function) if op in (FilterActs, FusedFilterActs)]
        assert len(convolutions) == 1, convolutions
        assert_close(function(*values)[1], np.tanh(sums), 27, "tanh")


def test_a_broadcast_gradient():
    """Of a mean over rows and columns: it is made whole, since the op takes no other."""
    x, w, b = T.ftensor4("x"), T.ftensor4("w"), T.fvector("b")
    acts = T.nnet.relu(FilterActs()(x, w) + b.dimshuffle(0, "x", "x", "x"))
    outputs = T.grad(((acts.sum(axis=(1, 2)) / 36) ** 2).sum(), [x, w, b])
    on, off = (theano.function([x, w, b], outputs, mode=mode) for mode in (CPU_MODE, UNFUSED_MODE))
    assert FusedActsGrad in op_types(on)
    values = one_layer_data()
    for found, wanted in zip(on(*values), off(*values)):
        assert_close(found, wanted.astype("float64"), 10000, "mean")


def test_a_training_step():
    """A bias as a shared variable, dropout behind the activation: costs and updated parameters agree."""
    values = layers_data("float32")
    steps = []
    for mode in (CPU_MODE, UNFUSED_MODE):
        x, mask = T.ftensor4("x"), T.ftensor4("mask")
        w, b = (theano.shared(value) for value in values[1:3])
        acts = T.nnet.relu(FilterActs()(x, w) + b.dimshuffle(0, "x", "x", "x")) * mask
        cost = (FilterActs()(acts, T.constant(values[3])) ** 2).sum() / 1000
        step = theano.function([x, mask], cost, updates=[(p, p - 0.1 * T.grad(cost, p)) for p in (w, b)], mode=mode)
        rng = np.random.RandomState(0)
        masks = [(rng.uniform(size=(8, 6, 6, 4)) > 0.5).astype("float32") for _ in range(3)]
        costs = np.array([step(values[0], mask) for mask in masks])
        steps.append((op_types(step), costs, w.get_value(), b.get_value()))
    assert FusedActsGrad in steps[0][0] and FusedActsGrad not in steps[1][0]
    for found, wanted in zip(steps[0][1:], steps[1][1:]):
        assert_close(found.astype("float32"), wanted.astype("float64"), 10000, "training")


# What Theano asks of an op, and what the ops do not take.


def test_protocol():
    one, same = (FusedFilterActs(pad=pad, activation="leaky_relu", slope=0.5) for pad in (1, (1, 1)))
    assert one == same and hash(one) == hash(same) and pickle.loads(pickle.dumps(one, -1)) == one
    others = [FusedFilterActs(pad=1, activation="leaky_relu", slope=0.5, at_zero=1), FusedFilterActs(pad=1)]
    assert len(set(others + [one])) == 3
    grad = FusedActsGrad("relu", at_zero=0.5)
    assert pickle.loads(pickle.dumps(grad, -1)) == grad != FusedActsGrad("relu")
    assert pickle.loads(pickle.dumps(GPU_TWINS[FusedActsGrad]("tanh"), -1)).func_codes


def test_shapes_without_values():
    x, w, b = T.ftensor4("x"), T.ftensor4("w"), T.fvector("b")
    values = layers_data("float32")[:3]
    acts = FusedFilterActs(pad=2, stride=3, activation="relu")(x, w, b)
    gz, gbias = FusedActsGrad("relu")(acts, acts, return_list=True)
    shapes = theano.function([x, w, b], [acts.shape, gz.shape, gbias.shape], mode=CPU_MODE, on_unused_input="ignore")
    assert not {FusedFilterActs, FusedActsGrad} & set(op_types(shapes))
    found = theano.function([x, w, b], [acts, gz, gbias], mode=CPU_MODE)(*values)
    assert [tuple(shape) for shape in shapes(*values)] == [value.shape for value in found]


def test_memory_layouts():
    for device in DEVICES:
        yield check_memory_layouts, device


def check_memory_layouts(device):
    """Views of any strides give what contiguous arrays give, a bias with a stride too."""
    if device == "gpu":
        gpu_or_skip()
    rng = np.random.RandomState()
    images, filters = (rng.standard_normal(s).astype("float32") for s in ((4, 3, 7, 6), (6, 3, 3, 3)))
    bias = rng.standard_normal(12).astype("float32")
    views = [images.transpose(1, 2, 3, 0)[:, ::-1], filters.transpose(1, 2, 3, 0), bias[::-2]]
    x, w, b = T.ftensor4("x"), T.ftensor4("w"), T.fvector("b")
    inputs = [v.transfer(GPU_CONTEXT) if device == "gpu" else v for v in (x, w, b)]
    inputs = [i.dimshuffle(1, 2, 3, 0)[:, ::-1] for i in inputs[:1]] + [
        inputs[1].dimshuffle(1, 2, 3, 0),
        inputs[2][::-2],
    ]
    acts = FusedFilterActs(activation="tanh")(*inputs)
    gz, gbias = FusedActsGrad("tanh")(acts.dimshuffle(0, 2, 1, 3), acts.dimshuffle(0, 2, 1, 3), return_list=True)
    function = theano.function([x, w, b], [acts, gz, gbias], mode=GPU_MODE if device == "gpu" else CPU_MODE)
    found = [np.array(value) for value in function(images, filters, bias)]
    wanted = reference.fused_filter_acts(*views, activation="tanh")
    assert_close(found[0], wanted, 27, "acts")
    turned = found[0].transpose(0, 2, 1, 3)
    for value, expected in zip(found[1:], reference.fused_acts_grad(turned, turned, "tanh")):
        assert_close(value, expected, 1, "gradient")


def test_bad_arguments():
    x, b, d = T.ftensor4("x"), T.fvector("b"), T.dvector("d")
    for error, words, call in [
        (
            ValueError,
            ["FusedFilterActs: activation is 'elu'", "'leaky_relu'"],
            lambda: FusedFilterActs(activation="elu"),
        ),
        (ValueError, ["FusedActsGrad: slope is -0.1", "at least 0"], lambda: FusedActsGrad("leaky_relu", -0.1)),
        (ValueError, ["FusedActsGrad: slope is 0.1", "'relu'", "must be 0"], lambda: FusedActsGrad("relu", 0.1)),
        (ValueError, ["FusedActsGrad: at_zero is 1", "'tanh'"], lambda: FusedActsGrad("tanh", at_zero=1)),
        (ValueError, ["at_zero is inf", "finite"], lambda: FusedActsGrad("relu", at_zero=float("inf"))),
        (TypeError, ["FusedActsGrad: slope is '1'", "a number"], lambda: FusedActsGrad("leaky_relu", "1")),
        (TypeError, ["FusedFilterActs: bias has 4 dimensions", "must have 1"], lambda: FusedFilterActs()(x, x, x)),
        (TypeError, ["bias is float64; it must be float32, as images is"], lambda: FusedFilterActs()(x, x, d)),
        (TypeError, ["FusedActsGrad: gacts has 1 dimensions"], lambda: FusedActsGrad()(x, b)),
    ]:
        yield raises, error, words, call


def test_bad_shapes():
    def ones(*shape):
        return np.ones(shape, "float32")

    images, filters = ones(3, 6, 6, 2), ones(3, 3, 3, 4)
    for device in DEVICES:
        for op, arrays, words in [
            (
                FusedFilterActs(),
                [images, filters, ones(3)],
                ["bias has 3 elements; it must have 4, one for each filter"],
            ),
            (FusedFilterActs(), [ones(2, 6, 6, 2), filters, ones(4)], ["FusedFilterActs: filters has 3 channels"]),
            (
                FusedActsGrad("relu"),
                [images, ones(3, 6, 5, 2)],
                ["gacts has shape (3, 6, 5, 2); it must be (3, 6, 6, 2)"],
            ),
            (FusedActsGrad("relu"), [ones(0, 6, 6, 2)] * 2, ["acts has shape (0, 6, 6, 2); every size"]),
        ]:
            yield check_bad_shapes, op, arrays, words, device


def check_bad_shapes(op, arrays, words, device):
    if device == "gpu":
        gpu_or_skip()
    function, on_gpu = compiled(op, device, arrays)
    raises(ValueError, words, function, *[to_gpu(a) if on_gpu and a.ndim == 4 else a for a in arrays])
