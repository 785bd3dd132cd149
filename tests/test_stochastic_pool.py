"""StochasticMaxPool and WeightedMaxPool: values, draws and derivatives, over every processor and kernel row."""

import pickle
import sys

import numpy as np
import theano
import theano.tensor as T
from convnet_ops import (
    StochasticMaxPool,
    StochasticMaxPoolGrad,
    WeightedMaxPool,
    WeightedMaxPoolGrad,
    reference,
    stochastic_max_pool_c01b,
    weighted_max_pool_c01b,
)
from convnet_ops.opt import GPU_TWINS
from convnet_ops.stochastic_pool import StochasticMaxPoolRop
from scipy.stats import chi2
from theano.compile.mode import Mode
from theano.gradient import verify_grad

from tests import problems
from tests.comparison import assert_close, assert_identical
from tests.cpp import run_program
from tests.directions import DEVICE_DTYPES, check_direction
from tests.processors import DEVICES, GPU_CONTEXT, cpu, gpu, gpu_or_skip
from tests.test_bad_input import raises
from tests.test_pool import pool_row_allows

OPS = (StochasticMaxPool, StochasticMaxPoolGrad, StochasticMaxPoolRop, WeightedMaxPool, WeightedMaxPoolGrad)
CPU_MODE = Mode(linker="cvm", optimizer="fast_run").excluding("gpuarray")
GPU_MODE = Mode(linker="cvm", optimizer="fast_run").including("gpuarray")
# Numbers of draws: the first ones, and those that need more than 32 bits.
DRAWS = (0, 1, 2**32 + 5, 2**63 - 1)


class StochasticCase(object):
    """A problem with random data, and what each of the ops must make of it."""

    def __init__(self, problem, dtype, special=False):
        rng = np.random.RandomState()
        self.problem = problem
        self.arguments = dict(ds=problem.ds, stride=problem.stride, start=problem.start, outputs=problem.outputs)
        self.images = np.abs(rng.standard_normal(problem.images)).astype(dtype)
        # Windows of zeros, negative values.
        self.images[rng.uniform(size=problem.images) < 0.3] = 0
        self.images[rng.uniform(size=problem.images) < 0.1] *= -1
        self.images[:, :2, :2, ::3] = 0
        if special:
            for value in (np.nan, np.inf, -np.inf, np.finfo(dtype).max):
                self.images[rng.uniform(size=problem.images) < 0.05] = value
        self.seed, self.draw = int(rng.randint(2**31)) * 2**31, DRAWS[rng.randint(len(DRAWS))]
        self.pooled, self.positions = reference.stochastic_max_pool(
            self.images, seed=self.seed, draw=self.draw, **self.arguments
        )
        with np.errstate(all="ignore"):
            weighted, sums = reference.weighted_max_pool(self.images, **self.arguments)
        self.weighted, self.sums = weighted.astype(dtype), sums.astype(dtype)
        self.gz = rng.standard_normal(self.pooled.shape).astype(dtype)

    def check(self, op_class, processor):
        what = "%s, %s, seed %d, draw %d, on %r" % (
            op_class.__name__,
            self.problem.name,
            self.seed,
            self.draw,
            processor,
        )
        terms, size = int(np.prod(reference.as_pair(self.problem.ds))), self.images.shape[1:3]
        if op_class is StochasticMaxPool:
            op = StochasticMaxPool(seed=self.seed, **self.arguments)
            pooled, positions = self.run(op, processor, self.images, np.array(self.draw))
            assert_identical(positions, self.positions, what)
            assert_identical(pooled, self.pooled, what)
        elif op_class is StochasticMaxPoolGrad:
            (out,) = self.run(op_class(**self.arguments), processor, self.positions, self.gz, np.array(size))
            wanted = reference.stochastic_max_pool_grad(self.positions, self.gz, size, **self.arguments)
            assert_close(out, wanted, terms, what)
        elif op_class is StochasticMaxPoolRop:
            (out,) = self.run(op_class(**self.arguments), processor, self.images, self.positions)
            wanted = reference.stochastic_max_pool_rop(self.images, self.positions, **self.arguments)
            assert_identical(out, wanted, what)
        elif op_class is WeightedMaxPool:
            outputs = self.run(op_class(**self.arguments), processor, self.images)
            for out, wanted in zip(outputs, reference.weighted_max_pool(self.images, **self.arguments)):
                assert_close(out, wanted, terms, what)
        else:
            arrays = [self.images, self.weighted, self.sums, self.gz]
            (out,) = self.run(op_class(**self.arguments), processor, *arrays)
            wanted = reference.weighted_max_pool_grad(self.images, self.gz, **self.arguments)
            assert_close(out, wanted, terms, what)

    def run(self, op, processor, *arrays):
        return processor.run(op, *arrays, allowed=pool_row_allows(op, processor, self.problem))


