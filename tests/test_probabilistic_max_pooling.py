"""ProbMaxPool and its gradient against reference.py, over every processor and kernel row; their derivatives."""

import pickle

import numpy as np
import theano
import theano.tensor as T
from convnet_ops import ProbMaxPool, ProbMaxPoolGrad, prob_max_pool_c01b, reference
from convnet_ops.opt import GPU_TWINS
from theano.compile.mode import Mode
from theano.gradient import verify_grad

from tests import problems
from tests.comparison import assert_close
from tests.directions import DEVICE_DTYPES, check_direction
from tests.processors import DEVICES, GPU_CONTEXT, Processor, compiled, cpu, gpu, gpu_or_skip, to_gpu
from tests.test_bad_input import raises
from tests.test_pool import pool_row_allows

OPS = (ProbMaxPool, ProbMaxPoolGrad)
CPU_MODE = Mode(linker="cvm", optimizer="fast_run").excluding("gpuarray")
GPU_MODE = Mode(linker="cvm", optimizer="fast_run").including("gpuarray")


class ProbCase(object):
    """A problem with random data, and what the op and its gradient must make of it."""

    def __init__(self, problem, dtype, scale=1.0):
        rng = np.random.RandomState()
        self.problem = problem
        self.arguments = dict(ds=problem.ds, start=problem.start, outputs=problem.outputs)
        self.z = (scale * rng.standard_normal(problem.images)).astype(dtype)
        windows = reference.pool_windows(self.z.shape, problem.ds, problem.stride, problem.start, problem.outputs)
        shape = self.z.shape[0], len(windows), len(windows[0]), self.z.shape[3]
        self.top_down = (scale * rng.standard_normal(shape)).astype(dtype)
        self.gp, self.gh = rng.standard_normal(shape).astype(dtype), rng.standard_normal(self.z.shape).astype(dtype)

    def check(self, op_class, processor):
        op, arrays = op_class(**self.arguments), [self.z, self.top_down]
        if op_class is ProbMaxPool:
            wanted = reference.prob_max_pool(*arrays, **self.arguments)
        else:
            arrays += [self.gp, self.gh]
            wanted = reference.prob_max_pool_grad(*arrays, **self.arguments)
        outputs = processor.run(op, *arrays, allowed=pool_row_allows(op, processor, self.problem))
        for number, (out, reference_value) in enumerate(zip(outputs, wanted)):
            what = "%s, output %d, %s, on %r" % (op_class.__name__, number, self.problem.name, processor)
            assert_close(out, reference_value, int(np.prod(reference.as_pair(self.problem.ds))), what)


def test_cpu():
    for problem in problems.PROB_PROBLEMS:
        for dtype in ("float32", "float64"):
            for op_class in OPS:
                yield check_cpu, op_class, problem, dtype


def check_cpu(op_class, problem, dtype):
    ProbCase(problem, dtype).check(op_class, cpu())


def test_gpu():
    for problem in problems.PROB_PROBLEMS:
        for op_class in OPS:
            yield check_gpu, op_class, problem


def check_gpu(op_class, problem):
    gpu_or_skip()
    case = ProbCase(problem, "float32")
    for processor in gpu(op_class(**case.arguments), all_rows=problem.tier == "quick"):
        case.check(op_class, processor)


def test_large_exponents():
    """exp(z) alone would overflow, or vanish: the block's greatest exponent is taken off first."""
    for device in DEVICES:
        yield check_large_exponents, device


def check_large_exponents(device):
    if device == "gpu":
        gpu_or_skip()
    for problem in problems.tier(problems.PROB_PROBLEMS, "quick"):
        case = ProbCase(problem, "float32", scale=300.0)
        case.check(ProbMaxPool, Processor(device))


def test_formula():
    """The paper's sums, as they stand, where nothing overflows."""
    rng = np.random.RandomState()
    z, top_down = rng.standard_normal((1, 2, 2, 3)), rng.standard_normal((1, 1, 1, 3))
    p, h = Processor("cpu").run(ProbMaxPool(2), z, top_down)
    denom = np.exp(-top_down) + np.exp(z).sum(axis=(1, 2), keepdims=True)
    assert_close(h, np.exp(z) / denom, 4, "h")
    assert_close(p, 1 - np.exp(-top_down) / denom, 4, "p")
    assert_close(p, h.sum(axis=(1, 2), keepdims=True), 4, "p is the sum of h")


def test_nan_and_infinity():
    for device in DEVICES:
        yield check_special_values, device


