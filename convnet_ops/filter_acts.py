"""FilterActs: the convolution of cuda-convnet.

Its gradients are ImageActs (img_acts.py) and WeightActs (weight_acts.py). CPU code: c_code/filter_acts.c, GPU host
code: c_code/filter_acts_gpu.c, kernels: cuda/correlate.cuh with cuda/product.cuh, those of tiles.py and, the plain one,
cuda/filter_acts.cu.
"""

from convnet_ops import shapes, tiles
from convnet_ops.base import GpuOp, gpu_params, like
from convnet_ops.base_acts import BaseActs
from convnet_ops.kernels import KernelFamily, Row


class FilterActs(BaseActs):
    """Correlation of images with filters, in the c01b layout (cuda-convnet's `filterActs`).

    out[f, y, x, n] is the sum over c, r, s of
    images[c, y * stride + r - pad, x * stride + s - pad, n] * filters[c, r, s, f], with zeros outside the images.
    Filters are not flipped. The last window may hang over the bottom and right edge: the output has
    ceil((H + 2 * pad - R) / stride) + 1 rows, but no window lies wholly outside the padded image. With ignore_border it
    has Theano's, (H + 2 * pad - R) // stride + 1.

    Takes the arguments of BaseActs: pad=0, partial_sum=None, stride=1, groups=1, precision=None,
    ignore_border=False.

    Notes
    -----
    Called with (images, filters):

    images : (C, H, W, N), float32 or float64
        Channels, rows, columns, batch. Any layout in memory; on the host, on the GPU, shared or symbolic.
    filters : (C / groups, R, S, F), the dtype of images
        R x S taps; filter f belongs to group f // (F / groups).
    returns : (F, OH, OW, N)

    On the GPU: float32 only (float64 stays on the CPU), and under 2**31 elements in any array.

    Raises
    ------
    TypeError
        When the graph is built: wrong dtype or number of dimensions.
    ValueError
        When it runs: channel counts that disagree, groups that do not divide, a filter larger than the padded image,
        an array without elements or, on the GPU, with 2**31 or more.
    MemoryError
        No room for the output or, on the GPU, for the workspace.

    Examples
    --------
    >>> out = FilterActs(pad=2, partial_sum=1)(images, filters)
    """

    c_file = "filter_acts.c"
    c_function = "filter_acts"

    def convert_inputs(self, images, filters):
        return self.as_arrays(images=images, filters=filters)

    def output_broadcasts(self, inputs):
        images, filters = inputs
        return [(filters.broadcastable[3], False, False, images.broadcastable[3])]

    def infer_shape(self, node, input_shapes):
        images, filters = input_shapes
        rows, cols = (
            shapes.conv_output_size(images[i], filters[i], self.stride[i - 1], self.pads()[i - 1], self.ignore_border)
            for i in (1, 2)
        )
        return [(filters[3], rows, cols, images[3])]

    def grad(self, inputs, output_gradients):
        from convnet_ops.img_acts import ImageActs
        from convnet_ops.weight_acts import WeightActs

        images, filters = inputs
        (hid_grads,) = output_gradients
        images_gradient = self.like_this(ImageActs)(hid_grads, filters, images.shape[1:3])
        filters_gradient = self.like_this(WeightActs)(images, hid_grads, filters.shape[1:3])[0]
        return [like(images, images_gradient), like(filters, filters_gradient)]

    def R_op(self, inputs, eval_points):
        images, filters = inputs
        terms = []
        if eval_points[0] is not None:
            terms.append(self(eval_points[0], filters))
        if eval_points[1] is not None:
            terms.append(self(images, eval_points[1]))
        return [sum(terms[1:], terms[0]) if terms else None]


def correlate_rows(phases):
    """The tiles of cuda/correlate.cuh, for batches that 4 divides and for others.

    With `phases`, the version that scatters the phases of a strided gradient, for ImageActs.
    """
    # product, stages, blocks_per_sm, weight
    multiply_adds = [
        ("FmaByRows<4, 4, 2>", 2, 2, 48),
        ("FmaByRows<4, 2, 2>", 3, 4, 47),
        ("FmaByRows<4, 1, 4>", 2, 4, 44),
        ("FmaByRows<2, 1, 2>", 2, 6, 38),
    ]
    # warp_m, warp_n, warps_m, warps_n
    three_products = [
        ("TensorByRows<32, 64, 2, 2, 3, 2>", 3, 2, 67),
        ("TensorByRows<48, 64, 2, 2, 3, 2>", 3, 2, 66),
        ("TensorByRows<32, 32, 2, 2, 3, 2>", 3, 3, 60),
        ("TensorByRows<32, 32, 1, 4, 3, 2>", 3, 4, 58),
        ("TensorByRows<16, 64, 1, 4, 3, 2>", 2, 3, 45),
    ]
    one_product = [
        ("TensorByRows<64, 64, 2, 2, 1, 2>", 2, 2, 168),
        ("TensorByRows<64, 32, 1, 4, 1, 2>", 3, 3, 150),
        ("TensorByRows<48, 64, 2, 2, 1, 2>", 3, 2, 160),
        ("TensorByRows<32, 32, 1, 4, 1, 2>", 3, 4, 112),
        ("TensorByRows<16, 64, 1, 4, 1, 2>", 2, 4, 60),
    ]
    tiles = [("fma", 0, tile) for tile in multiply_adds]
    tiles += [("3xtf32", 80, tile) for tile in three_products] + [("tf32", 80, tile) for tile in one_product]
    rows = [
        _correlate_row(phases, kind, capability, vec_n, *tile) for kind, capability, tile in tiles for vec_n in (4, 1)
    ]
    return rows if phases else rows + _short_rows()


