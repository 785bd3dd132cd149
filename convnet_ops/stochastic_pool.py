"""StochasticMaxPool and WeightedMaxPool, for training and for testing, and their derivatives.

CPU code: c_code/stochastic_max_pool*.c and weighted_max_pool.c, GPU host code: c_code/*_gpu.c of the same stems,
kernels: cuda/stochastic_pool.cu and philox.cuh.
"""

import theano
import theano.tensor as T
from convnet_ops import shapes
from convnet_ops.base import ExpressedOp, FirstOutputOp, GpuOp, gpu_params, like
from convnet_ops.pool import (
    BasePool,
    PoolGradOfShape,
    SumPool,
    SumPoolGrad,
    any_window_rows,
    gradient_rows,
    pool_family,
    window_rows,
)
from theano.gradient import DisconnectedType
from theano.scalar import int64


class StochasticMaxPool(FirstOutputOp, BasePool):
    """One value of each window, drawn by its size: pooling for training (pylearn2's StochasticMaxPool).

    Takes the arguments of BasePool: ds, stride, start=0, outputs=0; and

    Parameters
    ----------
    seed : int
        From 0 to 2**63 - 1. Ops of one seed draw the same numbers: give each layer a seed of its own.

    Notes
    -----
    Called with (images, draw=None):

    images : (C, H, W, N), float32 or float64
        Negative values count as 0.
    draw : int64 scalar
        The number of the draw. None: a new shared variable, which begins at 0 and which every call of a compiled
        function advances by 1. Its value is all the state there is.
    returns : pooled
        (C, OH, OW, N): value a of a window with probability a / (sum over the window). A window without positive
        values gives 0, one with a NaN NaN; infinite values share.

    With return_list=True: [pooled, positions]; positions (C, OH, OW, N), int32, number the drawn pixel in its window,
    row by row, the pixels outside the image counted; -1 where nothing was drawn. The gradient goes there: it reads the
    forward pass's own positions, so it follows that draw however the graph is merged or copied.

    From Zeiler and Fergus, Stochastic Pooling for Regularization of Deep Convolutional Neural Networks (2013). Random
    numbers: Philox 4x32-10, word e % 4 of the counter (e // 4, draw) under the key `seed` for element e of the output,
    its upper 24 bits; the same on CPU and GPU.

    Errors and limits are those of MaxPool. A window of 2**31 or more pixels is a ValueError too.

    Raises
    ------
    TypeError
        seed is not an int; draw is not an integer scalar.
    ValueError
        seed out of range.
    """

    __props__ = ("ds", "stride", "start", "outputs", "seed")
    c_file = "stochastic_max_pool.c"
    c_function = "stochastic_max_pool"
    params_type = BasePool.params_type.extended(seed=int64)

    def __init__(self, ds, stride, start=0, outputs=0, seed=1234):
        self.seed = shapes.integer("StochasticMaxPool", "seed", seed, 0)
        if self.seed >= 2**63:
            raise ValueError("StochasticMaxPool: seed is %d; it must be less than 2**63" % seed)
        super().__init__(ds, stride, start, outputs)

    def convert_inputs(self, images, draw=None):
        (images,) = self.as_arrays(images=images)
        if draw is None:
            draw = theano.shared(0, "draw of %s" % type(self).__name__)
            draw.default_update = draw + 1
        draw = T.as_tensor_variable(draw)
        if draw.ndim != 0 or not draw.dtype.startswith(("int", "uint")):
            raise TypeError("StochasticMaxPool: draw is %r; it must be an integer scalar" % draw)
        return [images, T.cast(draw, "int64")]

    def output_broadcasts(self, inputs):
        return super().output_broadcasts(inputs) * 2

    def output_dtypes(self, inputs):
        return [inputs[0].dtype, "int32"]

    def infer_shape(self, node, input_shapes):
        return [self.output_shape(input_shapes[0])] * 2

    def connection_pattern(self, node):
        return [[True, False], [False, False]]

    def L_op(self, inputs, outputs, output_gradients):
        images, _ = inputs
        gradient = self.like_this(StochasticMaxPoolGrad)(outputs[1], output_gradients[0], images.shape[1:3])
        return [like(images, gradient), DisconnectedType()()]

    def R_op(self, inputs, eval_points):
        if eval_points[0] is None:
            return [None, None]
        positions = self(*inputs, return_list=True)[1]
        return [self.like_this(StochasticMaxPoolRop)(eval_points[0], positions), None]


