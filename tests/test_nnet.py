"""conv2d, its gradients and pool_2d against Theano's functions of these names, in float64, on the CPU and the GPU."""

import inspect
import warnings

import numpy as np
import theano
import theano.tensor as T
from convnet_ops import nnet
from convnet_ops.base import ConvnetOp, GpuOp
from theano.compile.mode import Mode
from theano.tensor.nnet import abstract_conv
from theano.tensor.signal import pool

from tests.comparison import assert_close
from tests.processors import gpu_or_skip

CPU = Mode(linker="cvm", optimizer="fast_run").excluding("gpuarray")
GPU = Mode(linker="cvm", optimizer="fast_run").including("gpuarray")

# images (N, C, H, W), filters (F, C / groups, R, S), arguments
CONVS = [
    ((4, 3, 8, 9), (8, 3, 3, 2), dict()),
    ((4, 3, 8, 9), (8, 3, 3, 2), dict(filter_flip=False, border_mode="full")),
    ((3, 2, 9, 8), (5, 2, 4, 3), dict(border_mode="half", subsample=(2, 2))),
    ((2, 3, 12, 11), (4, 3, 3, 3), dict(border_mode=1, subsample=(2, 3))),
    ((4, 3, 14, 13), (4, 3, 5, 5), dict(border_mode=(2, 1), subsample=(4, 4))),
    ((4, 2, 7, 8), (4, 2, 3, 3), dict(border_mode=((1, 2), (0, 3)))),
    ((4, 2, 8, 8), (4, 2, 3, 3), dict(border_mode=((2, 0), (1, 2)), subsample=(2, 2), filter_flip=False)),
    ((2, 2, 9, 9), (4, 2, 1, 2), dict(subsample=(3, 4))),
    ((4, 6, 6, 6), (4, 3, 3, 3), dict(num_groups=2, border_mode="half")),
]

# images (N, C, H, W), arguments of pool_2d
POOLS = [
    ((2, 3, 8, 8), dict(ws=(2, 2), ignore_border=True)),
    ((2, 3, 9, 7), dict(ws=(2, 3), ignore_border=True)),
    ((2, 3, 9, 7), dict(ws=(2, 3), ignore_border=False)),
    ((2, 3, 9, 8), dict(ws=(3, 3), stride=(2, 2), ignore_border=True)),
    ((2, 3, 8, 9), dict(ws=(3, 3), stride=(2, 2), ignore_border=False)),
    ((2, 3, 9, 8), dict(ws=(3, 3), stride=(2, 2), pad=(1, 1), ignore_border=True)),
    ((2, 3, 9, 8), dict(ws=(3, 4), stride=(2, 1), pad=(2, 3), ignore_border=True)),
    ((2, 3, 9, 8), dict(ws=(2, 2), stride=(3, 4), ignore_border=False)),
    ((2, 3, 9, 8), dict(ws=(2, 2), stride=(4, 3), ignore_border=True)),
    ((2, 3, 3, 2), dict(ws=(4, 5), stride=(2, 2), ignore_border=False)),
]
MODES = "max", "sum", "average_inc_pad", "average_exc_pad"


def evaluate(outputs, inputs, values, mode, dtype):
    function = theano.function(inputs, outputs, mode=mode, on_unused_input="ignore")
    return [np.asarray(out) for out in function(*[value.astype(dtype) for value in values])], function


def check(build_ours, build_theanos, values, terms, gpu):
    """The outputs of both, each built from 4-D variables, are equal, and ours were computed by our ops alone."""
    inputs = [T.TensorType("float64", (False,) * 4)() for _ in values]
    expected, _ = evaluate(build_theanos(*inputs), inputs, values, CPU, "float64")
    inputs = [T.TensorType("float32", (False,) * 4)() for _ in values]
    found, function = evaluate(build_ours(*inputs), inputs, values, GPU if gpu else CPU, "float32")
    ops = [node.op for node in function.maker.fgraph.toposort()]
    assert not [op for op in ops if isinstance(op, (abstract_conv.BaseAbstractConv,) + nnet.POOL_OPS)], ops
    assert any(isinstance(op, GpuOp if gpu else ConvnetOp) for op in ops), ops
    for index, (one, other) in enumerate(zip(found, expected)):
        assert_close(one, other, terms, "output %d" % index)


def test_cpu():
    for images, filters, options in CONVS:
        yield check_conv, images, filters, options, False
    for shape, options in POOLS:
        for mode in MODES:
            yield check_pool, shape, dict(options, mode=mode), False


def test_gpu():
    for images, filters, options in CONVS:
        yield check_conv, images, filters, options, True
    # Each case compiles for seconds: the maximum everywhere, the others in turn.
    for index, (shape, options) in enumerate(POOLS):
        yield check_pool, shape, dict(options, mode="max"), True
        yield check_pool, shape, dict(options, mode=MODES[1 + index % 3]), True


