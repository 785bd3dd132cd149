"""MaxPool, MaxPoolGrad and MaxPoolRop against reference.py, over every processor and kernel row."""

import numpy as np
from convnet_ops import MaxPool, MaxPoolGrad, MaxPoolRop, reference

from tests import problems
from tests.comparison import assert_close, assert_identical
from tests.processors import cpu, gpu, gpu_or_skip, row_of

OPS = (MaxPool, MaxPoolGrad, MaxPoolRop)


class PoolCase(object):
    """A problem with random data, and what each of the three ops must make of it."""

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
        if op_class is MaxPool:
            (out,) = self.run(op, processor, self.images)
            assert_identical(out, self.maxout, what)
        elif op_class is MaxPoolGrad:
            (out,) = self.run(op, processor, self.images, self.maxout, self.gz)
            wanted = reference.max_pool_grad(self.images, self.maxout, self.gz, **self.arguments)
            assert_close(out, wanted, terms, what)
        else:
            (out,) = self.run(op, processor, self.images, self.direction)
            assert_close(out, reference.max_pool_rop(self.images, self.direction, **self.arguments), terms, what)

    def run(self, op, processor, *arrays):
        row = row_of(op, processor)
        return processor.run(op, *arrays, allowed=row is None or row.vec_n == 1 or self.problem.images[3] % 4 == 0)


VARIETIES = (dict(), dict(ties=True), dict(nans=True))


def test_cpu():
    for problem in problems.POOL_PROBLEMS:
        for dtype in ("float32", "float64"):
            for variety in VARIETIES:
                for op_class in OPS:
                    yield check_cpu, op_class, problem, dtype, variety


def check_cpu(op_class, problem, dtype, variety):
    PoolCase(problem, dtype, **variety).check(op_class, cpu())


def test_gpu():
    for problem in problems.POOL_PROBLEMS:
        for variety in VARIETIES:
            for op_class in OPS:
                yield check_gpu, op_class, problem, variety


def check_gpu(op_class, problem, variety):
    gpu_or_skip()
    case = PoolCase(problem, "float32", **variety)
    for processor in gpu(op_class(**case.arguments), all_rows=problem.tier == "quick"):
        case.check(op_class, processor)
