"""The shapes that tests and benchmarks use, one table: every row says what it is there for.

Tiers: `quick` rows run over every processor and every kernel row, but each over one of the tiles that differ in size
alone (processors.gpu); `full` rows over the CPU, the plain kernels and the row that the host code chooses; `networks`
are the layers of the benchmarks, with as many images and channels as an emulated device can follow.
CONVNET_OPS_TIERS=quick, or several with commas between, leaves the others out: for slow checks, as of memory. quick
alone also leaves out three quarters of a convolution's rows of each problem (processors.gpu).
"""

import os
from collections import namedtuple

ConvProblem = namedtuple("ConvProblem", "name images filters pad stride groups tier reason")
PoolProblem = namedtuple("PoolProblem", "name images ds stride start outputs tier reason")
NormProblem = namedtuple("NormProblem", "name images size_f add_scale pow_scale blocked tier reason")
ShuffleProblem = namedtuple("ShuffleProblem", "name images tier reason")
Layer = namedtuple("Layer", "name batch channels size filters filter_size stride pad groups")
Layer.__new__.__defaults__ = (1,)


def _conv(name, images, filters, reason, pad=0, stride=1, groups=1, tier="quick"):
    return ConvProblem(name, images, filters, pad, stride, groups, tier, reason)


def _pool(name, images, ds, stride, reason, start=0, outputs=0, tier="quick"):
    return PoolProblem(name, images, ds, stride, start, outputs, tier, reason)


def _norm(name, images, size_f, add_scale, pow_scale, reason, blocked=False, tier="quick"):
    return NormProblem(name, images, size_f, add_scale, pow_scale, blocked, tier, reason)


def _shuffle(name, images, reason, tier="quick"):
    return ShuffleProblem(name, images, tier, reason)


