"""What Theano asks of an op: equality, merging, pickling, shapes, names, memory layouts, broadcasting."""

import pickle

import numpy as np
import theano
import theano.tensor as T
from convnet_ops import (
    AvgPool,
    AvgPoolGrad,
    FilterActs,
    ImageActs,
    MaxPool,
    MaxPoolGrad,
    MaxPoolRop,
    ProbMaxPool,
    StochasticMaxPool,
    WeightActs,
    WeightedMaxPool,
    bc01_to_c01b,
    c01b_to_bc01,
    gpu_contiguous,
    max_pool_c01b,
    reference,
)
from convnet_ops.opt import GPU_TWINS
from convnet_ops.pool import SumPool, SumPoolGrad
from theano.compile.mode import Mode

from tests.comparison import assert_close, assert_identical
from tests.processors import DEVICES, Processor, gpu_or_skip, to_gpu, variable_for

CPU_MODE = Mode(linker="cvm", optimizer="fast_run").excluding("gpuarray")
GPU_MODE = Mode(linker="cvm", optimizer="fast_run").including("gpuarray")

CONV_OPS = (FilterActs, ImageActs, WeightActs)
POOL_OPS = (MaxPool, MaxPoolGrad, MaxPoolRop, AvgPool, AvgPoolGrad, SumPool, SumPoolGrad)


def test_equality():
    for op_class in CONV_OPS + tuple(GPU_TWINS[op] for op in CONV_OPS):
        one, same = op_class(pad=1, stride=2), op_class(pad=(1, 1), stride=(2, 2))
        assert one == same and hash(one) == hash(same)
        others = [op_class(), op_class(pad=1, stride=1), op_class(1, 1, 2), op_class(1, None, 2, 3), op_class("full")]
        assert len(set(others + [one, same])) == len(others) + 1
    for op_class in POOL_OPS + tuple(GPU_TWINS[op] for op in POOL_OPS):
        assert op_class(2, 2) == op_class((2, 2), (2, 2), 0, 0)
        assert len({op_class(2, 2), op_class(3, 2), op_class(2, 3), op_class(2, 2, 1), op_class(2, 2, 0, 1)}) == 5
    assert FilterActs() != ImageActs() and FilterActs() != GPU_TWINS[FilterActs]()


def test_arguments_are_positional_and_have_old_names():
    op = FilterActs(1, 4, 2, 3, "float32")
    assert (op.pad, op.partial_sum, op.stride, op.groups, op.precision) == ((1, 1), 4, (2, 2), 3, "float32")
    assert FilterActs(numGroups=3) == FilterActs(groups=3)
    assert FilterActs(pad="valid") == FilterActs()
    pool = MaxPool(3, 2, -1, 5)
    assert (pool.ds, pool.stride, pool.start, pool.outputs) == ((3, 3), (2, 2), (-1, -1), (5, 5))


def test_precision_comes_from_theanos_flag():
    assert FilterActs().precision == "float32"
    previous = theano.config.convnet_ops.precision
    theano.config.convnet_ops.precision = "tf32"
    try:
        op = FilterActs(pad=1)
        assert op.precision == "tf32" and op.tf32 and op != FilterActs(pad=1, precision="float32")
        # An op keeps what it was made with, its gradients and its pickles too.
        assert op.like_this(WeightActs).precision == "tf32"
    finally:
        theano.config.convnet_ops.precision = previous
    assert pickle.loads(pickle.dumps(op, -1)) == op and op.precision == "tf32"
    assert FilterActs(precision="float32").like_this(ImageActs) == ImageActs(precision="float32")
    # What rounds to halves may round to TF32.
    halves = FilterActs(precision="float16").like_this(ImageActs)
    assert halves.float16 and halves.tf32 and not op.float16 and halves != ImageActs(precision="tf32")


def test_str_names_the_op_and_its_arguments():
    assert str(FilterActs(pad=2)).startswith("FilterActs{pad=(2, 2), partial_sum=None, stride=(1, 1), groups=1")
    assert str(GPU_TWINS[MaxPool](2, 2)).startswith("GpuMaxPool{ds=(2, 2)")


