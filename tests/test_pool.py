"""MaxPool, AvgPool and SumPool with their derivatives, over every processor and kernel row, against reference.py."""

import numpy as np
from convnet_ops import AvgPool, AvgPoolGrad, MaxPool, MaxPoolGrad, MaxPoolRop, reference
from convnet_ops.pool import SumPool, SumPoolGrad

from tests import problems
from tests.comparison import assert_close, assert_identical
from tests.processors import cpu, gpu, gpu_or_skip, row_allows

MAX_OPS = (MaxPool, MaxPoolGrad, MaxPoolRop)
SUM_OPS = (AvgPool, AvgPoolGrad, SumPool, SumPoolGrad)


class PoolCase(object):
    """A problem with random data, and what each of the ops must make of it."""

    def __init__(self, problem, dtype, ties=False, nans=False):
        rng = np.random.RandomState()
        self.problem = problem
        self.arguments = dict(ds=problem.ds, stride=problem.stride, start=problem.start, outputs=problem.outputs)
        self.images = rng.standard_normal(problem.images).astype(dtype)
        if ties:
            self.images = rng.randint(0, 3, problem.images).astype(dtype)
        if nans:
            self.images[rng.uniform(size=problem.images) < 0.1] = np.nan
        self.maxout = reference.max_pool(self.images, **self.arguments).astype(dtype)
        self.gz = rng.standard_normal(self.maxout.shape).astype(dtype)
        self.direction = rng.standard_normal(problem.images).astype(dtype)

    def check(self, op_class, processor):
        op = op_class(**self.arguments)
        what = "%s, %s, on %r" % (op_class.__name__, self.problem.name, processor)
        # A pixel may lie in ds / stride windows; a sum has at most the terms of a window.
        terms = int(np.prod(reference.as_pair(self.problem.ds)))
        arrays, wanted = self.operands(op_class)
        (out,) = self.run(op, processor, *arrays)
        if op_class is MaxPool:
            assert_identical(out, wanted, what)
        else:
            assert_close(out, wanted, terms, what)

    def operands(self, op_class):
        """The inputs of an op, and its right output."""
        size = self.images.shape[1:3]
        if op_class is MaxPool:
            return [self.images], self.maxout
        if op_class is MaxPoolGrad:
            arrays = [self.images, self.maxout, self.gz]
            return arrays, reference.max_pool_grad(*arrays, **self.arguments)
        if op_class is MaxPoolRop:
            arrays = [self.images, self.direction]
            return arrays, reference.max_pool_rop(*arrays, **self.arguments)
        if op_class in (AvgPool, SumPool):
            pool = reference.avg_pool if op_class is AvgPool else reference.sum_pool
            return [self.images], pool(self.images, **self.arguments)
        gradient = reference.avg_pool_grad(self.gz, size, average=op_class is AvgPoolGrad, **self.arguments)
        return [self.gz, np.array(size)], gradient

    def run(self, op, processor, *arrays):
        return processor.run(op, *arrays, allowed=pool_row_allows(op, processor, self.problem))


def pool_row_allows(op, processor, problem):
    """Whether the row that a processor forces computes a problem."""
    (ds_y, ds_x), (stride_y, stride_x) = reference.as_pair(problem.ds), reference.as_pair(problem.stride)
    window, stride = ds_y if ds_y == ds_x else None, stride_y if stride_y == stride_x else None
    return row_allows(op, processor, problem.images[3], window, stride)


VARIETIES = (dict(), dict(ties=True), dict(nans=True))


def cases():
    """(op, variety) that every problem runs: NaN and ties matter to maxima only."""
    for variety in VARIETIES:
        for op_class in MAX_OPS:
            yield op_class, variety
    for op_class in SUM_OPS:
        yield op_class, dict()


def test_cpu():
    for problem in problems.POOL_PROBLEMS:
        for dtype in ("float32", "float64"):
            for op_class, variety in cases():
                yield check_cpu, op_class, problem, dtype, variety


def check_cpu(op_class, problem, dtype, variety):
    PoolCase(problem, dtype, **variety).check(op_class, cpu())


def test_gpu():
    for problem in problems.POOL_PROBLEMS:
        for op_class, variety in cases():
            yield check_gpu, op_class, problem, variety


def check_gpu(op_class, problem, variety):
    gpu_or_skip()
    case = PoolCase(problem, "float32", **variety)
    for processor in gpu(op_class(**case.arguments), all_rows=problem.tier == "quick"):
        case.check(op_class, processor)


def test_nan_and_infinity_in_averages():
    """They stay in the windows that they are in; an infinite maximum is one."""
    images = np.ones((1, 4, 4, 3), "float32")
    images[0, 0, 0, 0], images[0, 0, 0, 1], images[0, 0, 0, 2] = np.nan, np.inf, -np.inf
    (averages,), (maxima,) = (cpu().run(op_class(2, 2), images) for op_class in (AvgPool, MaxPool))
    assert_identical(averages[0, 0, 0], np.array([np.nan, np.inf, -np.inf]), "averages")
    assert_identical(maxima[0, 0, 0], np.array([np.nan, np.inf, 1]), "maxima")
    for out in (averages, maxima):
        assert (out.reshape(4, 3)[1:] == 1).all()