# images (C, H, W, N), filters (C / groups, R, S, F)
CONV_PROBLEMS = [
    _conv("plain", (3, 8, 8, 4), (3, 3, 3, 8), "the smallest ordinary case; every size divisible by 4 that may be"),
    _conv("one of everything", (1, 1, 1, 1), (1, 1, 1, 1), "all sizes 1"),
    _conv("odd sizes", (5, 9, 7, 3), (5, 3, 2, 7), "no size divisible by 4, neither images nor filters square"),
    _conv("odd filters", (4, 6, 6, 8), (4, 3, 3, 5), "loads of 4 floats along the batch, of 1 along the filters"),
    _conv("odd batch", (4, 6, 6, 5), (4, 3, 3, 8), "loads of 4 floats along the filters, of 1 along the batch"),
    _conv("two tiles of filters", (8, 5, 5, 8), (8, 3, 3, 132), "132 filters: the tail of a tile of 128"),
    _conv("batch 129", (2, 4, 4, 129), (2, 3, 3, 16), "the tail of a tile of 128 images"),
    _conv("batch 132", (2, 4, 4, 132), (2, 3, 3, 16), "the same, with loads of 4"),
    _conv("depth 17", (17, 4, 4, 4), (17, 1, 1, 8), "one more tap than a step of the sum holds"),
    _conv("pad", (3, 6, 7, 4), (3, 5, 3, 8), "a different pad for rows and columns", pad=(2, 1)),
    _conv("full", (3, 5, 6, 4), (3, 4, 3, 8), "pad 'full'", pad="full"),
    _conv("half", (3, 6, 6, 4), (3, 4, 3, 8), "pad 'half' of an even and an odd filter", pad="half"),
    _conv("pad beyond the filter", (2, 3, 3, 4), (2, 2, 2, 4), "windows that see only zeros", pad=4),
    _conv(
        "stride 2",
        (3, 9, 8, 4),
        (3, 3, 3, 8),
        "phases of two sizes; the last window hangs over the right edge",
        stride=2,
    ),
    _conv("stride pair", (3, 11, 10, 4), (3, 5, 3, 8), "rows and columns differ", pad=(1, 0), stride=(3, 2)),
    _conv(
        "alexnet 1, small",
        (3, 35, 35, 4),
        (3, 11, 11, 8),
        "stride 4, the ceil size: 224 and 11 gives 55",
        pad=2,
        stride=4,
    ),
    _conv("stride over the filter", (2, 9, 9, 4), (2, 2, 2, 4), "pixels that no window sees", stride=3),
    _conv("stride over the image", (2, 3, 4, 4), (2, 2, 1, 4), "a single window", stride=7),
    _conv(
        "last window outside",
        (2, 7, 7, 4),
        (2, 1, 1, 4),
        "stride 3 over a 1x1 filter: the size is clipped",
        stride=3,
        pad=(0, 1),
    ),
    _conv("two groups", (8, 5, 5, 4), (4, 3, 3, 16), "groups that allow loads of 4", groups=2),
    _conv(
        "three groups",
        (6, 5, 5, 4),
        (2, 3, 3, 9),
        "3 filters a group: groups begin at odd addresses",
        groups=3,
        stride=2,
        pad=1,
    ),
    _conv("depthwise", (5, 6, 6, 4), (1, 3, 3, 10), "one channel a group", groups=5),
    _conv("text", (1, 2, 40, 8), (1, 2, 9, 12), "non-image data: very long filters"),
    _conv("1x1", (16, 3, 3, 8), (16, 1, 1, 32), "a matrix product"),
    _conv("whole image", (4, 6, 6, 8), (4, 6, 6, 16), "one output pixel"),
    _conv("few outputs", (64, 3, 3, 4), (64, 3, 3, 8), "blocks share the sums of one tile"),
    _conv("many channels, one image", (48, 5, 5, 1), (48, 3, 3, 20), "the same, with loads of single floats", pad=1),
    _conv("batch 13", (4, 5, 5, 13), (4, 3, 3, 6), "a batch that is padded to 16, filters to 8", stride=2, pad=1),
    _conv("long sum", (256, 7, 7, 4), (256, 5, 5, 8), "a sum of 6400 terms", tier="full"),
    _conv("many columns", (1, 30, 31, 33), (1, 5, 5, 3), "many tiles of columns, none whole", pad=2, tier="full"),
    _conv("many filters", (4, 4, 4, 4), (4, 3, 3, 600), "several tiles of filters", tier="full"),
    _conv("batch 1", (16, 20, 20, 1), (16, 3, 3, 32), "tiles over many pixels", pad=1, tier="full"),
    _conv("batch 500", (2, 6, 6, 500), (2, 3, 3, 8), "the seed's batch", tier="full"),
    _conv("large stride", (3, 40, 40, 8), (3, 3, 3, 8), "phases without any tap", stride=5, tier="full"),
    _conv("lenet1", (1, 28, 28, 20), (1, 5, 5, 32), "first layer of the seed's LeNet", tier="networks"),
    _conv("lenet2", (32, 12, 12, 20), (32, 5, 5, 64), "its second layer", tier="networks"),
    _conv("alex1", (3, 99, 99, 8), (3, 11, 11, 64), "AlexNet, smaller images", stride=4, pad=2, tier="networks"),
    _conv("alex2", (32, 13, 13, 16), (32, 5, 5, 96), "AlexNet, half its size and channels", pad=2, tier="networks"),
    _conv(
        "alex2, two towers",
        (48, 13, 13, 8),
        (24, 5, 5, 128),
        "as it was trained on two GPUs",
        pad=2,
        groups=2,
        tier="networks",
    ),
    _conv("alex3", (96, 13, 13, 16), (96, 3, 3, 192), "AlexNet, half its channels", pad=1, tier="networks"),
    _conv("cb4", (64, 16, 16, 8), (64, 7, 7, 64), "a large filter, a small image, fewer channels", tier="networks"),
]