def test_pickle():
    for op_class in CONV_OPS:
        for op in (op_class(pad="half", partial_sum=2, stride=(1, 2), groups=2), GPU_TWINS[op_class](pad=3)):
            again = pickle.loads(pickle.dumps(op, -1))
            assert type(again) is type(op) and again == op
            assert again.func_codes == op.func_codes
    for op_class in POOL_OPS:
        assert pickle.loads(pickle.dumps(op_class(3, 2, -1), -1)) == op_class(3, 2, -1)


def test_pickled_function():
    x, w = T.ftensor4s("x", "w")
    function = theano.function([x, w], MaxPool(2, 2)(FilterActs()(x, w)), mode=CPU_MODE)
    rng = np.random.RandomState()
    values = [rng.standard_normal(shape).astype("float32") for shape in ((2, 6, 6, 3), (2, 3, 3, 4))]
    assert_identical(pickle.loads(pickle.dumps(function, -1))(*values), function(*values), "pickled function")


def test_equal_ops_merge():
    x, w = T.ftensor4s("x", "w")
    function = theano.function([x, w], [FilterActs(pad=1)(x, w), FilterActs(pad=(1, 1))(x, w)], mode=CPU_MODE)
    assert sum(type(node.op) is FilterActs for node in function.maker.fgraph.apply_nodes) == 1


def test_infer_shape():
    x, w = T.ftensor4s("x", "w")
    rng = np.random.RandomState()
    for options in (
        dict(),
        dict(pad="full", stride=(2, 3)),
        dict(pad="half"),
        dict(pad=(2, 0), stride=5),
        dict(groups=2, stride=2),
    ):
        groups = options.get("groups", 1)
        images = rng.standard_normal((2 * groups, 9, 8, 3)).astype("float32")
        filters = rng.standard_normal((2, 4, 3, 2 * groups)).astype("float32")
        yield check_infer_shape, FilterActs(**options), [images, filters]
        hid = reference.filter_acts(images, filters, **options).astype("float32")
        yield check_infer_shape, ImageActs(**options), [hid, filters, np.array([9, 8])]
        yield check_infer_shape, WeightActs(**options), [images, hid, np.array([4, 3])]
    for arguments in (
        dict(ds=2, stride=2),
        dict(ds=3, stride=2, start=-1),
        dict(ds=2, stride=3),
        dict(ds=2, stride=1, outputs=4),
    ):
        images = rng.standard_normal((2, 8, 9, 3)).astype("float32")
        maxout = reference.max_pool(images, **arguments).astype("float32")
        yield check_infer_shape, MaxPool(**arguments), [images]
        yield check_infer_shape, MaxPoolGrad(**arguments), [images, maxout, maxout]
        yield check_infer_shape, MaxPoolRop(**arguments), [images, images]
        yield check_infer_shape, AvgPool(**arguments), [images]
        yield check_infer_shape, AvgPoolGrad(**arguments), [maxout, np.array([8, 9])]


def check_infer_shape(op, values):
    """The shape of the first output, computed without running the op, is that of its value."""
    variables = [variable_for(value, False) for value in values]
    out = op(*variables, return_list=True)[0]
    shape = theano.function(variables, out.shape, mode=CPU_MODE, on_unused_input="ignore")
    assert not any(type(node.op) is type(op) for node in shape.maker.fgraph.apply_nodes), "%s runs for its shape" % op
    value = theano.function(variables, out, mode=CPU_MODE)(*values)
    assert tuple(shape(*values)) == value.shape, (op, tuple(shape(*values)), value.shape)


def test_shape_of_partial_sums():
    x, h = T.ftensor4s("x", "h")
    gradient, partials = WeightActs()(x, h, (2, 2))
    values = np.ones((2, 5, 5, 3), "float32"), np.ones((4, 4, 4, 3), "float32")
    shape, value = theano.function([x, h], [partials.shape, partials], mode=CPU_MODE)(*values)
    assert tuple(shape) == value.shape and value.shape[1:] == (2, 2, 2, 4)


def test_partial_sum_bounds_the_partials_and_changes_no_result():
    for device in DEVICES:
        yield check_partial_sum, device


