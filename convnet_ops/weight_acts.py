"""WeightActs: the gradient of FilterActs' filters.

CPU code: c_code/weight_acts.c, GPU host code: c_code/weight_acts_gpu.c, kernels: cuda/weight_acts.cu and
those of tiles.py.
"""

from convnet_ops import tiles
from convnet_ops.base import GpuOp, gpu_params, like
from convnet_ops.base_acts import BaseActs
from convnet_ops.filter_acts import FilterActs, half_families, partial_families, tile_size
from convnet_ops.kernels import KernelFamily, Row
from theano.compile.ops import Shape_i
from theano.gradient import DisconnectedType


class WeightActs(BaseActs):
    """Gradient of FilterActs with respect to its filters, in the c01b layout (cuda-convnet's `weightActs`).

    out[c, r, s, f] is the sum over y, x, n of
    images[c, y * stride + r - pad, x * stride + s - pad, n] * hid_grads[f, y, x, n].

    Takes the arguments of BaseActs: pad=0, partial_sum=None, stride=1, groups=1, precision=None,
    ignore_border=False.

    Notes
    -----
    Called with (images, hid_grads, output_shape):

    images : (C, H, W, N), float32 or float64
    hid_grads : (F, OH, OW, N), the dtype of images
        Gradients of FilterActs' output.
    output_shape : (R, S)
        Two ints, two scalars or a vector: the taps of the filters.
    returns : list of (C / groups, R, S, F) and (partials, C / groups, R, S, F)
        The gradient, and the partial sums that were added, in their order, to make it. No gradient flows through the
        partial sums. By tiles, on the GPU, there is one: the gradient itself.

    On the GPU: float32 only (float64 stays on the CPU), and under 2**31 elements in any array.

    Raises
    ------
    TypeError
        When the graph is built: wrong dtype or number of dimensions, output_shape not two integers.
    ValueError
        When it runs: partial_sum does not divide the area of the output, hid_grads that FilterActs would not give for
        these images, counts that disagree, groups that do not divide, an array without elements or, on the GPU, with
        2**31 or more.
    MemoryError
        No room for the outputs or, on the GPU, for the workspace.
    """

    c_file = "weight_acts.c"
    c_function = "weight_acts"

    def convert_inputs(self, images, hid_grads, output_shape):
        return self.as_arrays(images=images, hid_grads=hid_grads) + [self.as_size("output_shape", output_shape)]

    def output_broadcasts(self, inputs):
        images, hid_grads = inputs[:2]
        gradient = (images.broadcastable[0], False, False, hid_grads.broadcastable[0])
        return [gradient, (False,) + gradient]

    def infer_shape(self, node, input_shapes):
        images, hid_grads, _ = input_shapes
        output_shape = node.inputs[2]
        gradient = (images[0] // self.groups, output_shape[0], output_shape[1], hid_grads[0])
        # How many partial sums there are is decided at run time, by the device too.
        return [gradient, (Shape_i(0)(node.outputs[1]),) + gradient]

    def connection_pattern(self, node):
        return [[True, False], [True, False], [False, False]]

    def grad(self, inputs, output_gradients):
        from convnet_ops.img_acts import ImageActs

        images, hid_grads, _ = inputs
        filters = output_gradients[0]
        if isinstance(filters.type, DisconnectedType):
            return [DisconnectedType()() for _ in inputs]
        images_gradient = self.like_this(ImageActs)(hid_grads, filters, images.shape[1:3])
        hid_gradient = self.like_this(FilterActs)(images, filters)
        return [like(images, images_gradient), like(hid_grads, hid_gradient), DisconnectedType()()]

    def R_op(self, inputs, eval_points):
        images, hid_grads, output_shape = inputs
        terms = []
        if eval_points[0] is not None:
            terms.append(self(eval_points[0], hid_grads, output_shape)[0])
        if eval_points[1] is not None:
            terms.append(self(images, eval_points[1], output_shape)[0])
        return [sum(terms[1:], terms[0]) if terms else None, None]


def _rows():
    # product, stages, blocks_per_sm, weight
    tiles = [
        ("fma", "FmaByColumns<4, 2>", 2, 2, 39),
        ("fma", "FmaByColumns<2, 1>", 2, 6, 40),
        ("fma", "FmaByColumns<1, 1>", 2, 8, 36),
        ("3xtf32", "TensorByColumns<64, 64, 2, 2, 3>", 2, 2, 68),
        ("3xtf32", "TensorByColumns<64, 32, 2, 2, 3>", 3, 2, 64),
        ("3xtf32", "TensorByColumns<32, 48, 2, 2, 3>", 3, 3, 61),
        ("3xtf32", "TensorByColumns<32, 32, 2, 2, 3>", 3, 3, 59),
        ("tf32", "TensorByColumns<64, 64, 2, 2, 1>", 2, 2, 145),
        ("tf32", "TensorByColumns<64, 32, 2, 2, 1>", 3, 3, 124),
        ("tf32", "TensorByColumns<32, 48, 2, 2, 1>", 3, 4, 116),
        ("tf32", "TensorByColumns<32, 32, 2, 2, 1>", 3, 4, 112),
    ]
    rows = [_row(vec, *tile) for tile in tiles for vec in (4, 1)]
    # Three blocks of 128 x 96 leave no registers for loads of single floats. Tall tiles read rows of hid_grads seldom,
    # which counts where these lie megabytes apart (docs/performance.md). The smallest tiles are loaded by two warps
    # where loads are of single floats, which would keep one busy for longer than the products.
    rows += [
        _row(4, "3xtf32", "TensorByColumns<32, 32, 1, 1, 3>", 4, 12, 45),
        _row(1, "3xtf32", "TensorByColumns<32, 16, 1, 2, 3>", 4, 8, 45),
        _row(4, "tf32", "TensorByColumns<32, 32, 1, 1, 1>", 4, 13, 55),
        _row(1, "tf32", "TensorByColumns<32, 16, 1, 2, 1>", 4, 8, 55),
        _row(4, "tf32", "TensorByColumns<64, 48, 2, 2, 1>", 3, 3, 155),
        _row(1, "tf32", "TensorByColumns<64, 48, 2, 2, 1>", 3, 2, 142),
        _row(4, "tf32", "TensorByColumns<48, 64, 2, 2, 1>", 3, 3, 157),
    ]
    return rows + [Row("plain", "weight_acts_plain", 256)]


def _half_rows():
    # As in filter_acts.half_correlate_rows.
    tiles = [
        ("TensorByColumns<64, 64, 2, 2, 2>", 2, 2, 130),
        ("TensorByColumns<64, 32, 2, 2, 2>", 3, 3, 112),
        ("TensorByColumns<32, 32, 2, 2, 2>", 3, 4, 100),
    ]
    return [_row(4, "f16", *tile) for tile in tiles]


def _row(vec, kind, product, stages, blocks_per_sm, weight):
    tile_m, tile_n, threads = tile_size(product)
    return Row(
        name="%s_%dx%d_n%d" % (kind, tile_m, tile_n, vec),
        template="weight_acts<%s, 16, %d, %d>" % (product, stages, vec),
        threads=threads,
        blocks_per_sm=blocks_per_sm,
        tile_m=tile_m,
        tile_n=tile_n,
        vec_n=vec,
        weight=weight,
        capability=0 if kind == "fma" else 80,
        tf32=int(kind in ("tf32", "f16")),
    )


class GpuWeightActs(GpuOp, WeightActs):
    """WeightActs on the GPU; the graph rewrites make it."""

    c_file = "weight_acts_gpu.c"
    params_type = gpu_params(BaseActs.params_type)
    kernel_families = (
        KernelFamily("weight_acts", ["product.cuh", "weight_acts.cu"], "WeightActsArgs", _rows()),
        tiles.GRADIENT_OPERANDS,
        tiles.TAPS,
        tiles.FFT_GRADIENT_PRODUCTS,
        KernelFamily("weight_acts_f16", ["product.cuh", "weight_acts.cu"], "HalfWeightActsArgs", _half_rows()),
    )
    kernel_families += partial_families() + half_families("pair_images", "PairImagesArgs")