def test_cpu():
    for problem in problems.POOL_PROBLEMS:
        for dtype in ("float32", "float64"):
            for op_class in OPS:
                yield check_cpu, op_class, problem, dtype, False
            yield check_cpu, StochasticMaxPool, problem, dtype, True


def check_cpu(op_class, problem, dtype, special):
    StochasticCase(problem, dtype, special).check(op_class, cpu())


def test_gpu():
    for problem in problems.POOL_PROBLEMS:
        for op_class in OPS:
            yield check_gpu, op_class, problem, False
        yield check_gpu, StochasticMaxPool, problem, True


def check_gpu(op_class, problem, special):
    gpu_or_skip()
    case = StochasticCase(problem, "float32", special)
    for processor in gpu(op_class(**case.arguments), all_rows=problem.tier == "quick"):
        case.check(op_class, processor)


# ---- random numbers

# Known answers of the generator's authors: counter, key, words.
KNOWN_ANSWERS = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def test_philox():
    for counter, key, words in KNOWN_ANSWERS:
        assert [int(word) for word in reference.philox(counter, key)] == words
        body = """PhiloxWords counter;
  for (int i = 0; i < 4; ++i) counter.word[i] = (uint32_t)atoll(argv[1 + i]);
  const PhiloxWords words = philox(counter, (uint64_t)atoll(argv[6]) << 32 | (uint64_t)atoll(argv[5]));
  for (int i = 0; i < 4; ++i) printf("%u ", words.word[i]);"""
        assert [int(word) for word in run_program(["philox.h"], body, counter + key).split()] == words


def test_draws_are_as_likely_as_they_should_be():
    for device in DEVICES:
        yield check_distribution, device


def check_distribution(device):
    """Chi-square over windows of known weights, 100,000 draws each, with a fixed seed; pairs of draws."""
    if device == "gpu":
        gpu_or_skip()
    weights = np.array([0.5, 0, 3, 1, -2, 2, 1e-3, 0.25, 0.125])
    images = np.zeros((2, 3, 12, 50000), "float32")
    for window in range(4):
        images[:, :, 3 * window : 3 * window + 3] = np.roll(weights, window).reshape(3, 3)[None, :, :, None]
    x, draw = T.ftensor4("x"), T.lscalar("draw")
    source = x.transfer(GPU_CONTEXT) if device == "gpu" else x
    positions = StochasticMaxPool(3, 3, seed=20131)(source, draw, return_list=True)[1]
    function = theano.function([x, draw], positions, mode=GPU_MODE if device == "gpu" else CPU_MODE)
    first, second = (np.asarray(function(images, number)) for number in (0, 1))
    assert first.shape == (2, 1, 4, 50000)
    for window in range(4):
        chances = np.maximum(np.roll(weights, window), 0)
        chances /= chances.sum()
        for drawn in (first, second):
            counts = np.bincount(drawn[:, 0, window].ravel(), minlength=9)
            assert_likely(counts, chances * 100000)
        pairs = np.bincount((9 * first + second)[:, 0, window].ravel(), minlength=81)
        assert_likely(pairs, np.outer(chances, chances).ravel() * 100000)
    # Neighbouring windows and neighbouring images are independent too.
    for one, other in ((first[:, 0, 0], first[:, 0, 2]), (first[:, 0, 0, ::2], first[:, 0, 0, 1::2])):
        chances = [np.bincount(array.ravel(), minlength=9) / array.size for array in (one, other)]
        assert_likely(np.bincount((9 * one + other).ravel(), minlength=81), np.outer(*chances).ravel() * one.size)


