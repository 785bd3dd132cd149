"""FilterActs, ImageActs and WeightActs against reference.py, over every processor and kernel row."""

import os

import numpy as np
from convnet_ops import FilterActs, ImageActs, WeightActs, reference, tiles
from convnet_ops.base_acts import PRECISIONS

from tests import problems
from tests.comparison import assert_close, slack_of
from tests.processors import Processor, cpu, gpu, gpu_or_skip, row_of


class ConvCase(object):
    """A problem with random data, and what each of the three ops must make of it."""

    def __init__(self, problem, dtype):
        rng = np.random.RandomState()
        self.problem = problem
        self.images = rng.standard_normal(problem.images).astype(dtype)
        self.filters = rng.standard_normal(problem.filters).astype(dtype)
        self.options = dict(pad=problem.pad, stride=problem.stride, groups=problem.groups)
        self.out = reference.filter_acts(self.images, self.filters, **self.options)
        self.hid = rng.standard_normal(self.out.shape).astype(dtype)
        self.size = np.array(problem.images[1:3], "int64")
        self.taps = np.array(problem.filters[1:3], "int64")

    def check(self, op_class, processor, precision="float32"):
        op = op_class(precision=precision, **self.options)
        what = "%s, %s, on %r" % (op_class.__name__, self.problem.name, processor)
        channels, rows, cols, count = self.problem.filters
        if op_class is FilterActs:
            (out,) = self.run(op, processor, self.images, self.filters)
            assert_close(out, self.out, channels * rows * cols, what, precision, slack_of(processor, out))
        elif op_class is ImageActs:
            (out,) = self.run(op, processor, self.hid, self.filters, self.size)
            wanted = reference.img_acts(self.hid, self.filters, tuple(self.size), **self.options)
            terms = count // self.problem.groups * rows * cols
            assert_close(out, wanted, terms, what, precision, slack_of(processor, out))
        else:
            out, partials = self.run(op, processor, self.images, self.hid, self.taps)
            wanted = reference.weight_acts(self.images, self.hid, tuple(self.taps), **self.options)
            terms = self.hid[0].size
            assert_close(out, wanted, terms, what, precision, slack_of(processor, out))
            total = partials.astype("float64").sum(axis=0).astype(out.dtype)
            assert_close(total, wanted, terms, what + ", partial sums", precision, slack_of(processor, out))

    def run(self, op, processor, *arrays):
        row = row_of(op, processor)
        if processor.variant.startswith("tiles=") and row is not None:
            allowed = problems.tiles_allow(self.problem, row)
        elif processor.variant.startswith("img_acts_columns="):
            outputs = self.hid[0].size
            allowed = self.problem.groups == 1 and self.problem.filters[3] % row.vec_m == 0 and outputs % row.vec_n == 0
        elif "_f16=" in processor.variant:
            # Copied into words, every batch becomes one that 4 divides.
            allowed = True
        else:
            allowed = row is None or row.vec_n == 1 or self.batch_allows_loads_of_4()
        return processor.run(op, *arrays, allowed=allowed)

    def batch_allows_loads_of_4(self):
        """Whether 4 divides the batch, or padding it so adds at most a quarter."""
        batch = self.problem.images[3]
        return 4 * (-(-batch // 4) * 4) <= 5 * batch


OPS = (FilterActs, ImageActs, WeightActs)


def test_cpu():
    for problem in problems.CONV_PROBLEMS:
        for dtype in ("float32", "float64"):
            for op_class in OPS:
                yield check_cpu, op_class, problem, dtype


def check_cpu(op_class, problem, dtype):
    ConvCase(problem, dtype).check(op_class, cpu())


# One for each op: under a memory checker they run side by side, and libgpuarray keeps the kernels of one op loaded.
def test_filter_acts_gpu():
    for problem in problems.CONV_PROBLEMS:
        yield check_gpu, FilterActs, problem


def test_img_acts_gpu():
    for problem in problems.CONV_PROBLEMS:
        yield check_gpu, ImageActs, problem


def test_weight_acts_gpu():
    for problem in problems.CONV_PROBLEMS:
        yield check_gpu, WeightActs, problem


def test_variants_of_tiles():
    gpu_or_skip()
    case = ConvCase(problems.CONV_PROBLEMS[0], "float32")
    case.check(FilterActs, Processor("gpu", "tiles=none"))
    try:
        case.check(FilterActs, Processor("gpu", "tiles=no_such_tile"))
    except ValueError as error:
        assert "no_such_tile" in str(error), error
    else:
        raise AssertionError("no error")


# The problems become 13 x 14 images, with stride 1; the last tile hangs over.
TILES_OF_SEVERAL_ROWS = (
    ("odd filters", "winograd_2x2_3x3"),
    ("plain", "winograd_4x4_3x3"),
    ("half", "fft_12x12"),
    ("alexnet 1, small", "fft_16x16"),
)


def test_rows_of_tiles_one_at_a_time():
    for op_class in OPS:
        yield check_rows_of_tiles, op_class


def check_rows_of_tiles(op_class):
    gpu_or_skip()
    for name, tile in TILES_OF_SEVERAL_ROWS:
        problem = next(problem for problem in problems.CONV_PROBLEMS if problem.name == name)
        images = problem.images[:1] + (13, 14) + problem.images[3:]
        case = ConvCase(problem._replace(stride=1, images=images), "float32")
        os.environ["CONVNET_OPS_TILE_BYTES"] = "1"
        try:
            case.check(op_class, Processor("gpu", "tiles=" + tile))
        finally:
            del os.environ["CONVNET_OPS_TILE_BYTES"]


def test_outputs_of_odd_and_even_batches():
    for op_class in (FilterActs, ImageActs):
        yield check_outputs_of_batches, op_class


def check_outputs_of_batches(op_class):
    gpu_or_skip()
    names = [row.name for row in tiles.OUTPUTS.rows]
    sizes = [name[: -len("_odd")] for name in names if name.endswith("_odd")]
    assert sizes and set(sizes) < set(names)
    problem = next(problem for problem in problems.CONV_PROBLEMS if problem.name == "pad")
    for size in sizes:
        for batch, row in ((5, size), (5, size + "_odd"), (8, size + "_odd")):
            case = ConvCase(problem._replace(images=problem.images[:3] + (batch,)), "float32")
            case.check(op_class, Processor("gpu", "tiles=%s,tile_outputs=%s" % (size, row)))


def test_outputs_of_another_tile():
    gpu_or_skip()
    case = ConvCase(next(problem for problem in problems.CONV_PROBLEMS if problem.name == "pad"), "float32")
    message = "CONVNET_OPS_VARIANT: tile_outputs=fft_12x12 is no row for tiles fft_16x16; valid are fft_16x16 and"
    try:
        case.check(FilterActs, Processor("gpu", "tiles=fft_16x16,tile_outputs=fft_12x12"))
    except ValueError as error:
        assert str(error).startswith(message), error
    else:
        raise AssertionError("tiles of 16 x 16 ran the outputs of 12 x 12")


def test_images_beside_tiles():
    for op_class in (FilterActs, ImageActs):
        yield check_images_beside_tiles, op_class


def check_images_beside_tiles(op_class):
    gpu_or_skip()
    for name, tile in TILES_OF_SEVERAL_ROWS:
        problem = next(problem for problem in problems.CONV_PROBLEMS if problem.name == name)
        # The direct kernels load the last images, where they lie, one by one or four at once.
        for batch, by_tiles in ((9, 1), (8, 4)):
            case = ConvCase(problem._replace(images=problem.images[:3] + (batch,)), "float32")
            case.check(op_class, Processor("gpu", "tiles=%s,tile_images=%d" % (tile, by_tiles)))
    # Sums that are split.
    problem = problem._replace(name="many channels", images=(96, 5, 4, 7), filters=(96, 3, 3, 96), stride=1, pad=0)
    for by_tiles in (3, 5):
        ConvCase(problem, "float32").check(op_class, Processor("gpu", "tiles=fft_12x12,tile_images=%d" % by_tiles))


HALVES = {FilterActs: "filter_acts_f16", ImageActs: "img_acts_f16", WeightActs: "weight_acts_f16"}


def half_case(images=1, filters=1, hid=1, channels=5):
    """A case of odd sizes whose arrays are multiplied by these numbers."""
    problem = next(problem for problem in problems.CONV_PROBLEMS if problem.name == "odd sizes")
    problem = problem._replace(images=(channels,) + problem.images[1:], filters=(channels,) + problem.filters[1:])
    case = ConvCase(problem, "float32")
    for array, factor in ((case.images, images), (case.filters, filters), (case.hid, hid)):
        array *= np.float32(factor)
    case.out = reference.filter_acts(case.images, case.filters, **case.options)
    return case


def half_processor(op_class):
    """The GPU with a row of halves."""
    return gpu(op_class(precision="float16"), False)[0]


def test_halves_of_any_scale():
    for op_class in OPS:
        yield check_scales, op_class


def check_scales(op_class):
    gpu_or_skip()
    # Largest values of about 4 times these: up to float32's limits.
    for scales in ((1e30, 1e-30, 1), (1e-30, 1e30, 1), (1e18, 1e18, 1e18), (1e-18, 1e-18, 1e-18), (1e-37, 1e37, 1)):
        half_case(*scales).check(op_class, half_processor(op_class), "float16")
    for scales in ((0, 1, 1), (1, 0, 0)):
        case = half_case(*scales)
        if scales[0] == 0 and op_class is ImageActs:
            case.hid[...] = 0
        arrays = {
            FilterActs: (case.images, case.filters),
            ImageActs: (case.hid, case.filters, case.size),
            WeightActs: (case.images, case.hid, case.taps),
        }[op_class]
        out = case.run(op_class(precision="float16", **case.options), half_processor(op_class), *arrays)[0]
        assert not out.any()


def test_halves_of_infinities():
    for op_class in OPS:
        yield check_infinities, op_class


def check_infinities(op_class):
    gpu_or_skip()
    # With fewer channels ImageActs may compute blocks of pixels, all of which an infinity in one window reaches.
    case = half_case(1e10, 1, 1, channels=32 if op_class is ImageActs else 5)
    # In other channels and images of the first operand, which is far too large for halves as it is.
    first = case.hid if op_class is ImageActs else case.images
    first[0, 1, 1, 0], first[2, 2, 3, 2] = np.inf, np.nan
    arrays, wanted = {
        FilterActs: lambda: ((first, case.filters), reference.filter_acts(first, case.filters)),
        ImageActs: lambda: (
            (first, case.filters, case.size),
            reference.img_acts(first, case.filters, tuple(case.size)),
        ),
        WeightActs: lambda: ((first, case.hid, case.taps), reference.weight_acts(first, case.hid, tuple(case.taps))),
    }[op_class]()
    out = case.run(op_class(precision="float16"), half_processor(op_class), *arrays)[0]
    finite = np.isfinite(wanted)
    assert 0 < finite.sum() < finite.size
    np.testing.assert_array_equal(out[~finite], wanted[~finite])
    assert_close(out[finite], wanted[finite], 1000, op_class.__name__, "float16")


def test_halves_want_their_precision():
    gpu_or_skip()
    case = half_case()
    for op_class in OPS:
        case.check(op_class, Processor("gpu"), "float16")
        for precision in ("float32", "tf32"):
            try:
                case.check(op_class, half_processor(op_class), precision)
            except ValueError as error:
                assert HALVES[op_class] in str(error) and "wants precision 'float16'" in str(error), error
            else:
                raise AssertionError("no error")


def check_gpu(op_class, problem):
    gpu_or_skip()
    case = ConvCase(problem, "float32")
    number = problems.CONV_PROBLEMS.index(problem)
    # Layers of networks tell of halves no more than the others do, and take an emulated device long.
    for precision in PRECISIONS[:2] if problem.tier == "networks" else PRECISIONS:
        op = op_class(precision=precision, **case.options)
        for processor in gpu(op, problem.tier == "quick", number):
            case.check(op_class, processor, precision)
