"""ShuffleDims against reference.py, over every processor; its derivatives; and the rewrite that puts it into graphs."""

import pickle

import numpy as np
import theano
import theano.tensor as T
from convnet_ops import FilterActs, MaxPool, ShuffleDims, bc01_to_c01b, c01b_to_bc01, gpu_contiguous, reference
from convnet_ops.opt import GPU_TWINS
from theano.compile.mode import Mode
from theano.compile.ops import Shape_i
from theano.gpuarray.basic_ops import GpuContiguous
from theano.gpuarray.type import GpuArrayType
from theano.gradient import verify_grad
from theano.tensor.elemwise import DimShuffle
from theano.tensor.extra_ops import CpuContiguous
from theano.tensor.subtensor import IncSubtensor, Subtensor

from tests import problems
from tests.comparison import assert_close, assert_identical
from tests.directions import DEVICE_DTYPES, check_direction
from tests.processors import DEVICES, GPU_CONTEXT, cpu, gpu, gpu_or_skip, row_of, to_gpu, variable_for

OPS = [ShuffleDims(to, flip) for to in ("c01b", "bc01") for flip in (False, True)]


def numbered(shape, dtype="float32"):
    """An array without two equal values."""
    return np.random.permutation(int(np.prod(shape))).astype(dtype).reshape(shape)


def source_shape(op, problem):
    return problem.images if op.to == "c01b" else problem.images[1:] + problem.images[:1]


def check_values(op, problem, processor, dtype="float32"):
    x = numbered(source_shape(op, problem), dtype)
    row, allowed = row_of(op, processor), True
    if row is not None and x.size > 0:
        images, pixels = problem.images[0], int(np.prod(problem.images[1:]))
        rows, cols = (images, pixels) if op.to == "c01b" else (pixels, images)
        allowed = rows % row.vec_m == 0 and cols % row.vec_n == 0
    (out,) = processor.run(op, x, allowed=allowed)
    what = "%s, %s, on %r" % (op, problem.name, processor)
    assert_identical(out, reference.shuffle_dims(x, op.to, op.flip), what)


def test_cpu():
    for problem in problems.SHUFFLE_PROBLEMS:
        for dtype in ("float32", "float64"):
            for op in OPS:
                yield check_values, op, problem, cpu(), dtype


def test_gpu():
    for problem in problems.SHUFFLE_PROBLEMS:
        for op in OPS:
            yield check_gpu, op, problem


def check_gpu(op, problem):
    gpu_or_skip()
    for processor in gpu(op, all_rows=problem.tier == "quick"):
        check_values(op, problem, processor)


def test_reference_is_a_dimshuffle():
    x = numbered((2, 3, 4, 5))
    assert_identical(reference.shuffle_dims(x, "c01b"), x.transpose(1, 2, 3, 0), "c01b")
    assert_identical(reference.shuffle_dims(x, "bc01"), x.transpose(3, 0, 1, 2), "bc01")
    assert_identical(
        reference.shuffle_dims(x, "c01b", True), x.transpose(1, 2, 3, 0)[:, ::-1, ::-1, :], "c01b, flipped"
    )
    assert_identical(
        reference.shuffle_dims(x, "bc01", True), x.transpose(3, 0, 1, 2)[:, :, ::-1, ::-1], "bc01, flipped"
    )


def test_memory_layouts():
    for device in DEVICES:
        for op in OPS:
            yield check_memory_layouts, device, op


def check_memory_layouts(device, op):
    """Inputs that are not contiguous."""
    if device == "gpu":
        gpu_or_skip()
    big = numbered((6, 7, 8, 9))
    array = to_gpu(big) if device == "gpu" else big
    x = variable_for(big, device == "gpu")
    mode = mode_for(device)
    out = op(x).transfer(GPU_CONTEXT) if device == "gpu" else op(x)
    function = theano.function([x], out, mode=mode)
    for view in (lambda a: a[1:, ::2, :, 2:], lambda a: a.transpose(3, 1, 0, 2), lambda a: a[::-1, :, ::-1]):
        wanted = reference.shuffle_dims(view(big), op.to, op.flip)
        assert_identical(np.array(function(view(array))), wanted, "%s on %s" % (op, device))