def _short_rows():
    # First layers have sums of 25 products, 5 x 5 taps of one channel, or of 27, 3 x 3 of three: two steps of 14 are
    # fuller than two of 16. All in one step is faster for lenet1, but slower for odd batches.
    in_two = [_correlate_row(False, "fma", 0, vec_n, "FmaByRows<4, 1, 4>", 3, 4, 44, depth=14) for vec_n in (4, 1)]
    return in_two + [_correlate_row(False, "fma", 0, 4, "FmaByRows<4, 1, 2>", 2, 6, 40, depth=28)]


def half_correlate_rows(phases):
    """The same for words of two halves each, in batches that 4 divides."""
    # product, stages, blocks_per_sm, weight: by vgg3_2's times on an H100 (benchmarks/results/halves_h100.log) without
    # those of the copies; it counts the two products of a word as one.
    tiles = [
        ("TensorByRows<64, 64, 2, 2, 2, 2>", 2, 2, 120),
        ("TensorByRows<64, 32, 1, 4, 2, 2>", 3, 3, 112),
        ("TensorByRows<32, 32, 1, 4, 2, 2>", 3, 4, 86),
    ]
    return [_correlate_row(phases, "f16", 80, 4, *tile) for tile in tiles]


def tile_size(product):
    """(tile_m, tile_n, threads) of a product of cuda/product.cuh, from its name and arguments."""
    name, numbers = product.rstrip(">").split("<")
    numbers = [int(number) for number in numbers.split(",")]
    if name.startswith("Tensor"):
        warp_m, warp_n, warps_m, warps_n = numbers[:4]
    elif name == "FmaByRows":
        lanes_m, warps_m, warps_n = numbers
        warp_m, warp_n = 8 * lanes_m, 8 * (32 // lanes_m)
    else:
        warps_m, warps_n = numbers
        warp_m, warp_n = 32, 64
    return warp_m * warps_m, warp_n * warps_n, 32 * warps_m * warps_n


def _correlate_row(phases, kind, capability, vec_n, product, stages, blocks_per_sm, weight, depth=16):
    tile_m, tile_n, threads = tile_size(product)
    size = (tile_m, tile_n) if depth == 16 else (tile_m, tile_n, depth)
    name = "%s_%s_n%d" % (kind, "x".join(map(str, size)), vec_n)
    if name == "fma_16x256_n1":
        weight = 30  # lenet1 with 129 images: 10 % slower than 32 x 256, which loads each image once
    return Row(
        name=name,
        template="correlate<%s, %d, %d, %d, %s>" % (product, depth, stages, vec_n, "true" if phases else "false"),
        threads=threads,
        blocks_per_sm=blocks_per_sm,
        tile_m=tile_m,
        tile_n=tile_n,
        vec_m=4,
        vec_n=vec_n,
        weight=weight,
        capability=capability,
        tf32=int(kind in ("tf32", "f16")),
        depth=depth,
    )


def correlation_families():
    """The direct kernels of FilterActs, which Winograd's products have too, and what tiles need before theirs."""
    return (
        KernelFamily("filter_acts", ["product.cuh", "correlate.cuh"], "CorrelateArgs", correlate_rows(phases=False)),
        tiles.OPERANDS,
        tiles.FFT_PRODUCTS,
    )


def partial_families():
    """What runs before and after the products: copies with padding, sums of partial results."""
    return (
        KernelFamily("pad_rows", ["partials.cu"], "PadRowsArgs", [Row("plain", "pad_rows", 256)]),
        KernelFamily("sum_partials", ["partials.cu"], "SumPartialsArgs", [Row("plain", "sum_partials", 256)]),
    )


def half_families(name, struct):
    """The copies of operands as halves, in words of two channels or of two images."""
    rows = [Row("n4", name + "<4>", 256, vec_n=4), Row("plain", name + "<1>", 256)]
    return (
        KernelFamily("largest_magnitudes", ["halves.cu"], "LargestArgs", [Row("plain", "largest_magnitudes", 256)]),
        KernelFamily(name, ["halves.cu"], struct, rows),
    )


def half_correlation_family(name, phases=False, files=("product.cuh", "correlate.cuh"), struct="HalfCorrelateArgs"):
    """A correlation of halves."""
    return KernelFamily(name, list(files), struct, half_correlate_rows(phases))


class GpuFilterActs(GpuOp, FilterActs):
    """FilterActs on the GPU; the graph rewrites make it."""

    c_file = "filter_acts_gpu.c"
    shared_c_files = ("correlation_gpu.c",)
    params_type = gpu_params(BaseActs.params_type)
    kernel_families = (
        correlation_families()
        + (
            tiles.OUTPUTS,
            KernelFamily("filter_acts_plain", ["filter_acts.cu"], "FilterActsArgs", [Row("plain", "filter_acts", 256)]),
            half_correlation_family("filter_acts_f16"),
        )
        + partial_families()
        + half_families("pair_channels", "PairChannelsArgs")
    )
