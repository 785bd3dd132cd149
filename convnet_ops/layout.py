"""The two layouts, bc01 (Theano's) and c01b (cuda-convnet's), and contiguity.

ShuffleDims is the copy from one to the other; opt/copies.py puts it into graphs. CPU code: c_code/shuffle_dims.c, GPU
host code: c_code/shuffle_dims_gpu.c, kernels: cuda/layout.cu.
"""

import theano.tensor as T
from convnet_ops.base import ConvnetOp, GpuOp, gpu_params, like
from convnet_ops.kernels import KernelFamily, Row
from theano.gof import ParamsType
from theano.gpuarray.basic_ops import GpuContiguous
from theano.gpuarray.type import GpuArrayType
from theano.scalar import bool as bool_t
from theano.tensor.extra_ops import CpuContiguous

# The order that a dimshuffle to each layout takes, from the other one.
ORDERS = {"c01b": (1, 2, 3, 0), "bc01": (3, 0, 1, 2)}


def bc01_to_c01b(x):
    """(batch, channel, row, column) to (channel, row, column, batch); filters likewise.

    Parameters
    ----------
    x : 4-D variable
        On the host or on the GPU.

    Returns
    -------
    4-D variable
        `x` with its axes in the new order. Like every expression in Theano it is a host variable, which moves to the
        GPU when the function is compiled.
    """
    return x.dimshuffle(1, 2, 3, 0)


def c01b_to_bc01(x):
    """(channel, row, column, batch) to (batch, channel, row, column); the inverse of `bc01_to_c01b`."""
    return x.dimshuffle(3, 0, 1, 2)


class Contiguous(CpuContiguous):
    """Theano's CpuContiguous, with the shape and the derivative along a direction that it lacks."""

    # An op without props is compiled anew in every process.
    __props__ = ("order",)
    order = "C"

    # Without it who asks for the shape needs the array; in a graph that moves to the GPU it comes back for that.
    def infer_shape(self, node, input_shapes):
        return input_shapes

    def R_op(self, inputs, eval_points):
        return [None if eval_points[0] is None else self(eval_points[0])]


class ContiguousOnGpu(GpuContiguous):
    """Theano's GpuContiguous, compiled once for all processes."""

    __props__ = ("order",)
    order = "C"

    def infer_shape(self, node, input_shapes):
        return input_shapes

    def R_op(self, inputs, eval_points):
        return [None if eval_points[0] is None else self(eval_points[0])]


def gpu_contiguous(x):
    """`x`, C-contiguous in memory: itself if it is so already, else a copy.

    The ops of this library take any layout; this is for code that was written when they did not.

    Parameters
    ----------
    x : variable or array
        On the GPU, or on the host, where the call moves to the GPU with the ops around it.

    Returns
    -------
    variable
        Of the type of `x`.
    """
    x = x if isinstance(getattr(x, "type", None), GpuArrayType) else T.as_tensor_variable(x)
    return ContiguousOnGpu()(x) if isinstance(x.type, GpuArrayType) else Contiguous()(x)


class ShuffleDims(ConvnetOp):
    """The copy from one layout to the other: a dimshuffle whose result is contiguous in memory.

    Parameters
    ----------
    to : {'c01b', 'bc01'}
        'c01b': x.dimshuffle(1, 2, 3, 0); 'bc01': x.dimshuffle(3, 0, 1, 2).
    flip : bool
        True reverses rows and columns too, as between the filters of a convolution and those of a correlation:
        x.dimshuffle(1, 2, 3, 0)[:, ::-1, ::-1, :].

    Notes
    -----
    Called with (x):

    x : 4-D, float32 or float64
        Images or filters; any layout in memory, any size, 0 too.
    returns : 4-D
        The same values.

    `bc01_to_c01b` and `c01b_to_bc01` cost nothing until somebody reads their result; where somebody does, the graph
    rewrites put this op. On the GPU: float32 only (float64 stays on the CPU), and under 2**31 elements.

    Raises
    ------
    TypeError
        When the graph is built: wrong dtype or number of dimensions.
    ValueError
        When it runs on the GPU: an array of 2**31 elements or more.
    MemoryError
        No room for the output.
    """

    __props__ = ("to", "flip")
    c_file = "shuffle_dims.c"
    c_function = "shuffle_dims"
    params_type = ParamsType(to_c01b=bool_t, flip=bool_t)

    def __init__(self, to, flip=False):
        name = type(self).__name__
        if to not in ORDERS:
            raise ValueError("%s: to is %r; it must be 'c01b' or 'bc01'" % (name, to))
        if not isinstance(flip, bool):
            raise TypeError("%s: flip is %r; it must be True or False" % (name, flip))
        self.to, self.flip = to, flip
        self.to_c01b = to == "c01b"
        super().__init__()

    def convert_inputs(self, x):
        return self.as_arrays(x=x)

    def output_broadcasts(self, inputs):
        return [tuple(inputs[0].broadcastable[axis] for axis in ORDERS[self.to])]

    def infer_shape(self, node, input_shapes):
        return [tuple(input_shapes[0][axis] for axis in ORDERS[self.to])]

    def grad(self, inputs, output_gradients):
        back = ShuffleDims("bc01" if self.to == "c01b" else "c01b", self.flip)
        return [like(inputs[0], back(output_gradients[0]))]

    def R_op(self, inputs, eval_points):
        return [None if eval_points[0] is None else self(eval_points[0])]


def _shuffle_rows():
    # rows x columns of the source, and how many floats are stored along the rows, loaded along the columns.
    rows = [
        Row(
            name="%dx%d_m%d_n%d" % (tile, tile, vec_m, vec_n),
            template="shuffle_tiles<%d, %d, %d>" % (tile, vec_m, vec_n),
            threads=tile**2 // 16,
            blocks_per_sm=blocks_per_sm,
            tile_m=tile,
            tile_n=tile,
            vec_m=vec_m,
            vec_n=vec_n,
            weight=weight,
        )
        for tile, blocks_per_sm, weight in ((64, 4, 100), (32, 16, 95))
        for vec_m in (4, 1)
        for vec_n in (4, 1)
    ]
    rows += [
        Row(name, "shuffle_thin", threads=256, blocks_per_sm=4, tile_m=tile_m, tile_n=tile_n, weight=60)
        for name, tile_m, tile_n in (("thin_rows", 8, 512), ("thin_cols", 512, 8))
    ]
    return rows + [Row("plain", "shuffle_plain", threads=256)]


class GpuShuffleDims(GpuOp, ShuffleDims):
    """ShuffleDims on the GPU; the graph rewrites make it."""

    c_file = "shuffle_dims_gpu.c"
    params_type = gpu_params(ShuffleDims.params_type)
    kernel_families = (KernelFamily("shuffle_dims", ["layout.cu"], "ShuffleArgs", _shuffle_rows()),)
