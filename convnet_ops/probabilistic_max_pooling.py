"""ProbMaxPool, probabilistic max-pooling, and its gradient.

CPU code: c_code/prob_max_pool.c, GPU host code: c_code/prob_max_pool*_gpu.c, kernels:
cuda/probabilistic_max_pooling.cu.
"""

import theano.tensor as T
from convnet_ops.base import ExpressedOp, GpuOp, gpu_params, like
from convnet_ops.pool import BasePool, SumPool, SumPoolGrad, pool_family, window_rows
from theano.gradient import DisconnectedType


class BaseProbPool(ExpressedOp, BasePool):
    """Base class of the probabilistic pooling ops: the blocks that the images are cut into.

    Parameters
    ----------
    ds : int or pair of int
        Size of a block, (rows, columns); blocks do not overlap.
    start : int or pair of int
        Where the first block begins; a negative one begins outside the image.
    outputs : int or pair of int
        Blocks; 0 stands for ceil((H - start) / ds), so that they cover the image. Blocks are clipped to the image.

    Raises
    ------
    TypeError
        An argument that is neither an int nor a pair of ints.
    ValueError
        ds below 1, outputs below 0, start <= -ds (the first block would be empty).
    """

    __props__ = ("ds", "start", "outputs")
    c_file = "prob_max_pool.c"

    def __init__(self, ds, start=0, outputs=0):
        super().__init__(ds, ds, start, outputs)

    def of_blocks(self, op_class):
        """The pooling op of another kind over these blocks."""
        return op_class(self.ds, self.ds, self.start, self.outputs)


class ProbMaxPool(BaseProbPool):
    """Probabilistic max-pooling (pylearn2's ProbMaxPool).

    Takes the arguments of BaseProbPool: ds, start=0, outputs=0.

    Notes
    -----
    Called with (z, top_down):

    z : (C, H, W, N), float32 or float64
        What speaks for each pixel.
    top_down : (C, OH, OW, N)
        What speaks for each block.
    returns : p, h
        With denom = exp(-top_down) + (sum of exp(z) over the block): h = exp(z) / denom, (C, H, W, N), the probability
        that a pixel is on, and p = 1 - exp(-top_down) / denom, (C, OH, OW, N), that any of the block is. At most one
        pixel of a block is on. Pixels in no block (before a start > 0, or beyond `outputs`) have h = 0.

    The greatest exponent of a block is taken off all of them first, so nothing overflows; infinite ones share. A NaN
    makes its block NaN. Both outputs are differentiable, alone and together, twice too.

    From section 3.6 of Lee, Grosse, Ranganath and Ng, Convolutional Deep Belief Networks for Scalable Unsupervised
    Learning of Hierarchical Representations (2009).

    On the GPU: float32 only (float64 stays on the CPU), and under 2**31 elements in any array.

    Raises
    ------
    TypeError
        When the graph is built: wrong dtype or number of dimensions.
    ValueError
        When it runs: top_down of another shape than p, ds larger than the image, start so far on that no block remains,
        outputs so large that a block is empty, an array without elements or, on the GPU, with 2**31 or more.
    MemoryError
        No room for an output.
    """

    c_function = "prob_max_pool"

    def convert_inputs(self, z, top_down):
        return self.as_arrays(z=z, top_down=top_down)

    def output_broadcasts(self, inputs):
        return [inputs[1].broadcastable, inputs[0].broadcastable]

    def infer_shape(self, node, input_shapes):
        return [self.output_shape(input_shapes[0]), input_shapes[0]]

    def L_op(self, inputs, outputs, output_gradients):
        known = [
            output.zeros_like() if isinstance(gradient.type, DisconnectedType) else gradient
            for output, gradient in zip(outputs, output_gradients)
        ]
        gradients = self.like_this(ProbMaxPoolGrad)(*(list(inputs) + known))
        return [like(variable, gradient) for variable, gradient in zip(inputs, gradients)]

    def R_op(self, inputs, eval_points):
        if eval_points[0] is None and eval_points[1] is None:
            return [None, None]
        along_z, along_top_down = (
            variable.zeros_like() if point is None else point for variable, point in zip(inputs, eval_points)
        )
        # The derivatives of (h, p) to (z, top_down) are a symmetric matrix.
        h, p = self.like_this(ProbMaxPoolGrad)(*(list(inputs) + [along_top_down, along_z]))
        return [p, h]