POOL_PROBLEMS = [
    _pool("2/2", (3, 8, 8, 4), 2, 2, "traditional pooling"),
    _pool("3/2", (2, 7, 7, 8), 3, 2, "overlapping windows, as in AlexNet"),
    _pool("3/2, ceil", (2, 8, 9, 5), 3, 2, "the last windows hang over both edges; an odd batch"),
    _pool("rectangular", (2, 9, 6, 4), (3, 2), (2, 1), "pairs, images that are not square"),
    _pool("stride over ds", (2, 9, 10, 4), 2, 3, "pixels in no window; the size is clipped"),
    _pool("stride over the image", (2, 3, 3, 4), 2, 5, "a single window"),
    _pool("start -1", (2, 7, 7, 4), 3, 2, "the first windows are clipped", start=-1),
    _pool("start -2, pair", (2, 6, 7, 4), (3, 4), 2, "clipped to one row, to two columns", start=(-2, -2)),
    _pool("start 1", (2, 8, 8, 3), 2, 2, "pixels before the first window", start=1),
    _pool("start at the end", (2, 4, 4, 4), 3, 3, "the only window is clipped to one pixel", start=3),
    _pool("fewer outputs", (2, 9, 9, 4), 2, 2, "outputs given: the rest of the image is left out", outputs=2),
    _pool("more outputs", (2, 6, 6, 4), 3, 2, "outputs given: one window more than the ceil", outputs=3),
    _pool("whole image", (5, 4, 5, 3), (4, 5), 1, "global pooling"),
    _pool("1/1", (2, 3, 3, 4), 1, 1, "the identity"),
    _pool("odd 3/2", (3, 9, 9, 1), 3, 2, "a batch of one"),
    _pool("tall", (2, 40, 5, 4), 3, 2, "many tiles in a column of the gradient"),
    _pool("2/2, start 1, outputs", (2, 11, 9, 4), 2, 2, "tiles before and after the windows", start=1, outputs=3),
    _pool("1x1 images", (4, 1, 1, 2), 1, 1, "nothing to slide over"),
    _pool("lenet", (32, 24, 24, 20), 2, 2, "first layer of the seed's LeNet", tier="full"),
    _pool("alexnet", (64, 55, 55, 8), 3, 2, "first layer of AlexNet", tier="full"),
]

# Blocks: the stride of a probabilistic pooling op is its ds.
PROB_PROBLEMS = [
    _pool("2", (3, 8, 8, 4), 2, 2, "blocks that fit"),
    _pool("3", (2, 9, 6, 8), 3, 3, "larger ones"),
    _pool("3, ceil", (2, 8, 7, 5), 3, 3, "the last blocks hang over both edges; an odd batch"),
    _pool("rectangular", (2, 9, 8, 4), (3, 2), (3, 2), "blocks that are not square"),
    _pool("start -1", (2, 7, 7, 4), 2, 2, "the first blocks are clipped", start=-1),
    _pool("start -2, pair", (2, 6, 7, 4), (3, 4), (3, 4), "clipped to one row, to two columns", start=(-2, -2)),
    _pool("start 1", (2, 8, 8, 3), 2, 2, "pixels before the first block, whose h is 0", start=1),
    _pool("start 3", (2, 8, 9, 4), 2, 2, "more of them than a block holds", start=3),
    _pool("fewer outputs", (2, 9, 9, 4), 2, 2, "pixels beyond the last block", outputs=2),
    _pool("whole image", (5, 4, 5, 3), (4, 5), (4, 5), "one block"),
    _pool("1", (2, 3, 3, 4), 1, 1, "blocks of one pixel: a sigmoid"),
    _pool("large blocks", (2, 16, 16, 4), 8, 8, "64 pixels a block"),
    _pool("many", (16, 24, 24, 12), 2, 2, "several blocks of threads", tier="full"),
]