# ---- what Theano asks of an op


def test_derivatives():
    for op in OPS:
        x = np.random.standard_normal((2, 3, 4, 5))
        yield check_verify_grad, op, x
        for device, dtype in DEVICE_DTYPES:
            yield check_direction, str(op), op, [x], device, dtype


def check_verify_grad(op, x):
    verify_grad(op, [x], rng=np.random.RandomState(), mode=mode_for("cpu"), n_tests=1)


def test_protocol():
    for op in OPS:
        for one in (op, GPU_TWINS[ShuffleDims](op.to, op.flip)):
            again = pickle.loads(pickle.dumps(one, -1))
            assert again == one and hash(again) == hash(one) and type(again) is type(one)
            assert again.func_codes == one.func_codes
        x = T.TensorType("float32", (True, False, False, False))("x")
        assert op(x).broadcastable == ((False,) * 3 + (True,) if op.to == "c01b" else (False, True, False, False))
        shape = theano.function([x], op(x).shape, mode=mode_for("cpu"))
        assert not any(isinstance(node.op, ShuffleDims) for node in shape.maker.fgraph.apply_nodes)
        assert tuple(shape(np.ones((1, 3, 4, 5), "float32"))) == ((3, 4, 5, 1) if op.to == "c01b" else (5, 1, 3, 4))
    assert len(set(OPS)) == 4
    assert str(OPS[1]) == "ShuffleDims{to='c01b', flip=True}"


def test_bad_arguments():
    for error, words, make in (
        (ValueError, "ShuffleDims: to is 'cb01'; it must be 'c01b' or 'bc01'", lambda: ShuffleDims("cb01")),
        (TypeError, "ShuffleDims: flip is 'x'; it must be True or False", lambda: ShuffleDims("bc01", "x")),
        (TypeError, "ShuffleDims: x is int64", lambda: OPS[0](T.ltensor4())),
        (TypeError, "ShuffleDims: x has 3 dimensions; it must have 4", lambda: OPS[0](T.ftensor3())),
    ):
        try:
            make()
        except error as raised:
            assert words in str(raised), raised
        else:
            raise AssertionError("nothing was raised: " + words)


# ---- the rewrite


def mode_for(device, *excluded):
    mode = Mode(linker="cvm", optimizer="fast_run")
    return (mode.including("gpuarray") if device == "gpu" else mode.excluding("gpuarray")).excluding(*excluded)


class Graphs(object):
    """A graph of images (N, C, H, W) and filters (F, C, R, S), compiled with the rewrite and without."""

    def __init__(self, device, build, images=(4, 3, 7, 8), filters=(8, 3, 3, 2), pattern=(False,) * 4):
        if device == "gpu":
            gpu_or_skip()
        types = [T.TensorType("float32", pattern) for pattern in (pattern, (False,) * 4)]
        if device == "gpu":
            types = [GpuArrayType("float32", kind.broadcastable, context_name=GPU_CONTEXT) for kind in types]
        x, w = (kind() for kind in types)
        outputs = build(x, w)
        self.device = device
        # By default Theano prints what a rewrite raises, and goes on without it.
        with theano.configparser.change_flags(on_opt_error="raise"):
            self.function, plain = (
                theano.function([x, w], outputs, mode=mode_for(device, *excluded), on_unused_input="ignore")
                for excluded in ((), ("convnet_ops_copies",))
            )
        arrays = [np.random.standard_normal(shape).astype("float32") for shape in (images, filters)]
        if device == "gpu":
            arrays = [to_gpu(array) for array in arrays]
        for number, (found, wanted) in enumerate(zip(self.function(*arrays), plain(*arrays))):
            assert_close(np.array(found), np.array(wanted).astype("float64"), 1000, "output %d" % number)
        assert not any(isinstance(node.op, ShuffleDims) for node in plain.maker.fgraph.apply_nodes)

    def check(self, shuffles, views=0):
        """Fail unless there are ShuffleDims(*shuffle), each once, and so many shuffles and flips that are views."""
        wanted = {(GPU_TWINS[ShuffleDims] if self.device == "gpu" else ShuffleDims)(*shuffle) for shuffle in shuffles}
        nodes = self.function.maker.fgraph.toposort()
        found = [node.op for node in nodes if isinstance(node.op, ShuffleDims)]
        text = theano.printing.debugprint(self.function, file="str")
        assert len(found) == len(shuffles), text
        # Where one op stands twice, for two variables, the set has it once.
        assert set(found) == wanted, text
        assert not any(isinstance(node.op, IncSubtensor) or copies_a_view(node) for node in nodes), text
        assert sum(moves_elements(node) for node in nodes) == views, text


