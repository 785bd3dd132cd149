"""Random shapes and arguments, found by hypothesis: the CPU ops against reference.py."""

import numpy as np
from convnet_ops import (
    AvgPool,
    AvgPoolGrad,
    FilterActs,
    ImageActs,
    MaxPool,
    MaxPoolGrad,
    MaxPoolRop,
    ProbMaxPool,
    ProbMaxPoolGrad,
    StochasticMaxPool,
    StochasticMaxPoolGrad,
    WeightActs,
    WeightedMaxPool,
    WeightedMaxPoolGrad,
    reference,
)
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.comparison import assert_close, assert_identical
from tests.processors import Processor, cpu, gpu_or_skip

# Every new set of arguments is a new Theano function: few examples, no deadline.
EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

FEWER_EXAMPLES = settings(EXAMPLES, max_examples=40)

sizes = st.integers(1, 7)
pads = st.one_of(st.integers(0, 3), st.tuples(st.integers(0, 3), st.integers(0, 3)), st.sampled_from(["full", "half"]))
strides = st.one_of(st.integers(1, 4), st.tuples(st.integers(1, 4), st.integers(1, 4)))


@st.composite
def conv_arguments(draw):
    groups = draw(st.integers(1, 3))
    channels, filters = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    taps = draw(sizes), draw(sizes)
    images = (channels * groups, draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.integers(1, 40)))
    options = dict(pad=draw(pads), stride=draw(strides), groups=groups)
    (pad_y, pad_x), _ = reference.conv_geometry(options["pad"], options["stride"], taps)
    assume(images[1] + 2 * pad_y >= taps[0] and images[2] + 2 * pad_x >= taps[1])
    return images, (channels,) + taps + (filters * groups,), options, draw(st.sampled_from(["float32", "float64"]))


@st.composite
def pool_arguments(draw):
    images = (draw(st.integers(1, 3)), draw(st.integers(1, 10)), draw(st.integers(1, 10)), draw(st.integers(1, 9)))
    ds = draw(st.integers(1, images[1])), draw(st.integers(1, images[2]))
    start = draw(st.integers(1 - min(ds), min(images[1:3]) - 1))
    stride = draw(strides)
    for size, window, step in zip(images[1:3], ds, reference.as_pair(stride)):
        assume(reference.output_size(size - start, window, step) > 0)
    return images, dict(ds=ds, stride=stride, start=start)


def check_conv(problem, processor):
    images_shape, filters_shape, options, dtype = problem
    rng = np.random.RandomState()
    images, filters = (rng.standard_normal(shape).astype(dtype) for shape in (images_shape, filters_shape))
    hid = rng.standard_normal(reference.filter_acts(images, filters, **options).shape).astype(dtype)
    if min(images.size, filters.size, hid.size) < 8:
        # Of a few sums all may nearly cancel, and rounding is then large beside them.
        images, filters, hid = abs(images), abs(filters), abs(hid)
    out = reference.filter_acts(images, filters, **options)
    size, taps = np.array(images_shape[1:3]), np.array(filters_shape[1:3])
    terms = max(int(np.prod(filters_shape)), hid[0].size)
    assert_close(processor.run(FilterActs(**options), images, filters)[0], out, terms, "FilterActs %r" % (problem,))
    gradient = reference.img_acts(hid, filters, tuple(size), **options)
    assert_close(
        processor.run(ImageActs(**options), hid, filters, size)[0], gradient, terms, "ImageActs %r" % (problem,)
    )
    gradient = reference.weight_acts(images, hid, tuple(taps), **options)
    assert_close(
        processor.run(WeightActs(**options), images, hid, taps)[0], gradient, terms, "WeightActs %r" % (problem,)
    )


def check_pool(problem, processor):
    images_shape, arguments = problem
    rng = np.random.RandomState()
    images = rng.randint(-4, 5, images_shape).astype("float32")
    maxout = reference.max_pool(images, **arguments).astype("float32")
    # Integers, whose sums are exact: of other numbers a few may cancel, and rounding is then large beside their sum.
    gz, direction = (rng.randint(-999, 1000, array.shape).astype("float32") for array in (maxout, images))
    checks = [
        (MaxPool, [images], maxout),
        (MaxPoolGrad, [images, maxout, gz], reference.max_pool_grad(images, maxout, gz, **arguments)),
        (MaxPoolRop, [images, direction], reference.max_pool_rop(images, direction, **arguments)),
    ]
    for op, arrays, wanted in checks:
        assert_identical(processor.run(op(**arguments), *arrays)[0], wanted, "%s %r" % (op.__name__, problem))