class StochasticMaxPoolGrad(PoolGradOfShape):
    """Gradient of StochasticMaxPool.

    Takes the arguments of BasePool: ds, stride, start=0, outputs=0.

    Notes
    -----
    Called with (positions, gz, output_shape):

    positions : (C, OH, OW, N), int32
        StochasticMaxPool's second output.
    gz : (C, OH, OW, N), float32 or float64
        The gradient of its first.
    output_shape : (H, W)
        The images' size: two ints, two scalars or a vector.
    returns : (C, H, W, N)
        For every pixel the sum of gz over the windows that drew it.

    Errors and limits are those of MaxPool; positions or gz of another shape than the output is a ValueError too.
    """

    c_file = "stochastic_max_pool_grad.c"
    c_function = "stochastic_max_pool_grad"

    def convert_inputs(self, positions, gz, output_shape):
        (gz,) = self.as_arrays(gz=gz)
        return [as_positions(self, positions), gz, self.as_size("output_shape", output_shape)]

    def output_dtypes(self, inputs):
        return [inputs[1].dtype]

    def connection_pattern(self, node):
        return [[False], [True], [False]]

    def grad(self, inputs, output_gradients):
        positions, gz, _ = inputs
        gradient = self.like_this(StochasticMaxPoolRop)(output_gradients[0], positions)
        return [DisconnectedType()(), like(gz, gradient), DisconnectedType()()]

    def R_op(self, inputs, eval_points):
        positions, _, output_shape = inputs
        return [None if eval_points[1] is None else self(positions, eval_points[1], output_shape)]


class StochasticMaxPoolRop(BasePool):
    """Derivative of StochasticMaxPool along a direction: its value where each window drew.

    Takes the arguments of BasePool: ds, stride, start=0, outputs=0.

    Notes
    -----
    Called with (eval_point, positions):

    eval_point : (C, H, W, N), float32 or float64
        The direction.
    positions : (C, OH, OW, N), int32
        StochasticMaxPool's second output.
    returns : (C, OH, OW, N)
        0 where nothing was drawn.

    Errors and limits are those of MaxPool; positions of another shape than the output is a ValueError too.
    """

    c_file = "stochastic_max_pool_grad.c"
    c_function = "stochastic_max_pool_rop"

    def convert_inputs(self, eval_point, positions):
        return self.as_arrays(eval_point=eval_point) + [as_positions(self, positions)]

    def infer_shape(self, node, input_shapes):
        return [self.output_shape(input_shapes[0])]

    def connection_pattern(self, node):
        return [[True], [False]]

    def grad(self, inputs, output_gradients):
        eval_point, positions = inputs
        gradient = self.like_this(StochasticMaxPoolGrad)
        gradient = gradient(positions, output_gradients[0], eval_point.shape[1:3])
        return [like(eval_point, gradient), DisconnectedType()()]

    def R_op(self, inputs, eval_points):
        return [None if eval_points[0] is None else self(eval_points[0], inputs[1])]


class WeightedMaxPool(FirstOutputOp, ExpressedOp, BasePool):
    """The expected value of StochasticMaxPool: pooling for testing (pylearn2's WeightedMaxPool).

    Takes the arguments of BasePool: ds, stride, start=0, outputs=0.

    Notes
    -----
    Called with (images):

    images : (C, H, W, N), float32 or float64
        Negative values count as 0.
    returns : weighted
        (C, OH, OW, N): (sum of squares) / (sum) over each window; 0 for a window without positive values.

    With return_list=True: [weighted, sums], sums (C, OH, OW, N) being the sum over each window, for the gradient.

    The gradient to a value a of a window with output w and sum s is (2 * a - w) / s, 0 for negative values and for
    windows without positive ones. Zeiler and Fergus 2013, as StochasticMaxPool. Errors and limits are those of MaxPool.
    """

    c_file = "weighted_max_pool.c"
    c_function = "weighted_max_pool"

    def convert_inputs(self, images):
        return self.as_arrays(images=images)

    def output_broadcasts(self, inputs):
        return super().output_broadcasts(inputs) * 2

    def infer_shape(self, node, input_shapes):
        return [self.output_shape(input_shapes[0])] * 2

    def expression(self, images):
        weights, total = T.maximum(images, 0), self.like_this(SumPool)
        sums = total(weights)
        return [_quotient(total(weights**2), sums), sums]

    def L_op(self, inputs, outputs, output_gradients):
        (images,) = inputs
        weighted, sums = outputs
        weighted_gradient, sums_gradient = output_gradients
        if not isinstance(sums_gradient.type, DisconnectedType):
            return self.expression_L_op(inputs, outputs, output_gradients)
        return [like(images, self.like_this(WeightedMaxPoolGrad)(images, weighted, sums, weighted_gradient))]


class WeightedMaxPoolGrad(ExpressedOp, BasePool):
    """Gradient of WeightedMaxPool.

    Takes the arguments of BasePool: ds, stride, start=0, outputs=0.

    Notes
    -----
    Called with (images, weighted, sums, gz):

    images : (C, H, W, N), float32 or float64
    weighted, sums : (C, OH, OW, N)
        WeightedMaxPool's outputs for these images.
    gz : (C, OH, OW, N)
        The gradient of weighted.
    returns : (C, H, W, N)
        For every pixel a the sum of gz * (2 * a - weighted) / sums over its windows, 0 where a < 0.

    Errors and limits are those of MaxPool; arrays of another shape than WeightedMaxPool's are a ValueError too.
    """

    c_file = "weighted_max_pool.c"
    c_function = "weighted_max_pool_grad"

    def convert_inputs(self, images, weighted, sums, gz):
        return self.as_arrays(images=images, weighted=weighted, sums=sums, gz=gz)

    def output_broadcasts(self, inputs):
        return [inputs[0].broadcastable]

    def infer_shape(self, node, input_shapes):
        return [input_shapes[0]]

    L_op = ExpressedOp.expression_L_op

    def expression(self, images, weighted, sums, gz):
        def spread(values):
            return self.like_this(SumPoolGrad)(values, images.shape[1:3])

        scaled = _quotient(gz, sums)
        return [T.switch(T.lt(images, 0), 0, 2 * images * spread(scaled) - spread(scaled * weighted))]