def assert_likely(counts, expected):
    """Pearson's test: counts that far from the expected ones are rarer than 1 in 10,000 if these are right."""
    assert counts[expected == 0].sum() == 0, counts
    # The approximation wants several expected in each class: rare ones go together.
    rare = (expected > 0) & (expected < 10)
    observed = np.append(counts[expected >= 10], counts[rare].sum())
    wanted = np.append(expected[expected >= 10], expected[rare].sum())
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    statistic = ((observed - wanted) ** 2 / wanted).sum()
    assert chi2.sf(statistic, len(wanted) - 1) > 1e-4, (statistic, observed, wanted)


def test_new_draw_at_every_call():
    for device in DEVICES:
        yield check_calls, device


def check_calls(device):
    """Calls of a function are draws 0, 1, 2 ...; a function of another op with the same seed gives the same."""
    if device == "gpu":
        gpu_or_skip()
    images = np.random.RandomState().uniform(0, 1, (3, 6, 6, 8)).astype("float32")
    mode = GPU_MODE if device == "gpu" else CPU_MODE
    for seed in (1234, 7):
        x = T.ftensor4("x")
        source = x.transfer(GPU_CONTEXT) if device == "gpu" else x
        functions = [theano.function([x], StochasticMaxPool(2, 2, seed=seed)(source), mode=mode) for _ in range(2)]
        for call in range(3):
            wanted, _ = reference.stochastic_max_pool(images, 2, 2, seed=seed, draw=call)
            for function in functions:
                assert_identical(np.asarray(function(images)), wanted, "seed %d, call %d" % (seed, call))


def test_draw_is_an_ordinary_variable():
    """It can be set, given as an input, and shared by two ops."""
    x, number = T.ftensor4("x"), T.iscalar("number")
    images = np.random.RandomState().uniform(0, 1, (2, 6, 6, 5)).astype("float32")
    op = StochasticMaxPool(3, 2, seed=5)
    out = op(x)
    (draw,) = [variable for variable in out.owner.inputs if isinstance(variable, theano.compile.SharedVariable)]
    function = theano.function([x], out, mode=CPU_MODE)
    first, second = function(images), function(images)
    assert (first != second).any() and draw.get_value() == 2
    draw.set_value(0)
    assert_identical(function(images), first, "draw 0 again")
    given = theano.function([x, number], op(x, number), mode=CPU_MODE)
    assert_identical(given(images, 1), second, "draw 1 as an input")
    both = theano.function([x], [op(x, draw), op(x, draw=draw)], mode=CPU_MODE)
    assert sum(type(node.op) is StochasticMaxPool for node in both.maker.fgraph.apply_nodes) == 1


# ---- gradients follow the draw


def images_and_gradient(device, build):
    """A function from images to [pooled, gradient of sum(pooled * arange)], of the pooled images that `build` gives."""
    x = T.ftensor4("x")
    pooled = build(x.transfer(GPU_CONTEXT) if device == "gpu" else x)
    factors = T.arange(pooled.size).reshape(pooled.shape).astype("float32") + 1
    gradient = T.grad((pooled * factors).sum(), x)
    return theano.function([x], [pooled, gradient], mode=GPU_MODE if device == "gpu" else CPU_MODE)


def assert_follows(function, calls=3, ds=2):
    """The gradient lies where the value was drawn, in every call; images hold no value twice."""
    shape = 2, 3 * ds, 2 * ds, 5
    draws = []
    for _ in range(calls):
        images = np.random.RandomState().permutation(np.prod(shape)).reshape(shape).astype("float32") + 1
        pooled, gradient = (np.asarray(value) for value in function(images))
        factors = np.arange(pooled.size).reshape(pooled.shape) + 1
        wanted = np.where(
            images == pooled.repeat(ds, axis=1).repeat(ds, axis=2), factors.repeat(ds, axis=1).repeat(ds, axis=2), 0
        )
        assert_identical(gradient, wanted, "gradient")
        draws.append(pooled != reference.max_pool(images, ds, ds))
    assert np.any(draws), "always the maximum"


def test_gradient_follows_the_draw():
    for device in DEVICES:
        for check in (check_plain, check_pickled, check_cloned, check_merged, check_separate, check_scanned):
            yield check, device