def moves_elements(node):
    if isinstance(node.op, DimShuffle):
        return sorted(node.op.new_order, key=str) == [0, 1, 2, 3] and node.op.new_order != (0, 1, 2, 3)
    return isinstance(node.op, Subtensor) and node.inputs[0].ndim == 4


def copies_a_view(node):
    views = (DimShuffle, Subtensor, ShuffleDims, CpuContiguous, GpuContiguous)
    return isinstance(node.op, (CpuContiguous, GpuContiguous)) and isinstance(node.inputs[0].owner.op, views)


def seed_conv(x, w):
    """The seed's replacement of conv2d, as it is written there."""
    input_shuffled = x.dimshuffle(1, 2, 3, 0)
    filters_shuffled = w.dimshuffle(1, 2, 3, 0)
    filters_flipped = filters_shuffled[:, ::-1, ::-1, :]
    out_shuffled = FilterActs()(gpu_contiguous(input_shuffled), gpu_contiguous(filters_flipped))
    return out_shuffled.dimshuffle(3, 0, 1, 2)


def on_both(test):
    """A test generator of a check of one device."""

    def generator():
        for device in DEVICES:
            yield test, device

    generator.__name__ = test.__name__.replace("check", "test", 1)
    return generator


def check_the_seeds_code(device):
    graphs = Graphs(device, lambda x, w: [T.nnet.relu(seed_conv(x, w))])
    graphs.check([("c01b",), ("c01b", True), ("bc01",)])


test_the_seeds_code = on_both(check_the_seeds_code)


def check_gradients(device):
    """The gradient of a flip is a flip, not a sum into zeros, and it too goes into the shuffle that something reads."""

    def build(x, w):
        return [3 * gradient for gradient in T.grad((seed_conv(x, w) ** 2).sum(), [x, w])]

    Graphs(device, build).check([("c01b",), ("c01b", True), ("bc01",), ("bc01", True)])


test_gradients = on_both(check_gradients)


def check_shapes_need_no_arrays(device):
    """Who asks gpu_contiguous for a shape, as a gradient does, moves no array to the host."""

    def build(x, w):
        return [3 * T.grad((seed_conv(x, w) ** 2).sum(), w)]

    nodes = Graphs(device, build).function.maker.fgraph.apply_nodes
    read = [node.inputs[0].owner for node in nodes if isinstance(node.op, Shape_i)]
    assert read and not any(read), read


test_shapes_need_no_arrays = on_both(check_shapes_need_no_arrays)


def check_one_copy_for_all_readers(device):
    def build(x, w):
        c01b = bc01_to_c01b(x)
        filters = bc01_to_c01b(w)
        return [FilterActs()(c01b, filters), FilterActs(pad=1)(c01b, filters), MaxPool(2, 2)(T.tanh(c01b))]

    Graphs(device, build).check([("c01b",), ("c01b",)])


test_one_copy_for_all_readers = on_both(check_one_copy_for_all_readers)