NORM_PROBLEMS = [
    _norm("alexnet", (8, 3, 3, 4), 5, 1e-4, 0.75, "AlexNet's numbers; positions divisible by 4"),
    _norm("strong", (8, 3, 5, 4), 5, 0.3, 0.75, "denominators far from 1"),
    _norm("even", (7, 2, 3, 5), 4, 0.5, 0.5, "a window that is longer on one side; an odd number of positions"),
    _norm("one channel a window", (5, 2, 2, 3), 1, 0.5, 1.0, "windows of one channel"),
    # The gradient of one value has the factor 1 + (1 - 2 * pow_scale) * x ** 2, which may cancel to nothing above 0.5.
    _norm("one of everything", (1, 1, 1, 1), 3, 1.0, 0.4, "all sizes 1"),
    _norm("wider than all", (4, 2, 2, 4), 100, 0.1, 0.8, "every window holds all channels"),
    _norm("wider than any array", (4, 2, 2, 4), 2**62, 0.1, 0.8, "sizes that an int does not hold"),
    _norm("blocks", (9, 2, 2, 4), 3, 0.5, 0.75, "blocks that fit", blocked=True),
    _norm("last block short", (8, 3, 2, 3), 3, 0.5, 1.3, "blocks that do not", blocked=True),
    _norm("one block", (3, 2, 2, 4), 8, 0.5, 0.75, "a block wider than all channels", blocked=True),
    _norm("odd rows", (16, 5, 7, 4), 9, 0.2, 0.75, "more positions than a warp holds"),
    _norm("no power", (4, 2, 2, 4), 3, 0.5, 0.0, "pow_scale 0: the identity"),
    _norm("growing", (4, 2, 2, 4), 3, 0.5, -1.5, "a negative pow_scale"),
    _norm("alexnet, first layer", (96, 27, 27, 16), 5, 1e-4, 0.75, "many channels and positions", tier="full"),
    _norm("few positions", (50, 2, 2, 4), 3, 0.2, 0.75, "channels in chunks, the last one shorter"),
    _norm("odd batch", (64, 13, 13, 129), 5, 1e-2, 0.75, "a batch of 129", tier="full"),
]

# images (N, C, H, W): the side of a matrix, and the other one, C * H * W
SHUFFLE_PROBLEMS = [
    _shuffle("plain", (4, 3, 4, 4), "4 x 48: both sides divisible by 4"),
    _shuffle("one of everything", (1, 1, 1, 1), "all sizes 1"),
    _shuffle("odd sizes", (3, 5, 7, 9), "3 x 315: no side divisible by 4"),
    _shuffle("tiles", (68, 4, 5, 5), "68 x 100: the tails of tiles of 64 and 32, with loads of 4"),
    _shuffle("odd tiles", (67, 3, 5, 7), "67 x 105: the same, with loads of 1"),
    _shuffle("odd batch", (65, 4, 4, 4), "65 x 64: loads of 4 on one side only"),
    _shuffle("odd images", (64, 3, 5, 5), "64 x 75: on the other one"),
    _shuffle("one image", (1, 8, 9, 10), "1 x 720: a copy, unless flipped"),
    _shuffle("three images", (3, 16, 21, 13), "3 x 4368: several thin tiles of 1365 columns"),
    _shuffle("eight images", (8, 4, 12, 11), "8 x 528: a thin tile of as many rows as it holds"),
    _shuffle("nine images", (9, 2, 16, 16), "9 x 512: one row more"),
    _shuffle("scalars", (130, 1, 1, 1), "130 x 1"),
    _shuffle("three values", (1400, 1, 1, 3), "1400 x 3: thin the other way"),
    _shuffle("no images", (0, 3, 4, 5), "no elements"),
    _shuffle("no rows", (2, 3, 0, 5), "no elements, in images without area"),
    _shuffle("the seed's batch", (500, 3, 11, 13), "500 x 429", tier="full"),
    _shuffle("alex1's filters", (64, 3, 11, 11), "64 x 363", tier="full"),
    _shuffle("alex3, small", (32, 192, 13, 13), "32 x 32448", tier="full"),
]

if "CONVNET_OPS_TIERS" in os.environ:
    _chosen = os.environ["CONVNET_OPS_TIERS"].split(",")
    CONV_PROBLEMS, POOL_PROBLEMS, PROB_PROBLEMS, NORM_PROBLEMS, SHUFFLE_PROBLEMS = (
        [problem for problem in table if problem.tier in _chosen]
        for table in (CONV_PROBLEMS, POOL_PROBLEMS, PROB_PROBLEMS, NORM_PROBLEMS, SHUFFLE_PROBLEMS)
    )