class ProbMaxPoolGrad(BaseProbPool):
    """Gradient of ProbMaxPool.

    Takes the arguments of BaseProbPool: ds, start=0, outputs=0.

    Notes
    -----
    Called with (z, top_down, gp, gh):

    z : (C, H, W, N), float32 or float64
    top_down : (C, OH, OW, N)
    gp, gh
        The gradients of ProbMaxPool's p and h, of their shapes.
    returns : z_gradient, top_down_gradient
        With q = 1 - p and s = (sum of h * gh over the block): h * (gh + q * gp - s), (C, H, W, N), and
        q * (p * gp + s), (C, OH, OW, N).

    Errors and limits are those of ProbMaxPool; gp or gh of another shape is a ValueError too.
    """

    c_function = "prob_max_pool_grad"

    def convert_inputs(self, z, top_down, gp, gh):
        return self.as_arrays(z=z, top_down=top_down, gp=gp, gh=gh)

    def output_broadcasts(self, inputs):
        return [inputs[0].broadcastable, inputs[1].broadcastable]

    def infer_shape(self, node, input_shapes):
        return input_shapes[:2]

    L_op = ExpressedOp.expression_L_op

    def expression(self, z, top_down, gp, gh):
        p, h = self.like_this(ProbMaxPool)(z, top_down)
        weighted = self.of_blocks(SumPool)(h * gh)
        spread = self.of_blocks(SumPoolGrad)((1 - p) * gp - weighted, z.shape[1:3])
        return [h * (gh + spread), (1 - p) * (p * gp + weighted)]


def prob_max_pool_c01b(c01b, pool_shape, top_down=None):
    """Probabilistic max-pooling with pylearn2's argument names.

    Parameters
    ----------
    c01b : (C, H, W, N) variable
        ProbMaxPool's z.
    pool_shape : int or pair of int
        Size of a block: ProbMaxPool's ds.
    top_down : (C, OH, OW, N) variable, optional
        None: zeros.

    Returns
    -------
    p : (C, OH, OW, N) variable
    h : (C, H, W, N) variable
        Those of ProbMaxPool(pool_shape)(c01b, top_down), which says what is raised.
    """
    op = ProbMaxPool(pool_shape)
    if top_down is None:
        top_down = T.zeros(op.output_shape([c01b.shape[i] for i in range(4)]), dtype=c01b.dtype)
    return op(c01b, top_down)


def _family(name, struct):
    # The gradient of 3 x 3 blocks of 4 images keeps 72 values in registers: 4 blocks of 128 threads leave it 128.
    rows = window_rows(name, threads=128, blocks_per_sm=4)
    return pool_family(name, rows, struct, ["probabilistic_max_pooling.cu"])


class GpuProbMaxPool(GpuOp, ProbMaxPool):
    """ProbMaxPool on the GPU; the graph rewrites make it."""

    c_file = "prob_max_pool_gpu.c"
    params_type = gpu_params(ProbMaxPool.params_type)
    kernel_families = _family("prob_max_pool", "ProbMaxPoolArgs")


class GpuProbMaxPoolGrad(GpuOp, ProbMaxPoolGrad):
    """ProbMaxPoolGrad on the GPU; the graph rewrites make it."""

    c_file = "prob_max_pool_grad_gpu.c"
    params_type = gpu_params(ProbMaxPoolGrad.params_type)
    kernel_families = _family("prob_max_pool_grad", "ProbMaxPoolGradArgs")