def _quotient(dividend, divisor):
    """Their quotient, and 0 with the derivative 0 where the divisor is 0."""
    nothing = T.eq(divisor, 0)
    return T.switch(nothing, 0, dividend / T.switch(nothing, 1, divisor))


def as_positions(op, positions):
    """`positions` as a 4-D int32 array; TypeError that names `op`."""
    variable = T.as_tensor_variable(positions)
    if variable.dtype != "int32" or variable.ndim != 4:
        raise TypeError(
            "%s: positions is %s with %d dimensions; it must be int32 with 4"
            % (type(op).__name__, variable.dtype, variable.ndim)
        )
    return variable


def stochastic_max_pool_c01b(c01b, pool_shape, pool_stride, start=0, seed=1234):
    """Stochastic pooling with pylearn2's argument names.

    Parameters
    ----------
    c01b : (C, H, W, N) variable
        Not negative.
    pool_shape : int or pair of int
        Size of a window: StochasticMaxPool's ds.
    pool_stride : int or pair of int
    start : int or pair of int
    seed : int

    Returns
    -------
    (C, OH, OW, N) variable
        StochasticMaxPool(pool_shape, pool_stride, start, seed=seed)(c01b), which says what is raised.
    """
    return StochasticMaxPool(pool_shape, pool_stride, start, seed=seed)(c01b)


def weighted_max_pool_c01b(c01b, pool_shape, pool_stride, start=0):
    """Probability-weighted pooling with pylearn2's argument names.

    Parameters
    ----------
    c01b : (C, H, W, N) variable
        Not negative.
    pool_shape : int or pair of int
        Size of a window: WeightedMaxPool's ds.
    pool_stride : int or pair of int
    start : int or pair of int

    Returns
    -------
    (C, OH, OW, N) variable
        WeightedMaxPool(pool_shape, pool_stride, start)(c01b), which says what is raised.
    """
    return WeightedMaxPool(pool_shape, pool_stride, start)(c01b)


def _family(name, rows, struct):
    return pool_family(name, rows, struct, ["philox.cuh", "stochastic_pool.cu"])


class GpuStochasticMaxPool(GpuOp, StochasticMaxPool):
    """StochasticMaxPool on the GPU; the graph rewrites make it."""

    c_file = "stochastic_max_pool_gpu.c"
    params_type = gpu_params(StochasticMaxPool.params_type)
    # Single images take much arithmetic for what they load: 48 registers leave room for 5 blocks.
    _rows = window_rows("stochastic_max_pool", scalars=4)
    _rows = [row._replace(blocks_per_sm=5) if row.vec_n == 1 else row for row in _rows]
    kernel_families = _family("stochastic_max_pool", _rows, "StochasticMaxPoolArgs")


class GpuStochasticMaxPoolGrad(GpuOp, StochasticMaxPoolGrad):
    """StochasticMaxPoolGrad on the GPU; the graph rewrites make it."""

    c_file = "stochastic_max_pool_grad_gpu.c"
    params_type = gpu_params(StochasticMaxPoolGrad.params_type)
    kernel_families = _family(
        "stochastic_max_pool_grad", gradient_rows("stochastic_max_pool_grad"), "StochasticMaxPoolGradArgs"
    )


class GpuStochasticMaxPoolRop(GpuOp, StochasticMaxPoolRop):
    """StochasticMaxPoolRop on the GPU; the graph rewrites make it."""

    c_file = "stochastic_max_pool_rop_gpu.c"
    params_type = gpu_params(StochasticMaxPoolRop.params_type)
    kernel_families = _family(
        "stochastic_max_pool_rop", any_window_rows("stochastic_max_pool_rop", "<%d>"), "StochasticMaxPoolRopArgs"
    )


class GpuWeightedMaxPool(GpuOp, WeightedMaxPool):
    """WeightedMaxPool on the GPU; the graph rewrites make it."""

    c_file = "weighted_max_pool_gpu.c"
    params_type = gpu_params(WeightedMaxPool.params_type)
    kernel_families = _family("weighted_max_pool", window_rows("weighted_max_pool"), "WeightedMaxPoolArgs")


class GpuWeightedMaxPoolGrad(GpuOp, WeightedMaxPoolGrad):
    """WeightedMaxPoolGrad on the GPU; the graph rewrites make it."""

    c_file = "weighted_max_pool_grad_gpu.c"
    params_type = gpu_params(WeightedMaxPoolGrad.params_type)
    kernel_families = _family(
        "weighted_max_pool_grad", gradient_rows("weighted_max_pool_grad"), "WeightedMaxPoolGradArgs"
    )