def check_plain(device):
    if device == "gpu":
        gpu_or_skip()
    assert_follows(images_and_gradient(device, StochasticMaxPool(2, 2)))


def check_pickled(device):
    if device == "gpu":
        gpu_or_skip()
    function = pickle.loads(pickle.dumps(images_and_gradient(device, StochasticMaxPool(2, 2)), -1))
    assert_follows(function)


def check_cloned(device):
    """The graph of the pooled images copied, with other images: forward and gradient, each from its own copy."""
    if device == "gpu":
        gpu_or_skip()

    def build(images):
        other = images.type()
        return theano.clone(StochasticMaxPool(2, 2)(other), replace={other: images})

    assert_follows(images_and_gradient(device, build))


def check_merged(device):
    """Two equal ops on one draw become one node; the gradient of one follows the other."""
    if device == "gpu":
        gpu_or_skip()
    x = T.ftensor4("x")
    source, draw = x.transfer(GPU_CONTEXT) if device == "gpu" else x, theano.shared(0)
    draw.default_update = draw + 1
    one, other = (StochasticMaxPool(2, 2, seed=3)(source, draw) for _ in range(2))
    factors = T.arange(one.size).reshape(one.shape).astype("float32") + 1
    mode = GPU_MODE if device == "gpu" else CPU_MODE
    function = theano.function([x], [one, T.grad((other * factors).sum(), x)], mode=mode)
    wanted = GPU_TWINS[StochasticMaxPool] if device == "gpu" else StochasticMaxPool
    assert sum(type(node.op) is wanted for node in function.maker.fgraph.apply_nodes) == 1
    assert_follows(function)


def check_separate(device):
    """Without optimizations that merge, or share anything."""
    if device == "gpu":
        gpu_or_skip()
        mode = Mode(linker="cvm", optimizer="fast_compile").including("gpuarray")
    else:
        mode = Mode(linker="cvm", optimizer=None)
    x = T.ftensor4("x")
    pooled = StochasticMaxPool(2, 2)(x.transfer(GPU_CONTEXT) if device == "gpu" else x)
    factors = T.arange(pooled.size).reshape(pooled.shape).astype("float32") + 1
    assert_follows(theano.function([x], [pooled, T.grad((pooled * factors).sum(), x)], mode=mode))


def check_scanned(device):
    """Inside theano.scan: a new draw at every step, and each step's gradient follows its own."""
    if device == "gpu":
        gpu_or_skip()
    if sys.version_info >= (3, 11):
        # Theano's extension for scan does not compile there; without it scan runs in Python.
        sys.modules.setdefault("theano.scan_module.scan_perform_ext", None)
    x, op = T.ftensor4("x"), StochasticMaxPool(2, 2)
    source = x.transfer(GPU_CONTEXT) if device == "gpu" else x
    start = theano.shared(0)
    scales = T.arange(1, 4).astype("float32")

    def counted(scale, images):
        return op(images) * scale

    def numbered(scale, step, images):
        return op(images, start + step) * scale

    for step, sequences in ((counted, [scales]), (numbered, [scales, T.arange(3)])):
        pooled, updates = theano.scan(step, sequences=sequences, non_sequences=[source])
        gradient = T.grad((pooled**2).sum(), x)
        updates = updates if step is counted else {start: start + 3}
        mode = GPU_MODE if device == "gpu" else CPU_MODE
        function = theano.function([x], [pooled, gradient], updates=updates, mode=mode)
        for call in range(2):
            images = np.random.RandomState().permutation(96).reshape(1, 4, 4, 6).astype("float32") + 1
            steps, found = (np.asarray(value) for value in function(images))
            wanted = np.zeros_like(images)
            for number, out in enumerate(steps):
                drawn, _ = reference.stochastic_max_pool(images, 2, 2, draw=3 * call + number)
                assert_identical(out, drawn * (number + 1), "step %d of call %d" % (number, call))
                spread = out.repeat(2, axis=1).repeat(2, axis=2)
                wanted += np.where(images * (number + 1) == spread, 2 * (number + 1) * spread, 0)
            assert_identical(found, wanted, "gradient of call %d" % call)


# ---- derivatives

ARGUMENTS = [dict(ds=2, stride=2), dict(ds=3, stride=2, start=-1), dict(ds=(2, 3), stride=(3, 1), outputs=2)]