def check_special_values(device):
    if device == "gpu":
        gpu_or_skip()
    inf = np.inf
    blocks = [
        # z, top_down, h, p
        ([0, 0, 0, 0], 0, [0.2] * 4, 0.8),
        ([0, np.nan, 0, 0], 0, [np.nan] * 4, np.nan),
        ([0, 0, 0, 0], np.nan, [np.nan] * 4, np.nan),
        ([0, inf, 0, 0], 0, [0, 1, 0, 0], 1),
        ([inf, inf, 0, -inf], 0, [0.5, 0.5, 0, 0], 1),
        ([-inf, -inf, -inf, -inf], 0, [0, 0, 0, 0], 0),
        ([1, 2, 3, 4], -inf, [0, 0, 0, 0], 0),
        ([0, 0, -inf, -inf], inf, [0.5, 0.5, 0, 0], 1),
    ]
    z = np.zeros((1, 2, 2 * len(blocks), 4), "float32")
    top_down = np.zeros((1, 1, len(blocks), 4), "float32")
    for i, (values, top, _, _) in enumerate(blocks):
        z[0, :, 2 * i : 2 * i + 2] = np.array(values).reshape(2, 2)[:, :, None]
        top_down[0, 0, i] = top
    p, h = Processor(device).run(ProbMaxPool(2), z, top_down)
    for i, (values, _, wanted_h, wanted_p) in enumerate(blocks):
        found = h[0, :, 2 * i : 2 * i + 2, 3].ravel()
        np.testing.assert_allclose(found, wanted_h, rtol=1e-6, err_msg=str(values))
        np.testing.assert_allclose(p[0, 0, i], wanted_p, rtol=1e-6, err_msg=str(values))


# ---- derivatives

ARGUMENTS = [dict(ds=2), dict(ds=3, start=-1), dict(ds=(2, 3), start=1, outputs=2)]


def functions(arguments):
    """{name: (function of symbolic variables, arrays)}."""
    rng = np.random.RandomState()
    z = rng.standard_normal((2, 7, 8, 2))
    (ds_y, ds_x), (start_y, start_x) = reference.as_pair(arguments["ds"]), reference.as_pair(arguments.get("start", 0))
    windows = reference.pool_windows(
        z.shape, (ds_y, ds_x), (ds_y, ds_x), (start_y, start_x), arguments.get("outputs", 0)
    )
    shape = 2, len(windows), len(windows[0]), 2
    top_down, gp = rng.standard_normal(shape), rng.standard_normal(shape)
    op, gradient = ProbMaxPool(**arguments), ProbMaxPoolGrad(**arguments)
    return {
        "p": (lambda *v: op(*v)[0], [z, top_down]),
        "h": (lambda *v: op(*v)[1], [z, top_down]),
        "both": (lambda *v: op(*v)[0].sum() * op(*v)[1], [z, top_down]),
        "gradient of z": (lambda *v: gradient(*v)[0], [z, top_down, gp, rng.standard_normal(z.shape)]),
        "gradient of top_down": (lambda *v: gradient(*v)[1], [z, top_down, gp, rng.standard_normal(z.shape)]),
        "both gradients": (
            lambda *v: gradient(*v)[0] * gradient(*v)[1].sum(),
            [z, top_down, gp, rng.standard_normal(z.shape)],
        ),
    }


def test_verify_grad():
    for arguments in ARGUMENTS:
        for name, (function, values) in functions(arguments).items():
            yield check_verify_grad, name, function, values


def check_verify_grad(name, function, values):
    verify_grad(function, values, rng=np.random.RandomState(), mode=CPU_MODE, n_tests=1)


def test_second_derivative():
    for arguments in ARGUMENTS:
        for name in ("p", "h"):
            yield check_second_derivative, name, arguments


def check_second_derivative(name, arguments):
    function, values = functions(arguments)[name]

    def gradient(*variables):
        return T.concatenate([g.flatten() for g in T.grad((function(*variables) ** 2).sum(), list(variables))])

    verify_grad(gradient, values, rng=np.random.RandomState(), mode=CPU_MODE, n_tests=1)


def test_directions():
    for device, dtype in DEVICE_DTYPES:
        # Theano takes seconds to compile each of these for the GPU, and the kernels have tests of their own.
        for arguments in ARGUMENTS if device == "cpu" else ARGUMENTS[:1]:
            for name, (function, values) in functions(arguments).items():
                yield check_direction, "%s %s" % (name, arguments), function, values, device, dtype


# ---- what Theano asks of an op


def test_equality_str_shape_and_pickle():
    one = ProbMaxPool(3, -1)
    assert one == ProbMaxPool((3, 3), start=-1) and one != ProbMaxPool(3) and one != ProbMaxPoolGrad(3, -1)
    assert str(one) == "ProbMaxPool{ds=(3, 3), start=(-1, -1), outputs=(0, 0)}"
    for op in (one, ProbMaxPoolGrad(2, outputs=3), GPU_TWINS[ProbMaxPool](2)):
        assert pickle.loads(pickle.dumps(op, -1)) == op
    z, top_down = T.ftensor4s("z", "top_down")
    outputs = ProbMaxPool(3)(z, top_down) + ProbMaxPoolGrad(3)(z, top_down, top_down, z)
    function = theano.function([z, top_down], [out.shape for out in outputs], mode=CPU_MODE)
    assert not any(type(node.op) in OPS for node in function.maker.fgraph.toposort())
    large, small = np.ones((2, 8, 6, 5), "float32"), np.ones((2, 3, 2, 5), "float32")
    assert [tuple(shape) for shape in function(large, small)] == [small.shape, large.shape, large.shape, small.shape]