def check_other_pools(problem, processor):
    images_shape, arguments = problem
    # Some gradients are differences: of a few values all may cancel, of those of 17 images and more they do not.
    images_shape = images_shape[:3] + (images_shape[3] + 16,)
    rng = np.random.RandomState()
    images = np.maximum(rng.randint(-2, 9, images_shape), 0).astype("float32")
    size, terms = np.array(images_shape[1:3]), int(np.prod(arguments["ds"]))

    def check(op, arrays, wanted):
        for out, reference_value in zip(processor.run(op, *arrays), wanted):
            assert_close(out, reference_value, terms, "%s %r" % (op, problem))

    pooled, positions = reference.stochastic_max_pool(images, draw=3, **arguments)
    check(StochasticMaxPool(**arguments), [images, np.array(3)], [pooled, positions])
    gz = rng.standard_normal(pooled.shape).astype("float32")
    wanted = reference.stochastic_max_pool_grad(positions, gz, tuple(size), **arguments)
    check(StochasticMaxPoolGrad(**arguments), [positions, gz, size], [wanted])
    check(AvgPool(**arguments), [images], [reference.avg_pool(images, **arguments)])
    check(AvgPoolGrad(**arguments), [gz, size], [reference.avg_pool_grad(gz, tuple(size), **arguments)])
    weighted = reference.weighted_max_pool(images, **arguments)
    check(WeightedMaxPool(**arguments), [images], weighted)
    given_arrays = [images] + [array.astype("float32") for array in weighted] + [gz]
    wanted = reference.weighted_max_pool_grad(images, gz, **arguments)
    check(WeightedMaxPoolGrad(**arguments), given_arrays, [wanted])
    blocks = dict(ds=arguments["ds"], start=arguments["start"])
    windows = zip(size, blocks["ds"], reference.as_pair(blocks["start"]))
    if all(reference.output_size(pixels - start, window, window) > 0 for pixels, window, start in windows):
        z = (0.3 * rng.standard_normal(images_shape)).astype("float32")
        top_down = reference.max_pool(-z, stride=blocks["ds"], **blocks).astype("float32")
        check(ProbMaxPool(**blocks), [z, top_down], reference.prob_max_pool(z, top_down, **blocks))
        given_arrays = [z, top_down, rng.standard_normal(top_down.shape), rng.standard_normal(z.shape)]
        given_arrays = [array.astype("float32") for array in given_arrays]
        wanted = reference.prob_max_pool_grad(*given_arrays, **blocks)
        check(ProbMaxPoolGrad(**blocks), given_arrays, wanted)


@EXAMPLES
@given(conv_arguments())
def test_conv(problem):
    check_conv(problem, cpu())


@EXAMPLES
@given(pool_arguments())
def test_pool(problem):
    check_pool(problem, cpu())


@FEWER_EXAMPLES
@given(pool_arguments())
def test_other_pools(problem):
    check_other_pools(problem, cpu())


@EXAMPLES
@given(conv_arguments().filter(lambda problem: problem[3] == "float32"))
def random_conv_on_the_gpu(problem):
    check_conv(problem, Processor("gpu"))


def test_conv_on_the_gpu():
    gpu_or_skip()
    random_conv_on_the_gpu()


@EXAMPLES
@given(pool_arguments())
def random_pool_on_the_gpu(problem):
    check_pool(problem, Processor("gpu"))


def test_pool_on_the_gpu():
    gpu_or_skip()
    random_pool_on_the_gpu()


@FEWER_EXAMPLES
@given(pool_arguments())
def random_other_pools_on_the_gpu(problem):
    check_other_pools(problem, Processor("gpu"))


def test_other_pools_on_the_gpu():
    gpu_or_skip()
    random_other_pools_on_the_gpu()
