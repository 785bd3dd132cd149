"""CrossMapNorm, local response normalisation across channels, and its gradient.

CPU code: c_code/cross_map_*.c, GPU host code: c_code/cross_map_*_gpu.c, kernels: cuda/response_norm.cu.
"""

import numbers

import theano.tensor as T
from convnet_ops import shapes
from convnet_ops.base import ConvnetOp, ExpressedOp, GpuOp, gpu_params, like
from convnet_ops.kernels import KernelFamily, Row
from theano.compile import optdb
from theano.gof import ParamsType, TopoOptimizer, local_optimizer
from theano.gof.opt import copy_stack_trace
from theano.gradient import DisconnectedType
from theano.scalar import bool as bool_t
from theano.scalar import float64, int64


class BaseNorm(ExpressedOp):
    """Base class of the normalisations: the window of channels, and the two numbers.

    Parameters
    ----------
    size_f : int
        Channels in a window.
    add_scale : float
        What the sum of squares is multiplied by, as it stands: it is not divided by size_f.
    pow_scale : float
        The exponent.
    blocked : bool
        False: the window of channel f begins at f - size_f // 2. True: it is the block of size_f channels that f lies
        in. Both are clipped to the channels there are.

    Raises
    ------
    TypeError
        An argument of another type.
    ValueError
        size_f below 1; add_scale or pow_scale not finite.
    """

    __props__ = ("size_f", "add_scale", "pow_scale", "blocked")
    params_type = ParamsType(size_f=int64, add_scale=float64, pow_scale=float64, blocked=bool_t)

    def __init__(self, size_f, add_scale, pow_scale, blocked):
        name = type(self).__name__
        self.size_f = shapes.integer(name, "size_f", size_f, 1)
        self.add_scale = _finite(name, "add_scale", add_scale)
        self.pow_scale = _finite(name, "pow_scale", pow_scale)
        self.blocked = _bool(name, "blocked", blocked)
        super().__init__()

    def window_sum(self, transposed):
        """The sum over this op's windows, as an op."""
        return CrossMapSum(self.size_f, self.blocked, transposed)

    def infer_shape(self, node, input_shapes):
        return [input_shapes[0]] * len(node.outputs)


class CrossMapNorm(BaseNorm):
    """Local response normalisation across channels (cuda-convnet's `convResponseNormCrossMap`, in pylearn2 too).

    Takes the arguments of BaseNorm: size_f, add_scale, pow_scale, blocked.

    Notes
    -----
    Called with (images):

    images : (C, H, W, N), float32 or float64
    returns : acts, denoms
        Both (C, H, W, N). denoms = 1 + add_scale * (sum of images ** 2 over the window), acts = images * denoms **
        -pow_scale. Both are differentiable, twice too.

    From section 3.3 of Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural
    Networks (2012), there with k = 2 and alpha = 1e-4; AlexNet in this form is CrossMapNorm(5, 1e-4, 0.75, False).

    On the GPU: float32 only (float64 stays on the CPU), and under 2**31 elements.

    Raises
    ------
    TypeError
        When the graph is built: wrong dtype or number of dimensions.
    ValueError
        When it runs: an array without elements or, on the GPU, with 2**31 or more.
    MemoryError
        No room for an output.
    """

    c_file = "cross_map_norm.c"
    c_function = "cross_map_norm"

    def convert_inputs(self, images):
        return self.as_arrays(images=images)

    def output_broadcasts(self, inputs):
        return [inputs[0].broadcastable] * 2

    def expression(self, images):
        squares = self.window_sum(False)(T.sqr(images))
        denoms = 1 + _number(self.add_scale, images) * squares
        return [images * denoms ** _number(-self.pow_scale, images), denoms]

    def L_op(self, inputs, outputs, output_gradients):
        (images,) = inputs
        acts, denoms = outputs
        acts_gradient, denoms_gradient = output_gradients
        parts = []
        if not isinstance(acts_gradient.type, DisconnectedType):
            undo = CrossMapNormUndo(**self._props_dict())
            parts.append(undo(images, acts, denoms, acts_gradient)[0])
        if not isinstance(denoms_gradient.type, DisconnectedType):
            scale = _number(2 * self.add_scale, images)
            parts.append(scale * images * self.window_sum(True)(denoms_gradient))
        return [like(images, sum(parts[1:], parts[0]))]


