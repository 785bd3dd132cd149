"""ImageActs: the gradient of FilterActs' images, and the transposed convolution.

CPU code: c_code/img_acts.c, GPU host code: c_code/img_acts_gpu.c, kernels: cuda/img_acts.cu, cuda/correlate.cuh and, by
columns, cuda/columns.cu.
"""

import theano.tensor as T
from convnet_ops import shapes, tiles
from convnet_ops.base import GpuOp, gpu_params, like
from convnet_ops.base_acts import BaseActs
from convnet_ops.filter_acts import (
    FilterActs,
    correlate_rows,
    correlation_families,
    half_correlation_family,
    half_families,
    partial_families,
    tile_size,
)
from convnet_ops.kernels import KernelFamily, Row
from theano.gradient import DisconnectedType


class ImageActs(BaseActs):
    """Gradient of FilterActs with respect to its images, in the c01b layout (cuda-convnet's `imgActs`).

    out[c, h, w, n] = sum over all f, y, x, r, s with h = y * stride + r - pad and w = x * stride + s - pad of
    hid_acts[f, y, x, n] * filters[c, r, s, f]. Used forward, it is a transposed convolution.

    Takes the arguments of BaseActs: pad=0, partial_sum=None, stride=1, groups=1, precision=None,
    ignore_border=False.

    Notes
    -----
    Called with (hid_acts, filters, output_shape=None):

    hid_acts : (F, OH, OW, N), float32 or float64
        Gradients of FilterActs' output.
    filters : (C / groups, R, S, F), the dtype of hid_acts
    output_shape : (H, W)
        Two ints, two scalars or a vector. With stride 1 it follows from the other sizes and may be left out.
    returns : (C, H, W, N)

    On the GPU: float32 only (float64 stays on the CPU), and under 2**31 elements in any array.

    Raises
    ------
    TypeError
        When the graph is built: wrong dtype or number of dimensions, output_shape not two integers.
    ValueError
        When the graph is built: no output_shape though the stride exceeds 1. When it runs: hid_acts that FilterActs
        would not give for images of output_shape, channel counts that disagree, groups that do not divide, an array
        without elements or, on the GPU, with 2**31 or more.
    MemoryError
        No room for the output or the workspace, which holds the filters rearranged: about their size, and several times
        that where channels are few; for tiles more; by columns, in small batches, up to 64 MB.
    """

    c_file = "img_acts.c"
    c_function = "img_acts"

    def convert_inputs(self, hid_acts, filters, output_shape=None):
        hid_acts, filters = self.as_arrays(hid_acts=hid_acts, filters=filters)
        if output_shape is None:
            if self.stride != (1, 1):
                raise ValueError(
                    "ImageActs: output_shape is None; with stride %r it must be given as (rows, columns)"
                    % (self.stride,)
                )
            output_shape = T.stack(
                [
                    hid_acts.shape[i]
                    - 1
                    + filters.shape[i]
                    - shapes.total_pad(self.pads()[i - 1], filters.shape[i])
                    for i in (1, 2)
                ]
            )
        return [hid_acts, filters, self.as_size("output_shape", output_shape)]

    def output_broadcasts(self, inputs):
        hid_acts, filters = inputs[:2]
        channel = filters.broadcastable[0] and self.groups == 1
        return [(channel, False, False, hid_acts.broadcastable[3])]

    def infer_shape(self, node, input_shapes):
        hid_acts, filters, _ = input_shapes
        output_shape = node.inputs[2]
        return [(filters[0] * self.groups, output_shape[0], output_shape[1], hid_acts[3])]

    def connection_pattern(self, node):
        return [[True], [True], [False]]

    def grad(self, inputs, output_gradients):
        from convnet_ops.weight_acts import WeightActs

        hid_acts, filters, _ = inputs
        (images,) = output_gradients
        hid_gradient = self.like_this(FilterActs)(images, filters)
        filters_gradient = self.like_this(WeightActs)(images, hid_acts, filters.shape[1:3])[0]
        return [like(hid_acts, hid_gradient), like(filters, filters_gradient), DisconnectedType()()]

    def R_op(self, inputs, eval_points):
        hid_acts, filters, output_shape = inputs
        terms = []
        if eval_points[0] is not None:
            terms.append(self(eval_points[0], filters, output_shape))
        if eval_points[1] is not None:
            terms.append(self(hid_acts, eval_points[1], output_shape))
        return [sum(terms[1:], terms[0]) if terms else None]


def _columns_family():
    """The products of the gradient by columns."""
    # parts, warp_m, stages, blocks_per_sm, weight
    products = [
        ("3xtf32", 3, 32, 3, 3, 59),
        ("3xtf32", 3, 16, 3, 4, 53),
        ("tf32", 1, 32, 3, 3, 110),
        ("tf32", 1, 16, 3, 4, 80),
    ]
    rows = []
    for kind, parts, warp_m, stages, blocks_per_sm, weight in products:
        product = "TensorMixed<%d, 32, 2, 2, %d>" % (warp_m, parts)
        tile_m, tile_n, threads = tile_size(product)
        for vec_m, vec_n in ((4, 4), (4, 1), (1, 1)):
            rows.append(
                Row(
                    name="%s_%dx%d_m%d_n%d" % (kind, tile_m, tile_n, vec_m, vec_n),
                    template="tap_columns<%s, %d, %d, %d>" % (product, stages, vec_m, vec_n),
                    threads=threads,
                    blocks_per_sm=blocks_per_sm,
                    tile_m=tile_m,
                    tile_n=tile_n,
                    vec_m=vec_m,
                    vec_n=vec_n,
                    weight=weight,
                    capability=80,
                    tf32=int(parts == 1),
                )
            )
    return KernelFamily("img_acts_columns", ["product.cuh", "columns.cu"], "TapColumnsArgs", rows)


class GpuImageActs(GpuOp, ImageActs):
    """ImageActs on the GPU; the graph rewrites make it."""

    c_file = "img_acts_gpu.c"
    shared_c_files = ("correlation_gpu.c",)
    params_type = gpu_params(BaseActs.params_type)
    kernel_families = (
        KernelFamily("img_acts", ["product.cuh", "correlate.cuh"], "CorrelateArgs", correlate_rows(phases=True)),
        KernelFamily("img_acts_plain", ["img_acts.cu"], "ImgActsArgs", [Row("plain", "img_acts", 256)]),
        KernelFamily("arrange_filters", ["img_acts.cu"], "ArrangeFiltersArgs", [Row("plain", "arrange_filters", 256)]),
        KernelFamily("add_taps", ["img_acts.cu"], "AddTapsArgs", [Row("plain", "add_taps", 256)]),
        tiles.OUTPUTS,
    )
    kernel_families += correlation_families() + partial_families() + (_columns_family(),)
    kernel_families += (
        half_correlation_family("img_acts_f16", phases=True),
        half_correlation_family("filter_acts_f16"),
    )
    kernel_families += half_families("pair_channels", "PairChannelsArgs")