def check_partial_sum(device):
    if device == "gpu":
        gpu_or_skip()
    rng = np.random.RandomState()
    images, hid = (
        rng.standard_normal((2, 9, 9, 3)).astype("float32"),
        rng.standard_normal((4, 8, 8, 3)).astype("float32"),
    )
    wanted = reference.weight_acts(images, hid, (2, 2))
    for partial_sum in (None, 1, 4, 32, 64):
        op = WeightActs(partial_sum=partial_sum)
        gradient, partials = Processor(device).run(op, images, hid, np.array([2, 2]))
        assert_close(gradient, wanted, hid[0].size, "partial_sum=%s" % partial_sum)
        assert partial_sum is None or len(partials) <= 64 // partial_sum
    # One output pixel of many images: without partial_sum the sum may be cut there too.
    images, hid = (rng.standard_normal((count, 1, 1, 8200)).astype("float32") for count in (2, 4))
    for partial_sum in (None, 1):
        op = WeightActs(partial_sum=partial_sum)
        gradient, partials = Processor(device).run(op, images, hid, np.array([1, 1]))
        assert_close(gradient, reference.weight_acts(images, hid, (1, 1)), 8200, "1 x 1, partial_sum=%s" % partial_sum)
        assert len(partials) == 1 if partial_sum else len(partials) > 1, (partial_sum, len(partials))


def test_image_acts_needs_no_shape_at_stride_1():
    rng = np.random.RandomState()
    h, w = T.ftensor4s("h", "w")
    filters = rng.standard_normal((2, 3, 2, 4)).astype("float32")
    for pad in (0, (2, 1), "full", "half"):
        hid = reference.filter_acts(rng.standard_normal((2, 6, 5, 3)), filters, pad=pad).astype("float32")
        out = ImageActs(pad=pad)(h, w)
        value, shape = theano.function([h, w], [out, out.shape], mode=CPU_MODE)(hid, filters)
        assert tuple(shape) == value.shape == (2, 6, 5, 3)
        assert_close(value, reference.img_acts(hid, filters, pad=pad), 24, "pad=%r" % (pad,))


def test_output_shape_in_all_its_forms():
    h, w, rows = T.ftensor4("h"), T.ftensor4("w"), T.iscalar("rows")
    values = np.ones((4, 3, 3, 2), "float32"), np.ones((2, 3, 3, 4), "float32")
    for size in ((7, 7), [7, 7], np.array([7, 7]), (rows, 7), T.stack([rows, rows]), T.as_tensor_variable([7, 7])):
        out = ImageActs(stride=2)(h, w, size)
        function = theano.function([h, w, rows], out, mode=CPU_MODE, on_unused_input="ignore")
        assert function(values[0], values[1], 7).shape == (2, 7, 7, 2)


def test_memory_layouts():
    for device in DEVICES:
        yield check_memory_layouts, device


def check_memory_layouts(device):
    """Views of any strides give what contiguous arrays give."""
    if device == "gpu":
        gpu_or_skip()
    rng = np.random.RandomState()
    big = rng.standard_normal((9, 8, 14, 11)).astype("float32")
    views = [
        big[:3, 1:, ::2, ::-1],
        big.transpose(1, 2, 3, 0)[:3, 3:10, 2:9, :8],
        np.asfortranarray(big[:3, :7, :7, :8]),
        big[1:4, :7, :7, 1:9],
        np.broadcast_to(big[:1, :7, :7, :8], (3, 7, 7, 8)),
    ]
    filters = rng.standard_normal((5, 3, 3, 3)).astype("float32").transpose(1, 2, 3, 0)
    x, w = variable_for(big, device == "gpu"), variable_for(filters, device == "gpu")
    conv = FilterActs(pad=1)(x, w)
    pooled = MaxPool(3, 2)(x)
    outputs = [conv, pooled] + T.grad((conv**2).sum() + (pooled**2).sum(), [x, w])
    others = [AvgPool(3, 2)(x), StochasticMaxPool(3, 2)(x, 0), WeightedMaxPool(3, 2)(x)]
    others += ProbMaxPool(3)(x, x[:, ::3, ::3])
    outputs += others + [T.grad(sum((other**2).sum() for other in others), x)]
    if device == "gpu":
        outputs = [output.transfer("cpu") for output in outputs]
    function = theano.function([x, w], outputs, mode=GPU_MODE if device == "gpu" else CPU_MODE)
    convert = strided_gpu_array if device == "gpu" else np.array
    for number, view in enumerate(views):
        source = strided_gpu_array(view) if device == "gpu" else view
        plain = convert(np.ascontiguousarray(view))
        for out, wanted in zip(
            function(source, convert(filters)), function(plain, convert(np.ascontiguousarray(filters)))
        ):
            assert_identical(out, wanted, "view %d on %s" % (number, device))


