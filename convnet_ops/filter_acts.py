"""FilterActs: the convolution of cuda-convnet.

Its gradients are ImageActs (img_acts.py) and WeightActs (weight_acts.py). CPU code: c_code/filter_acts.c, GPU host
code: c_code/filter_acts_gpu.c, kernels: cuda/correlate.cuh and, the plain one, cuda/filter_acts.cu.
"""

from convnet_ops import shapes
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

    Takes the arguments of BaseActs: pad=0, partial_sum=None, stride=1, groups=1, precision='float32',
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
        No room for the output.

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
    """The tiles of cuda/correlate.cuh, each for the ways in which sizes and addresses may be divisible by 4.

    With `phases`, the version that scatters the phases of a strided gradient, for ImageActs.
    """
    # lanes_m, warps_m, warps_n, depth, stages, blocks_per_sm, weight
    tiles = [
        (4, 4, 2, 16, 3, 2, 103),
        (4, 2, 4, 16, 2, 2, 100),
        (4, 2, 2, 16, 3, 4, 100),
        (4, 1, 4, 16, 2, 4, 92),
        (2, 1, 2, 16, 2, 6, 80),
        (1, 1, 2, 8, 2, 6, 50),
    ]
    # vec_m, vec_n, trim: with single floats along the batch the images are few, and a block covers many pixels.
    variants = [(4, 4, 0), (4, 4, 1), (1, 4, 0), (1, 4, 1), (4, 1, 0), (1, 1, 0)]
    return [_correlate_row(phases, *(tile + variant)) for tile in tiles for variant in variants]


def _correlate_row(phases, lanes_m, warps_m, warps_n, depth, stages, blocks_per_sm, weight, vec_m, vec_n, trim):
    tile_m, tile_n = 8 * lanes_m * warps_m, 8 * (32 // lanes_m) * warps_n
    flags = ("true" if flag else "false" for flag in (phases, trim))
    constants = (lanes_m, warps_m, warps_n, depth, stages, vec_m, vec_n) + tuple(flags)
    return Row(
        name="%dx%dx%d_m%d_n%d%s" % (tile_m, tile_n, depth, vec_m, vec_n, "_trim" if trim else ""),
        template="correlate<%s>" % ", ".join(map(str, constants)),
        threads=32 * warps_m * warps_n,
        blocks_per_sm=blocks_per_sm,
        tile_m=tile_m,
        tile_n=tile_n,
        vec_m=vec_m,
        vec_n=vec_n,
        trim=trim,
        weight=weight,
    )


class GpuFilterActs(GpuOp, FilterActs):
    """FilterActs on the GPU; the graph rewrites make it."""

    c_file = "filter_acts_gpu.c"
    params_type = gpu_params(BaseActs.params_type)
    kernel_families = (
        KernelFamily("filter_acts", ["correlate.cuh"], "CorrelateArgs", correlate_rows(phases=False)),
        KernelFamily("filter_acts_plain", ["filter_acts.cu"], "FilterActsArgs", [Row("plain", "filter_acts", 256)]),
    )