def functions(arguments):
    """{name: (function of symbolic variables, arrays)}, at one draw, away from where weights become 0."""
    rng = np.random.RandomState()
    images = rng.uniform(0.2, 2, (2, 6, 5, 2))
    # Some values that weigh nothing, and stay so.
    images[rng.uniform(size=images.shape) < 0.2] *= -1
    draw = rng.randint(2**31)
    stochastic, weighted = StochasticMaxPool(seed=11, **arguments), WeightedMaxPool(**arguments)
    _, positions = reference.stochastic_max_pool(images, seed=11, draw=draw, **arguments)
    top, sums = reference.weighted_max_pool(images, **arguments)
    gz = rng.standard_normal(positions.shape)
    size, op_arguments = images.shape[1:3], arguments
    return {
        "gradient": (lambda g: StochasticMaxPoolGrad(**op_arguments)(positions, g, size), [gz]),
        "direction": (lambda v: StochasticMaxPoolRop(**op_arguments)(v, positions), [images]),
        "weighted": (weighted, [images]),
        "both outputs": (lambda x: sum(weighted(x, return_list=True)), [images]),
        "weighted gradient": (
            WeightedMaxPoolGrad(**op_arguments),
            [images, top, np.where(sums == 0, 1, sums), gz],
        ),
        "stochastic": (lambda x: stochastic(x, draw), [images]),
    }


def test_verify_grad():
    for arguments in ARGUMENTS:
        for name, (function, values) in functions(arguments).items():
            # A small step of the images moves the borders between draws: differences say nothing.
            if name != "stochastic":
                yield check_verify_grad, name, function, values


def check_verify_grad(name, function, values):
    verify_grad(function, values, rng=np.random.RandomState(), mode=CPU_MODE, n_tests=1)


def test_second_derivative_of_weighted():
    for arguments in ARGUMENTS:
        yield check_second_derivative, arguments


def check_second_derivative(arguments):
    function, values = functions(arguments)["weighted"]
    verify_grad(
        lambda x: T.grad((function(x) ** 2).sum(), x), values, rng=np.random.RandomState(), mode=CPU_MODE, n_tests=1
    )


def test_directions():
    for device, dtype in DEVICE_DTYPES:
        # Theano takes seconds to compile each of these for the GPU, and the kernels have tests of their own.
        for arguments in ARGUMENTS if device == "cpu" else ARGUMENTS[:1]:
            for name, (function, values) in functions(arguments).items():
                yield check_direction, "%s %s" % (name, arguments), function, values, device, dtype


# ---- values outside the ordinary


def test_zeros_negatives_nan_and_infinity():
    for device in DEVICES:
        yield check_special_values, device


def check_special_values(device):
    if device == "gpu":
        gpu_or_skip()
    big = np.finfo("float32").max
    windows = [
        ([0, 0, 0, 0], [0], [-1], 0),
        ([-1, -2, -np.inf, 0], [0], [-1], 0),
        ([1, np.nan, 2, 3], [np.nan], [-1], np.nan),
        ([1, np.inf, 2, 3], [np.inf], [1], np.inf),
        ([np.inf, 1, np.inf, 0], [np.inf], [0, 2], np.inf),
        ([big, 0, big, -1], [big], [0, 2], np.inf),
        ([0, 0, 5, 0], [5], [2], 5),
        ([-3, 4, -3, 0], [4], [1], 4),
    ]
    images = np.zeros((1, 2, 2 * len(windows), 64), "float32")
    for i, (values, _, _, _) in enumerate(windows):
        images[0, :, 2 * i : 2 * i + 2] = np.array(values).reshape(2, 2)[:, :, None]
    from tests.processors import Processor

    pooled, positions = Processor(device).run(StochasticMaxPool(2, 2), images, np.array(0))
    weighted = Processor(device).run(WeightedMaxPool(2, 2), images)[0]
    for i, (values, drawn, places, average) in enumerate(windows):
        assert_identical(pooled[0, 0, i], np.full(64, drawn[0]), values)
        assert set(positions[0, 0, i]) == set(places), (values, positions[0, 0, i])
        if np.isfinite(average):
            assert (weighted[0, 0, i] == average).all(), values
        else:
            assert not np.isfinite(weighted[0, 0, i]).any(), values
    # The gradient of a window without weight is 0, not NaN.
    arrays = [
        images[:, :, :4],
        weighted[:, :, :2],
        np.zeros((1, 1, 2, 64), "float32"),
        np.ones((1, 1, 2, 64), "float32"),
    ]
    (gradient,) = Processor(device).run(WeightedMaxPoolGrad(2, 2), *arrays)
    assert (gradient == 0).all()