def strided_gpu_array(array):
    """An array on the GPU whose elements do not lie in C order, unless they did before."""
    if array.flags.c_contiguous:
        return to_gpu(array)
    return to_gpu(np.ascontiguousarray(array[..., ::-1].transpose(1, 0, 2, 3))).transpose(1, 0, 2, 3)[..., ::-1]


def test_broadcastable_patterns():
    # One channel, one filter, a batch of one: dimensions that Theano may know to be 1.
    x = T.TensorType("float32", (True, False, False, True))("x")
    w = T.TensorType("float32", (True, False, False, True))("w")
    out = FilterActs()(x, w)
    assert out.broadcastable == (True, False, False, True)
    gradients = T.grad((out**2).sum() + MaxPool(2, 2)(x).sum(), [x, w])
    assert [g.broadcastable for g in gradients] == [x.broadcastable, w.broadcastable]
    values = np.ones((1, 5, 5, 1), "float32"), np.ones((1, 2, 2, 1), "float32")
    found = theano.function([x, w], gradients, mode=CPU_MODE)(*values)
    assert [g.shape for g in found] == [(1, 5, 5, 1), (1, 2, 2, 1)]


def test_partial_sums_are_disconnected():
    x, h = T.ftensor4s("x", "h")
    gradient, partials = WeightActs()(x, h, (2, 2))
    assert WeightActs().connection_pattern(gradient.owner) == [[True, False], [True, False], [False, False]]
    try:
        T.grad(partials.sum(), x)
    except theano.gradient.DisconnectedInputError:
        pass
    else:
        raise AssertionError("a gradient flowed through the partial sums")


def test_layout_functions():
    rng = np.random.RandomState()
    value = rng.standard_normal((2, 3, 4, 5)).astype("float32")
    x = T.ftensor4("x")
    c01b, back = theano.function([x], [bc01_to_c01b(x), c01b_to_bc01(bc01_to_c01b(x))], mode=CPU_MODE)(value)
    assert_identical(c01b, value.transpose(1, 2, 3, 0), "bc01_to_c01b")
    assert_identical(back, value, "c01b_to_bc01")


def test_gpu_contiguous_on_the_host():
    x, v = T.ftensor4s("x", "v")
    y = gpu_contiguous(x.dimshuffle(1, 2, 3, 0))
    function = theano.function([x, v], [y, T.grad((y**2).sum(), x), T.Rop(y, x, v)], mode=CPU_MODE)
    value = np.random.standard_normal((2, 3, 4, 5)).astype("float32")
    out, gradient, direction = function(value, value)
    assert out.flags.c_contiguous
    assert_identical(out, value.transpose(1, 2, 3, 0), "gpu_contiguous")
    assert_identical(gradient, 2 * value, "its gradient")
    assert_identical(direction, value.transpose(1, 2, 3, 0), "its direction")


def test_gpu_contiguous_on_the_gpu():
    gpu_or_skip()
    value = np.random.standard_normal((2, 3, 4, 5)).astype("float32").transpose(1, 2, 3, 0)
    x = variable_for(value, True)
    y = gpu_contiguous(x)
    assert y.type == x.type
    source = strided_gpu_array(value)
    assert not source.flags.c_contiguous
    out = theano.function([x], y, mode=GPU_MODE)(source)
    assert out.flags.c_contiguous
    assert_identical(np.array(out), value, "gpu_contiguous")


def test_max_pool_c01b():
    x = T.ftensor4("x")
    value = np.random.standard_normal((2, 7, 7, 3)).astype("float32")
    out = theano.function([x], max_pool_c01b(x, 3, 2, start=-1), mode=CPU_MODE)(value)
    assert_identical(out, reference.max_pool(value, 3, 2, start=-1), "max_pool_c01b")
    assert max_pool_c01b(x, pool_shape=3, pool_stride=2).owner.op == MaxPool(3, 2)