class CrossMapNormUndo(BaseNorm):
    """Gradient of CrossMapNorm's acts (cuda-convnet's `convResponseNormCrossMapUndo`, in pylearn2 too).

    Takes the arguments of BaseNorm: size_f, add_scale, pow_scale, blocked; and

    Parameters
    ----------
    inplace : bool
        Write out_acts into the memory of acts. Theano's inplace pass chooses it where acts is not needed any more.

    Notes
    -----
    Called with (images, acts, denoms, dout), each (C, H, W, N): CrossMapNorm's input and outputs, and the gradient of
    acts.

    returns : images_gradient, out_acts
        out_acts = -2 * add_scale * pow_scale * dout * acts / denoms, what cuda-convnet leaves in the array of acts;
        images_gradient = dout * denoms ** -pow_scale + images * (sum of out_acts over the windows that the channel lies
        in). Both are differentiable.

    Errors and limits are those of CrossMapNorm; an array of another shape than images is a ValueError too.
    """

    __props__ = BaseNorm.__props__ + ("inplace",)
    c_file = "cross_map_norm_undo.c"
    c_function = "cross_map_norm_undo"
    params_type = BaseNorm.params_type.extended(inplace=bool_t)

    def __init__(self, size_f, add_scale, pow_scale, blocked, inplace=False):
        self.inplace = _bool(type(self).__name__, "inplace", inplace)
        if self.inplace:
            self.destroy_map = {1: [1]}
        super().__init__(size_f, add_scale, pow_scale, blocked)

    def convert_inputs(self, images, acts, denoms, dout):
        return self.as_arrays(images=images, acts=acts, denoms=denoms, dout=dout)

    def output_broadcasts(self, inputs):
        return [inputs[0].broadcastable, inputs[1].broadcastable]

    def expression(self, images, acts, denoms, dout):
        out_acts = _number(-2 * self.add_scale * self.pow_scale, images) * dout * acts / denoms
        gradient = dout * denoms ** _number(-self.pow_scale, images) + images * self.window_sum(True)(out_acts)
        return [gradient, out_acts]

    L_op = BaseNorm.expression_L_op


class CrossMapSum(ConvnetOp):
    """Sum over CrossMapNorm's windows of channels: what its higher derivatives are made of.

    Parameters
    ----------
    size_f : int
        Channels in a window.
    blocked : bool
        As in CrossMapNorm.
    transposed : bool
        False: output f is the sum over the window of channel f. True: output c is the sum over the channels in whose
        windows c lies.

    Notes
    -----
    Called with (images): (C, H, W, N), float32 or float64. Returns an array of the same shape. Errors and limits are
    those of CrossMapNorm.
    """

    __props__ = ("size_f", "blocked", "transposed")
    c_file = "cross_map_sum.c"
    c_function = "cross_map_sum"
    params_type = ParamsType(size_f=int64, blocked=bool_t, transposed=bool_t)

    def __init__(self, size_f, blocked, transposed=False):
        name = type(self).__name__
        self.size_f = shapes.integer(name, "size_f", size_f, 1)
        self.blocked = _bool(name, "blocked", blocked)
        self.transposed = _bool(name, "transposed", transposed)
        super().__init__()

    def convert_inputs(self, images):
        return self.as_arrays(images=images)

    def output_broadcasts(self, inputs):
        return [inputs[0].broadcastable]

    def infer_shape(self, node, input_shapes):
        return [input_shapes[0]]

    def grad(self, inputs, output_gradients):
        return [like(inputs[0], CrossMapSum(self.size_f, self.blocked, not self.transposed)(output_gradients[0]))]

    def R_op(self, inputs, eval_points):
        return [None if eval_points[0] is None else self(eval_points[0])]


