"""CrossMapNorm, CrossMapNormUndo and CrossMapSum against reference.py, over every processor; their derivatives."""

import numpy as np
import theano
import theano.tensor as T
from convnet_ops import CrossMapNorm, CrossMapNormUndo, reference
from convnet_ops.opt import GPU_TWINS
from convnet_ops.response_norm import CrossMapSum
from theano.compile.mode import Mode
from theano.gradient import verify_grad

from tests import problems
from tests.comparison import assert_close
from tests.directions import DEVICE_DTYPES, check_direction
from tests.processors import DEVICES, Processor, cpu, gpu, gpu_or_skip, row_of, to_gpu

OPS = (CrossMapNorm, CrossMapNormUndo, CrossMapSum)
CPU_MODE = Mode(linker="cvm", optimizer="fast_run").excluding("gpuarray")
GPU_MODE = Mode(linker="cvm", optimizer="fast_run").including("gpuarray")


class NormCase(object):
    """A problem with random data, and what each of the ops must make of it."""

    def __init__(self, problem, dtype):
        rng = np.random.RandomState()
        self.problem = problem
        self.arguments = dict(
            size_f=problem.size_f, add_scale=problem.add_scale, pow_scale=problem.pow_scale, blocked=problem.blocked
        )
        self.images = rng.standard_normal(problem.images).astype(dtype)
        self.dout = rng.standard_normal(problem.images).astype(dtype)
        acts, denoms = reference.cross_map_norm(self.images, **self.arguments)
        self.acts, self.denoms = acts.astype(dtype), denoms.astype(dtype)

    def check(self, op_class, processor):
        what = "%s, %s, on %r" % (op_class.__name__, self.problem.name, processor)
        terms = min(self.problem.size_f, self.problem.images[0])
        if op_class is CrossMapSum:
            for transposed in (False, True):
                arguments = dict(size_f=self.problem.size_f, blocked=self.problem.blocked, transposed=transposed)
                results = self.run(CrossMapSum(**arguments), processor, self.images)
                assert_close(results[0], reference.cross_map_sum(self.images, **arguments), terms, what)
            return
        if op_class is CrossMapNorm:
            results = self.run(CrossMapNorm(**self.arguments), processor, self.images)
            wanted = reference.cross_map_norm(self.images, **self.arguments)
        else:
            arrays = self.images, self.acts, self.denoms, self.dout
            results = self.run(CrossMapNormUndo(**self.arguments), processor, *arrays)
            wanted = reference.cross_map_norm_undo(*arrays, **self.arguments)
        for number, (result, reference_value) in enumerate(zip(results, wanted)):
            assert_close(result, reference_value, terms, "%s, output %d" % (what, number))

    def run(self, op, processor, *arrays):
        row = row_of(op, processor)
        positions = int(np.prod(self.problem.images[1:]))
        window = 0 if self.problem.blocked else self.problem.size_f
        allowed = row is None or (positions % row.vec_n == 0 and row.window in (0, window))
        return processor.run(op, *arrays, allowed=allowed)


def test_cpu():
    for problem in problems.NORM_PROBLEMS:
        for dtype in ("float32", "float64"):
            for op_class in OPS:
                yield check_cpu, op_class, problem, dtype


def check_cpu(op_class, problem, dtype):
    NormCase(problem, dtype).check(op_class, cpu())


def test_gpu():
    for problem in problems.NORM_PROBLEMS:
        for op_class in OPS:
            yield check_gpu, op_class, problem


def check_gpu(op_class, problem):
    gpu_or_skip()
    case = NormCase(problem, "float32")
    arguments = dict(size_f=problem.size_f, blocked=problem.blocked) if op_class is CrossMapSum else case.arguments
    for processor in gpu(op_class(**arguments), all_rows=problem.tier == "quick"):
        case.check(op_class, processor)


# ---- derivatives

ARGUMENTS = [(3, 0.4, 0.75, False), (2, 0.3, 0.5, False), (2, 0.5, 1.3, True)]


