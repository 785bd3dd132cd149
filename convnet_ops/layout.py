"""The two layouts, bc01 (Theano's) and c01b (cuda-convnet's), and contiguity."""

import theano.tensor as T
from theano.gpuarray.basic_ops import GpuContiguous
from theano.gpuarray.type import GpuArrayType
from theano.tensor.extra_ops import CpuContiguous


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
    """Theano's CpuContiguous, with the derivative along a direction that it lacks."""

    # An op without props is compiled anew in every process.
    __props__ = ("order",)
    order = "C"

    def R_op(self, inputs, eval_points):
        return [None if eval_points[0] is None else self(eval_points[0])]


class ContiguousOnGpu(GpuContiguous):
    """Theano's GpuContiguous, compiled once for all processes."""

    __props__ = ("order",)
    order = "C"

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