def _finite(op, argument, value):
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError("%s: %s is %r; it must be a number" % (op, argument, value))
    if not abs(value) < float("inf"):
        raise ValueError("%s: %s is %r; it must be finite" % (op, argument, value))
    return float(value)


def _bool(op, argument, value):
    if value not in (True, False):
        raise TypeError("%s: %s is %r; it must be True or False" % (op, argument, value))
    return bool(value)


def _number(value, like_variable):
    """A constant that keeps float32 float32."""
    return T.constant(value, dtype=like_variable.dtype)


def _families(name, struct, sized=()):
    """`sized` are rows for one size of window; their weights keep them before the others."""
    rows = list(sized) + [
        Row("n4", name + "<4>", threads=256, blocks_per_sm=4, tile_n=1024, vec_n=4, weight=20),
        Row("plain", name + "<1>", threads=256, tile_n=256, weight=10),
    ]
    return (KernelFamily(name, ["response_norm.cu"], struct, rows),)


def _norm_rows(size):
    # Warps of n1 own 24 positions. It is 5 % slower than n4, but its blocks are small: without the low weight it would
    # be taken for few positions, where n4 in chunks of channels is faster.
    name = "cross_map_norm_sized<%d, %d, %d>"
    return [
        Row("n4_%d" % size, name % (4, size, 4), 128, 6, tile_n=512, vec_n=4, weight=100, window=size),
        Row("n1_%d" % size, name % (1, size, 8), 256, 4, tile_n=192, weight=30, window=size),
    ]


def _undo_rows(size):
    # Undo has no chunks, so the many threads of n1 are faster on few positions: 95 % of the rate of a copy against 75 %
    # for 27 x 27 x 128.
    name = "cross_map_norm_undo_sized<%d, %d, %d>"
    return [
        Row("n4_%d" % size, name % (4, size, 1), 128, 6, tile_n=512, vec_n=4, weight=100, window=size),
        Row("n1_%d" % size, name % (1, size, 2), 256, 5, tile_n=256, weight=65, window=size),
    ]


class GpuCrossMapNorm(GpuOp, CrossMapNorm):
    """CrossMapNorm on the GPU; the graph rewrites make it."""

    c_file = "cross_map_norm_gpu.c"
    params_type = gpu_params(CrossMapNorm.params_type)
    kernel_families = _families("cross_map_norm", "NormArgs", _norm_rows(5) + _norm_rows(3))


class GpuCrossMapNormUndo(GpuOp, CrossMapNormUndo):
    """CrossMapNormUndo on the GPU; the graph rewrites make it."""

    c_file = "cross_map_norm_undo_gpu.c"
    params_type = gpu_params(CrossMapNormUndo.params_type)
    kernel_families = _families("cross_map_norm_undo", "UndoArgs", _undo_rows(5) + _undo_rows(3))


class GpuCrossMapSum(GpuOp, CrossMapSum):
    """CrossMapSum on the GPU; the graph rewrites make it."""

    c_file = "cross_map_sum_gpu.c"
    params_type = gpu_params(CrossMapSum.params_type)
    kernel_families = _families("cross_map_sum", "SumArgs")


@local_optimizer([CrossMapNormUndo, GpuCrossMapNormUndo], inplace=True)
def local_cross_map_norm_undo_inplace(node):
    """Let CrossMapNormUndo write into acts."""
    if type(node.op) not in (CrossMapNormUndo, GpuCrossMapNormUndo) or node.op.inplace:
        return False
    outputs = type(node.op)(**dict(node.op._props_dict(), inplace=True))(*node.inputs, return_list=True)
    copy_stack_trace(node.outputs, outputs)
    return outputs


# After the lifting to the GPU, where Theano's own inplace rewrites are.
optdb.register(
    "convnet_ops_inplace",
    TopoOptimizer(local_cross_map_norm_undo_inplace, failure_callback=TopoOptimizer.warn_inplace),
    70.0,
    "fast_run",
    "inplace",
)