def norm_functions(arguments):
    """{name: (function of symbolic variables, arrays)}."""
    rng = np.random.RandomState()
    images, dout, other = (rng.standard_normal((5, 2, 1, 2)) for _ in range(3))
    denoms = 1 + rng.uniform(0.1, 2, images.shape)
    norm, undo = CrossMapNorm(*arguments), CrossMapNormUndo(*arguments)
    return {
        "acts": (lambda x: norm(x)[0], [images]),
        "denoms": (lambda x: norm(x)[1], [images]),
        "both": (lambda x: sum(norm(x)), [images]),
        "undo": (lambda *v: undo(*v)[0], [images, other, denoms, dout]),
        "out_acts": (lambda *v: undo(*v)[1], [images, other, denoms, dout]),
        "undo, both": (lambda *v: sum(undo(*v)), [images, other, denoms, dout]),
        "sum": (CrossMapSum(arguments[0], arguments[3], True), [images]),
    }


def test_verify_grad():
    for arguments in ARGUMENTS:
        for name, (function, values) in norm_functions(arguments).items():
            yield check_verify_grad, name, arguments, function, values


def check_verify_grad(name, arguments, function, values):
    verify_grad(function, values, rng=np.random.RandomState(), mode=CPU_MODE, n_tests=1)


def test_verify_second_derivative():
    for arguments in ARGUMENTS:
        for name in ("acts", "denoms", "both"):
            yield check_second_derivative, name, arguments


def check_second_derivative(name, arguments):
    function, values = norm_functions(arguments)[name]
    verify_grad(
        lambda x: T.grad((function(x) ** 2).sum(), x), values, rng=np.random.RandomState(), mode=CPU_MODE, n_tests=1
    )


def test_directions():
    for device, dtype in DEVICE_DTYPES:
        # Theano takes seconds to compile each of these for the GPU, and the kernels have tests of their own.
        for arguments in ARGUMENTS if device == "cpu" else ARGUMENTS[:1]:
            for name, (function, values) in norm_functions(arguments).items():
                yield check_direction, "%s %s" % (name, arguments), function, values, device, dtype


# ---- the op in a graph


def test_one_node_forward_one_backward_in_place():
    for device in DEVICES:
        yield check_graph, device


def check_graph(device):
    """The gradient shares the forward node, and Undo writes into acts, which nobody reads afterwards."""
    if device == "gpu":
        gpu_or_skip()
    x = T.ftensor4("x")
    image = x.transfer("convnet_ops_tests") if device == "gpu" else x
    acts, _ = CrossMapNorm(3, 0.4, 0.75, False)(image)
    function = theano.function([x], T.grad((acts * 3).sum(), x), mode=GPU_MODE if device == "gpu" else CPU_MODE)
    wanted = [GPU_TWINS[op] if device == "gpu" else op for op in (CrossMapNorm, CrossMapNormUndo)]
    nodes = function.maker.fgraph.toposort()
    for op_class in wanted:
        (node,) = [node for node in nodes if type(node.op) is op_class]
    assert node.op.inplace and node.op.destroy_map == {1: [1]}
    value = np.random.standard_normal((5, 3, 3, 4)).astype("float32")
    acts, denoms = reference.cross_map_norm(value, 3, 0.4, 0.75, False)
    gradient, _ = reference.cross_map_norm_undo(value, acts, denoms, np.full_like(value, 3), 3, 0.4, 0.75, False)
    assert_close(np.asarray(function(value)), gradient, 3, device)


def test_in_place_only_where_nobody_needs_acts():
    x = T.ftensor4("x")
    acts, _ = CrossMapNorm(3, 0.4, 0.75, False)(x)
    function = theano.function([x], [acts, T.grad(acts.sum(), x)], mode=CPU_MODE)
    value = np.random.standard_normal((5, 3, 3, 4)).astype("float32")
    found, _ = function(value)
    assert_close(found, reference.cross_map_norm(value, 3, 0.4, 0.75, False)[0], 3, "acts")


def test_equality_str_and_shape():
    one = CrossMapNorm(5, 1e-4, 0.75, False)
    assert one == CrossMapNorm(5, 1e-4, 0.75, False) and one != CrossMapNorm(5, 1e-4, 0.75, True)
    assert str(one) == "CrossMapNorm{size_f=5, add_scale=0.0001, pow_scale=0.75, blocked=False}"
    x = T.ftensor4("x")
    function = theano.function([x], [output.shape for output in one(x)], mode=CPU_MODE)
    assert not any(type(node.op) is CrossMapNorm for node in function.maker.fgraph.toposort())
    assert [tuple(shape) for shape in function(np.ones((2, 3, 4, 5), "float32"))] == [(2, 3, 4, 5)] * 2