def check_flips(device):
    """A flip before the shuffle counts as one behind it, and both cancel; a flip of the images is none."""

    def build(x, w):
        before = bc01_to_c01b(w[:, :, ::-1, ::-1])
        return [FilterActs()(bc01_to_c01b(x[:, :, ::-1]), filters) for filters in (before, before[:, ::-1, ::-1])]

    Graphs(device, build).check([("c01b", True), ("c01b",), ("c01b",)], views=1)


test_flips = on_both(check_flips)


def check_views_stay_views(device):
    """What no one reads, or what is only viewed again, costs nothing."""

    def build(x, w):
        out = FilterActs()(MaxPool(1, 1)(bc01_to_c01b(x)), bc01_to_c01b(w))
        bc01 = c01b_to_bc01(out)
        if device == "gpu":
            return [bc01.transfer(GPU_CONTEXT), bc01[:, :, 1:, 1:].transfer(GPU_CONTEXT), bc01.shape[1]]
        return [bc01, bc01[:, :, 1:, 1:], bc01.shape[1], bc01.sum(axis=(0, 2, 3))]

    Graphs(device, build).check([("c01b",), ("c01b",)], views=2)


test_views_stay_views = on_both(check_views_stay_views)


def test_flipped_outputs_on_the_gpu():
    """They are copied, so that no array that runs backwards leaves the function."""
    gpu_or_skip()
    x, w = (GpuArrayType("float32", (False,) * 4, context_name=GPU_CONTEXT)() for _ in "xw")
    flipped = bc01_to_c01b(w)[:, ::-1, ::-1]
    out = FilterActs()(bc01_to_c01b(x), bc01_to_c01b(w))
    function = theano.function([x, w], [out.transfer(GPU_CONTEXT), flipped.transfer(GPU_CONTEXT)], mode=mode_for("gpu"))
    filters = numbered((8, 3, 3, 2))
    found = function(to_gpu(numbered((4, 3, 7, 8))), to_gpu(filters))[1]
    assert found.flags.c_contiguous
    assert_identical(np.array(found), reference.shuffle_dims(filters, "c01b", True), "flipped filters")


def check_dense_layers(device):
    """The matrix that a dense layer multiplies is a view of c01b: a row for each image."""

    def build(x, w):
        bc01 = c01b_to_bc01(FilterActs()(bc01_to_c01b(x), bc01_to_c01b(w)))
        return [T.dot(bc01.flatten(2), T.ones((8 * 5 * 7, 3), "float32"))]

    Graphs(device, build).check([("c01b",), ("c01b",)], views=1)

    def pixels(x, w):
        bc01 = c01b_to_bc01(FilterActs()(bc01_to_c01b(x), bc01_to_c01b(w)))
        return [T.dot(bc01.reshape((4 * 8 * 5, 7)), T.ones((7, 3), "float32"))]

    Graphs(device, pixels).check([("c01b",), ("c01b",), ("bc01",)])


test_dense_layers = on_both(check_dense_layers)


def check_one_image(device):
    """A batch that Theano knows to be 1: both orders are the same, until something is flipped."""

    def build(x, w):
        filters = bc01_to_c01b(w)
        return [FilterActs()(bc01_to_c01b(x), filters), FilterActs()(bc01_to_c01b(x)[:, ::-1, ::-1], filters)]

    graphs = Graphs(device, build, images=(1, 3, 7, 8), pattern=(True, False, False, False))
    nodes = graphs.function.maker.fgraph.apply_nodes
    assert sum(isinstance(node.op, ShuffleDims) for node in nodes) == 2
    assert sum(moves_elements(node) for node in nodes) == 1


test_one_image = on_both(check_one_image)


def test_graphs_without_our_ops_are_left():
    x = T.ftensor4("x")
    function = theano.function([x], T.tanh(x.dimshuffle(1, 2, 3, 0)), mode=mode_for("cpu"))
    assert not any(isinstance(node.op, ShuffleDims) for node in function.maker.fgraph.apply_nodes)