def check_conv(images_shape, filters_shape, options, gpu):
    """The three functions, and Theano's derivatives of ours."""
    if gpu:
        gpu_or_skip()
    rng = np.random.RandomState()
    out_shape = abstract_conv.get_conv_output_shape(
        images_shape,
        filters_shape,
        options.get("border_mode", "valid"),
        options.get("subsample", (1, 1)),
    )
    values = [rng.standard_normal(shape) for shape in (images_shape, filters_shape, out_shape)]

    def theanos(x, w, g):
        return [
            T.nnet.conv2d(x, w, **options),
            abstract_conv.conv2d_grad_wrt_inputs(g, w, images_shape, **options),
            abstract_conv.conv2d_grad_wrt_weights(x, g, filters_shape, **options),
        ]

    def ours(x, w, g):
        out = nnet.conv2d(x, w, **options)
        return [
            out,
            nnet.conv2d_grad_wrt_inputs(g, w, images_shape, **options),
            nnet.conv2d_grad_wrt_weights(x, g, filters_shape, **options),
        ] + T.grad(None, [x, w], known_grads={out: g})

    def theanos_and_gradients(x, w, g):
        out, images, filters = theanos(x, w, g)
        return [out, images, filters, images, filters]

    check(ours, theanos_and_gradients, values, int(np.prod(images_shape)), gpu)


def check_pool(shape, options, gpu):
    """Values and gradients; ties in a maximum's window are frequent."""
    if gpu:
        gpu_or_skip()
    rng = np.random.RandomState()
    x_value = rng.randint(-3, 4, shape).astype("float64")
    out_shape = pool.Pool.out_shape(
        shape, options["ws"], options["ignore_border"], options.get("stride"), options.get("pad")
    )

    # Theano has no gradient there.
    differentiable = options["mode"] != "average_exc_pad" or "pad" not in options

    def derived(function):
        def build(x, g):
            out = function(x, **options)
            return [out] + ([T.grad(None, x, known_grads={out: g})] if differentiable else [])

        return build

    check(derived(nnet.pool_2d), derived(pool.pool_2d), [x_value, rng.standard_normal(out_shape)], 60, gpu)


def test_max_pool_2d():
    """The name that Theano dropped, with its positional arguments."""
    x = T.ftensor4("x")
    ours = nnet.max_pool_2d(x, (3, 3), True, (2, 2), (1, 1))
    theanos = pool.pool_2d(x, (3, 3), True, (2, 2), (1, 1))
    value = np.random.RandomState().standard_normal((2, 3, 8, 9)).astype("float32")
    one, other = theano.function([x], [ours, theanos], mode=CPU)(value)
    assert np.array_equal(one, other)


def test_signatures():
    """The functions take exactly Theano's arguments."""
    for ours, theanos in (
        (nnet.conv2d, T.nnet.conv2d),
        (nnet.conv2d_grad_wrt_inputs, abstract_conv.conv2d_grad_wrt_inputs),
        (nnet.conv2d_grad_wrt_weights, abstract_conv.conv2d_grad_wrt_weights),
        (nnet.pool_2d, pool.pool_2d),
    ):
        yield check_signature, ours, theanos


def check_signature(ours, theanos):
    assert inspect.signature(ours) == inspect.signature(theanos)


def test_left_to_theano():
    """What the ops cannot take is Theano's own node, and gives its values."""
    x, w = T.ftensor4s("x", "w")
    window = T.ivector("window")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for variable, op in (
            (nnet.conv2d(x, w, filter_dilation=(2, 2)), abstract_conv.AbstractConv2d),
            (nnet.conv2d(x.astype("float16"), w.astype("float16")), abstract_conv.AbstractConv2d),
            (nnet.conv2d(x, T.TensorType("float32", (False,) * 6)(), unshared=True), abstract_conv.AbstractConv2d),
            (nnet.pool_2d(x, window, True), pool.Pool),
            (nnet.pool_2d(x.sum(axis=0), (2, 2), True), pool.Pool),
        ):
            assert type(variable.owner.op) is op, variable.owner


def test_errors_are_theanos():
    """Bad arguments raise what Theano raises."""
    x, w = T.ftensor4s("x", "w")
    for arguments in (dict(border_mode="same"), dict(border_mode=-1), dict(subsample=(1, 1, 1)), dict(num_groups=0)):
        errors = []
        for function in (nnet.conv2d, T.nnet.conv2d):
            try:
                function(x, w, **arguments)
            except Exception as error:
                errors.append((type(error), str(error)))
        assert len(errors) == 2 and errors[0] == errors[1], (arguments, errors)


def test_infer_shape():
    """Shapes follow from the inputs' alone: no convolution or pooling is computed for them."""
    x, w = T.ftensor4s("x", "w")
    out = nnet.pool_2d(
        nnet.conv2d(x, w, border_mode=((1, 2), (0, 3)), subsample=(2, 3)), (3, 2), True, (2, 2), (1, 1)
    )
    kept = nnet.pool_2d(x, (5, 20), False, (3, 4))
    function = theano.function([x, w], [out.shape, kept.shape], mode=CPU)
    assert not any(isinstance(node.op, ConvnetOp) for node in function.maker.fgraph.toposort())
    values = np.zeros((2, 3, 20, 17), "float32"), np.zeros((5, 3, 3, 4), "float32")
    whole = theano.function([x, w], [out, kept], mode=CPU)(*values)
    assert [tuple(shape) for shape in function(*values)] == [value.shape for value in whole]