def test_nan_and_infinity():
    for device in DEVICES:
        yield check_special_values, device


def check_special_values(device):
    """They stay in the windows that they are in, by every way to take a power."""
    if device == "gpu":
        gpu_or_skip()
    value = np.ones((6, 1, 1, 4), "float32")
    value[0, 0, 0, 1], value[5, 0, 0, 2] = np.nan, np.inf
    for pow_scale in (0.75, 0.5, 1.0, 0.6):
        acts, denoms = Processor(device).run(CrossMapNorm(3, 0.5, pow_scale, False), value)
        assert np.isnan(denoms[:2, 0, 0, 1]).all() and np.isfinite(denoms[2:, 0, 0, 1]).all()
        assert np.isinf(denoms[4:, 0, 0, 2]).all() and (acts[4, 0, 0, 2], np.isnan(acts[5, 0, 0, 2])) == (0, True)
        assert np.isfinite(acts[:, 0, 0, 0]).all() and np.isnan(acts[:2, 0, 0, 1]).all()
        ones = np.ones_like(value)
        gradient, out_acts = Processor(device).run(
            CrossMapNormUndo(3, 0.5, pow_scale, False), value, acts, denoms, ones
        )
        assert np.isfinite(gradient[:, 0, 0, 0]).all() and np.isnan(gradient[:2, 0, 0, 1]).all()
        assert np.isfinite(out_acts[2:, 0, 0, 1]).all() and out_acts[4, 0, 0, 2] == 0


# ---- bad input


def test_bad_arguments():
    for arguments, error, words in (
        ((0, 1e-4, 0.75, False), ValueError, "CrossMapNorm: size_f is 0; it must be at least 1"),
        ((2.5, 1e-4, 0.75, False), TypeError, "CrossMapNorm: size_f is 2.5; it must be an int"),
        ((5, "a", 0.75, False), TypeError, "CrossMapNorm: add_scale is 'a'; it must be a number"),
        ((5, 1e-4, float("nan"), False), ValueError, "CrossMapNorm: pow_scale is nan; it must be finite"),
        ((5, 1e-4, 0.75, 2), TypeError, "CrossMapNorm: blocked is 2; it must be True or False"),
    ):
        yield check_raises, error, words, lambda arguments=arguments: CrossMapNorm(*arguments)
    norm = CrossMapNorm(5, 1e-4, 0.75, False)
    yield check_raises, TypeError, "images is int64", lambda: norm(T.ltensor4())
    yield check_raises, TypeError, "images has 3 dimensions; it must have 4", lambda: norm(T.ftensor3())


def test_bad_shapes():
    for device in DEVICES:
        yield check_shapes, device


def check_shapes(device):
    if device == "gpu":
        gpu_or_skip()
    from tests.processors import compiled

    one, two = np.ones((2, 3, 3, 4), "float32"), np.ones((2, 3, 3, 2), "float32")
    words = "CrossMapNormUndo: %s has shape (2, 3, 3, 2); it must be (2, 3, 3, 4)"
    for position, name in ((1, "acts"), (2, "denoms"), (3, "dout")):
        arrays = [two if i == position else one for i in range(4)]
        function, on_gpu = compiled(CrossMapNormUndo(5, 1e-4, 0.75, False), device, arrays)
        check_raises(ValueError, words % name, function, *[to_gpu(array) if on_gpu else array for array in arrays])
    empty = np.ones((2, 0, 3, 4), "float32")
    function, on_gpu = compiled(CrossMapNorm(5, 1e-4, 0.75, False), device, [empty])
    check_raises(ValueError, "images has shape (2, 0, 3, 4)", function, to_gpu(empty) if on_gpu else empty)


def check_raises(error, words, function, *arguments):
    try:
        function(*arguments)
    except error as raised:
        assert words in str(raised), raised
    else:
        raise AssertionError("nothing was raised: " + words)