# ---- what Theano asks of an op


def test_equality_str_shape_and_pickle():
    one = StochasticMaxPool(3, 2, seed=5)
    assert one == StochasticMaxPool((3, 3), (2, 2), 0, 0, 5) and one != StochasticMaxPool(3, 2)
    assert str(one) == "StochasticMaxPool{ds=(3, 3), stride=(2, 2), start=(0, 0), outputs=(0, 0), seed=5}"
    for op in (one, WeightedMaxPool(3, 2, -1), GPU_TWINS[StochasticMaxPool](2, 2), StochasticMaxPoolGrad(2, 2)):
        assert pickle.loads(pickle.dumps(op, -1)) == op
    x = T.ftensor4("x")
    outputs = one(x, 0, return_list=True) + WeightedMaxPool(3, 2)(x, return_list=True)
    function = theano.function([x], [output.shape for output in outputs], mode=CPU_MODE)
    assert not any(type(node.op) in OPS for node in function.maker.fgraph.toposort())
    assert [tuple(shape) for shape in function(np.ones((2, 8, 7, 5), "float32"))] == [(2, 4, 3, 5)] * 4


def test_functions():
    x = T.ftensor4("x")
    value = np.random.uniform(0, 1, (2, 7, 7, 3)).astype("float32")
    pooled, weighted = theano.function(
        [x], [stochastic_max_pool_c01b(x, 3, 2, start=-1, seed=8), weighted_max_pool_c01b(x, 3, 2, -1)], mode=CPU_MODE
    )(value)
    assert_identical(pooled, reference.stochastic_max_pool(value, 3, 2, -1, seed=8)[0], "stochastic_max_pool_c01b")
    assert_close(weighted, reference.weighted_max_pool(value, 3, 2, -1)[0], 9, "weighted_max_pool_c01b")
    assert stochastic_max_pool_c01b(x, pool_shape=3, pool_stride=2).owner.op == StochasticMaxPool(3, 2)
    assert weighted_max_pool_c01b(x, pool_shape=(3, 2), pool_stride=2).owner.op == WeightedMaxPool((3, 2), 2)


def test_bad_arguments():
    x, d, i = T.ftensor4("x"), T.dtensor4("d"), T.itensor4("i")
    for error, words, call in [
        (TypeError, ["StochasticMaxPool: seed is 1.5", "an int"], lambda: StochasticMaxPool(2, 2, seed=1.5)),
        (ValueError, ["StochasticMaxPool: seed is -1", "at least 0"], lambda: StochasticMaxPool(2, 2, seed=-1)),
        (ValueError, ["seed is 9223372036854775808", "2**63"], lambda: StochasticMaxPool(2, 2, seed=2**63)),
        (ValueError, ["StochasticMaxPool: ds is 0"], lambda: StochasticMaxPool(0, 2)),
        (TypeError, ["StochasticMaxPool: draw is", "integer scalar"], lambda: StochasticMaxPool(2, 2)(x, 0.5)),
        (TypeError, ["StochasticMaxPool: draw is", "integer scalar"], lambda: StochasticMaxPool(2, 2)(x, [1, 2])),
        (TypeError, ["positions is float32", "int32"], lambda: StochasticMaxPoolGrad(2, 2)(x, x, (4, 4))),
        (TypeError, ["gz is int32"], lambda: StochasticMaxPoolGrad(2, 2)(i, i, (4, 4))),
        (TypeError, ["WeightedMaxPool: images is int32"], lambda: WeightedMaxPool(2, 2)(i)),
        (TypeError, ["WeightedMaxPoolGrad: sums is float64"], lambda: WeightedMaxPoolGrad(2, 2)(x, x, d, x)),
    ]:
        yield raises, error, words, call