# The layers of the benchmarks at their full size.
LAYERS = [
    Layer("lenet1", 500, 1, 28, 32, 5, 1, 0),
    Layer("lenet2", 500, 32, 12, 64, 5, 1, 0),
    Layer("alex1", 128, 3, 224, 64, 11, 4, 2),
    Layer("alex2", 128, 64, 27, 192, 5, 1, 2),
    Layer("alex3", 128, 192, 13, 384, 3, 1, 1),
    Layer("alex4", 128, 384, 13, 256, 3, 1, 1),
    Layer("alex5", 128, 256, 13, 256, 3, 1, 1),
    Layer("cb1", 128, 3, 128, 96, 11, 1, 0),
    Layer("cb2", 128, 64, 64, 128, 9, 1, 0),
    Layer("cb3", 128, 128, 32, 128, 9, 1, 0),
    Layer("cb4", 128, 128, 16, 128, 7, 1, 0),
    Layer("cb5", 128, 384, 13, 384, 3, 1, 0),
    Layer("vgg3_2", 64, 256, 56, 256, 3, 1, 1),
]

# More of them: AlexNet in two groups, OverFeat's fast net, VGG-A, branches of GoogLeNet, and nets that ran in c01b.
MORE_LAYERS = [
    Layer("alex2_two_groups", 128, 96, 27, 256, 5, 1, 2, 2),
    Layer("alex4_two_groups", 128, 384, 13, 384, 3, 1, 1, 2),
    Layer("alex5_two_groups", 128, 384, 13, 256, 3, 1, 1, 2),
    Layer("overfeat1", 128, 3, 231, 96, 11, 4, 0),
    Layer("overfeat2", 128, 96, 28, 256, 5, 1, 0),
    Layer("overfeat3", 128, 256, 12, 512, 3, 1, 1),
    Layer("overfeat4", 128, 512, 12, 1024, 3, 1, 1),
    Layer("overfeat5", 128, 1024, 12, 1024, 3, 1, 1),
    Layer("vgg_a1", 64, 3, 224, 64, 3, 1, 1),
    Layer("vgg_a2", 64, 64, 112, 128, 3, 1, 1),
    Layer("vgg_a3", 64, 128, 56, 256, 3, 1, 1),
    Layer("vgg_a5", 64, 256, 28, 512, 3, 1, 1),
    Layer("vgg_a6", 64, 512, 28, 512, 3, 1, 1),
    Layer("vgg_a7", 64, 512, 14, 512, 3, 1, 1),
    Layer("inception3a_1x1", 128, 192, 28, 64, 1, 1, 0),
    Layer("inception3a_reduce", 128, 192, 28, 16, 1, 1, 0),
    Layer("inception3a_3x3", 128, 96, 28, 128, 3, 1, 1),
    Layer("inception3a_5x5", 128, 16, 28, 32, 5, 1, 2),
    Layer("inception4e_5x5", 128, 32, 14, 128, 5, 1, 2),
    Layer("galaxy_6x6", 128, 3, 45, 32, 6, 1, 0),
    Layer("galaxy_5x5", 128, 32, 20, 64, 5, 1, 0),
    Layer("maxout_cifar", 128, 3, 32, 96, 8, 1, 4),
]


def tiles_allow(problem, tile):
    """Whether the tiles of a row of `tile_operands` do a problem."""
    stride = problem.stride if isinstance(problem.stride, tuple) else (problem.stride,) * 2
    rows, cols = (-(-size // apart) for size, apart in zip(problem.filters[1:3], stride))
    if tile.window == 0:
        return max(rows, cols) <= tile.stride
    small = tile.stride == 2
    return max(rows, cols) <= tile.window and (small or 2 * rows * cols >= tile.window**2)


def tier(problems, *tiers):
    """The problems of some tiers."""
    return [problem for problem in problems if problem.tier in tiers]