def test_function():
    z, top_down = T.ftensor4s("z", "top_down")
    case = ProbCase(problems.PROB_PROBLEMS[2], "float32")
    p, h = theano.function([z, top_down], prob_max_pool_c01b(z, 3, top_down), mode=CPU_MODE)(case.z, case.top_down)
    wanted = reference.prob_max_pool(case.z, case.top_down, 3)
    assert_close(p, wanted[0], 9, "p")
    assert_close(h, wanted[1], 9, "h")
    p, h = theano.function([z], prob_max_pool_c01b(z, pool_shape=(3, 3)), mode=CPU_MODE)(case.z)
    wanted = reference.prob_max_pool(case.z, np.zeros_like(case.top_down), 3)
    assert_close(p, wanted[0], 9, "p without top_down")
    assert_close(h, wanted[1], 9, "h without top_down")


def test_bad_arguments():
    x, d = T.ftensor4("x"), T.dtensor4("d")
    for error, words, call in [
        (ValueError, ["ProbMaxPool: ds is 0", "at least 1"], lambda: ProbMaxPool(0)),
        (ValueError, ["ProbMaxPool: start is -2", "greater than -ds"], lambda: ProbMaxPool(2, -2)),
        (TypeError, ["ProbMaxPool: ds is 2.0"], lambda: ProbMaxPool(2.0)),
        (TypeError, ["ProbMaxPool: top_down is float64", "must be float32, as z is"], lambda: ProbMaxPool(2)(x, d)),
        (TypeError, ["ProbMaxPoolGrad: gh has 3 dimensions"], lambda: ProbMaxPoolGrad(2)(x, x, x, T.ftensor3())),
    ]:
        yield raises, error, words, call


def test_bad_shapes():
    for device in DEVICES:
        yield check_shapes, device


def check_shapes(device):
    if device == "gpu":
        gpu_or_skip()
    z, top, wrong = (np.ones(shape, "float32") for shape in ((2, 4, 4, 3), (2, 2, 2, 3), (2, 1, 2, 3)))
    shape = "has shape (2, 1, 2, 3); it must be (2, %s, 3)"
    for op, arrays, words in [
        (ProbMaxPool(2), [z, wrong], "ProbMaxPool: top_down " + shape % "2, 2"),
        (ProbMaxPoolGrad(2), [z, wrong, top, z], "ProbMaxPoolGrad: top_down " + shape % "2, 2"),
        (ProbMaxPoolGrad(2), [z, top, wrong, z], "ProbMaxPoolGrad: gp " + shape % "2, 2"),
        (ProbMaxPoolGrad(2), [z, top, top, wrong], "ProbMaxPoolGrad: gh " + shape % "4, 4"),
        (ProbMaxPool(5), [z, top], "ProbMaxPool: ds is 5, larger than the 4 rows"),
    ]:
        function, on_gpu = compiled(op, device, arrays)
        raises(ValueError, [words], function, *[to_gpu(array) if on_gpu else array for array in arrays])


def test_gradient_on_one_device():
    """The gradient of p alone, and of h alone, has one node of the gradient op."""
    for device in DEVICES:
        yield check_gradient_node, device


def check_gradient_node(device):
    if device == "gpu":
        gpu_or_skip()
    z, top_down = T.ftensor4s("z", "top_down")
    source = z.transfer(GPU_CONTEXT) if device == "gpu" else z
    case = ProbCase(problems.PROB_PROBLEMS[0], "float32")
    for number in (0, 1):
        out = ProbMaxPool(2)(source, top_down)[number]
        gradients = T.grad((out * out).sum(), [z, top_down])
        function = theano.function([z, top_down], gradients, mode=GPU_MODE if device == "gpu" else CPU_MODE)
        wanted = GPU_TWINS[ProbMaxPoolGrad] if device == "gpu" else ProbMaxPoolGrad
        assert sum(type(node.op) is wanted for node in function.maker.fgraph.apply_nodes) == 1
        outputs = reference.prob_max_pool(case.z, case.top_down, 2)
        given = [np.zeros_like(output) for output in outputs]
        given[number] = 2 * outputs[number]
        for found, reference_value in zip(
            function(case.z, case.top_down), reference.prob_max_pool_grad(case.z, case.top_down, *given, ds=2)
        ):
            assert_close(np.asarray(found), reference_value, 4, "output %d" % number)


def test_pixels_outside_blocks():
    z, top_down = np.ones((1, 5, 5, 2), "float32"), np.zeros((1, 1, 1, 2), "float32")
    p, h = cpu().run(ProbMaxPool(2, 1, 1), z, top_down)
    inside = np.zeros((5, 5), bool)
    inside[1:3, 1:3] = True
    assert (h[0, ~inside] == 0).all() and (h[0, inside] > 0).all()
    assert_close(p[:, :, :, 0], h[:, :, :, 0].sum(axis=(1, 2), keepdims=True), 4, "p")
