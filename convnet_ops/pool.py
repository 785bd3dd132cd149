"""MaxPool, AvgPool and their derivatives, and what all pooling ops share.

CPU code: c_code/pool.c and avg_pool.c, GPU host code: c_code/*_pool*_gpu.c, kernels: cuda/pool.cu.
"""

from convnet_ops import shapes
from convnet_ops.base import ConvnetOp, GpuOp, gpu_params, like
from convnet_ops.kernels import KernelFamily, Row
from theano.gof import ParamsType
from theano.gradient import DisconnectedType
from theano.scalar import bool as bool_t
from theano.scalar import int64

# c_code/pool_shape.h has the same.
_BORDER_CODES = {None: 0, False: 1, True: 2}


class BasePool(ConvnetOp):
    """Base class of the pooling ops: the windows that slide over the images.

    Parameters
    ----------
    ds : int or pair of int
        Size of a window, (rows, columns).
    stride : int or pair of int
        Pixels between windows; less than ds makes them overlap, more leaves pixels out.
    start : int or pair of int
        Where the first window begins; a negative one begins outside the image.
    outputs : int or pair of int
        Size of the output; 0 stands for ceil((H - start - ds) / stride) + 1, or, where the stride exceeds ds, at most
        ceil((H - start) / stride), so that the windows cover the image and none is empty. Windows are clipped to the
        image.
    ignore_border : None or bool
        None for that size. Otherwise Theano's pool_2d with pad = -start: True leaves out windows that hang over the
        image with `pad` pixels at either end; False (without start) keeps them, and allows a ds larger than the image.

    Raises
    ------
    TypeError
        An argument that is neither an int nor a pair of ints.
    ValueError
        ds or stride below 1, outputs below 0, start <= -ds (the first window would be empty); with ignore_border
        outputs or a positive start, and with ignore_border False any start.
    """

    __props__ = ("ds", "stride", "start", "outputs", "ignore_border")
    params_type = ParamsType(
        ds_y=int64,
        ds_x=int64,
        stride_y=int64,
        stride_x=int64,
        start_y=int64,
        start_x=int64,
        outputs_y=int64,
        outputs_x=int64,
        border=int64,
    )

    def __init__(self, ds, stride, start=0, outputs=0, ignore_border=None):
        name = type(self).__name__
        self.ds = self.ds_y, self.ds_x = shapes.pair(name, "ds", ds, 1)
        self.stride = self.stride_y, self.stride_x = shapes.pair(name, "stride", stride, 1)
        self.start = self.start_y, self.start_x = shapes.pair(name, "start", start, None)
        self.outputs = self.outputs_y, self.outputs_x = shapes.pair(name, "outputs", outputs, 0)
        if self.start_y <= -self.ds_y or self.start_x <= -self.ds_x:
            raise ValueError("%s: start is %r; it must be greater than -ds, with ds %r" % (name, start, ds))
        if ignore_border not in _BORDER_CODES:
            raise TypeError("%s: ignore_border is %r; it must be None, True or False" % (name, ignore_border))
        if ignore_border is not None and self.outputs != (0, 0):
            raise ValueError("%s: outputs is %r; with ignore_border it must be 0" % (name, outputs))
        if ignore_border is not None and (max(self.start) > 0 or not ignore_border and self.start != (0, 0)):
            raise ValueError(
                "%s: start is %r; it must be %s, with ignore_border %r"
                % (name, start, "at most 0" if ignore_border else "0", ignore_border)
            )
        self.ignore_border = ignore_border
        self.border = _BORDER_CODES[ignore_border]
        super().__init__()

    def like_this(self, op_class):
        """The op of another derivative with the arguments of this one."""
        return op_class(**{name: getattr(self, name) for name in op_class.__props__})

    def output_shape(self, images):
        """The shape of the pooled images, from theirs."""
        rows, cols = (
            shapes.pool_output_size(
                images[i + 1], self.ds[i], self.stride[i], self.start[i], self.outputs[i], self.ignore_border
            )
            for i in (0, 1)
        )
        return (images[0], rows, cols, images[3])

    def output_broadcasts(self, inputs):
        channel, _, _, batch = inputs[0].broadcastable
        return [(channel, False, False, batch)]


class MaxPool(BasePool):
    """Maximum of each window, in the c01b layout (cuda-convnet's `convLocalPool` with MaxPooler, pylearn2's MaxPool).

    Takes the arguments of BasePool: ds, stride, start=0, outputs=0, ignore_border=None.

    Notes
    -----
    Called with (images):

    images : (C, H, W, N), float32 or float64
    returns : (C, OH, OW, N)

    A NaN in a window gives NaN. The gradient goes to every position that equals its window's maximum: ties all get it.
    R_op, its transpose, adds up the direction over them.

    On the GPU: float32 only (float64 stays on the CPU), and under 2**31 elements in any array.

    Raises
    ------
    TypeError
        When the graph is built: wrong dtype or number of dimensions.
    ValueError
        When it runs: ds larger than the image, start so far on that no window remains, outputs so large that a window
        is empty, an array without elements or, on the GPU, with 2**31 or more.
    MemoryError
        No room for the output.
    """

    c_file = "pool.c"
    c_function = "max_pool"

    def convert_inputs(self, images):
        return self.as_arrays(images=images)

    def infer_shape(self, node, input_shapes):
        return [self.output_shape(input_shapes[0])]

    def grad(self, inputs, output_gradients):
        (images,) = inputs
        (grads,) = output_gradients
        return [like(images, self.like_this(MaxPoolGrad)(images, self(images), grads))]

    def R_op(self, inputs, eval_points):
        if eval_points[0] is None:
            return [None]
        return [self.like_this(MaxPoolRop)(inputs[0], eval_points[0])]


class MaxPoolGrad(BasePool):
    """Gradient of MaxPool (cuda-convnet's `convLocalMaxUndo`, pylearn2's MaxPoolGrad).

    Takes the arguments of BasePool: ds, stride, start=0, outputs=0, ignore_border=None.

    Notes
    -----
    Called with (images, maxout, gz):

    images : (C, H, W, N), float32 or float64
    maxout : (C, OH, OW, N)
        MaxPool's output for these images.
    gz : (C, OH, OW, N)
        The gradient of that output.
    returns : (C, H, W, N)
        For every pixel the sum of gz over the windows whose maximum it equals.

    Errors and limits are those of MaxPool; maxout or gz of another shape than MaxPool's output is a ValueError too.
    """

    c_file = "pool.c"
    c_function = "max_pool_grad"

    def convert_inputs(self, images, maxout, gz):
        return self.as_arrays(images=images, maxout=maxout, gz=gz)

    def infer_shape(self, node, input_shapes):
        return [input_shapes[0]]

    # Constant in images and maxout but where the maximum changes places, where it has no derivative: zero.
    def grad(self, inputs, output_gradients):
        images, maxout, gz = inputs
        (direction,) = output_gradients
        return [images.zeros_like(), maxout.zeros_like(), like(gz, self.like_this(MaxPoolRop)(images, direction))]

    def R_op(self, inputs, eval_points):
        images, maxout, _ = inputs
        if eval_points[2] is None:
            return [images.zeros_like()]
        return [self(images, maxout, eval_points[2])]


class MaxPoolRop(BasePool):
    """Derivative of MaxPool along a direction: the transpose of MaxPoolGrad (pylearn2's MaxPoolRop).

    Takes the arguments of BasePool: ds, stride, start=0, outputs=0, ignore_border=None.

    Notes
    -----
    Called with (images, eval_point):

    images : (C, H, W, N), float32 or float64
    eval_point : (C, H, W, N)
        The direction.
    returns : (C, OH, OW, N)
        For every window the sum of eval_point over the positions that equal its maximum.

    Errors and limits are those of MaxPool; eval_point of another shape than images is a ValueError too.
    """

    c_file = "pool.c"
    c_function = "max_pool_rop"

    def convert_inputs(self, images, eval_point):
        return self.as_arrays(images=images, eval_point=eval_point)

    def infer_shape(self, node, input_shapes):
        return [self.output_shape(input_shapes[0])]

    def grad(self, inputs, output_gradients):
        images, eval_point = inputs
        (grads,) = output_gradients
        maxout = self.like_this(MaxPool)(images)
        return [images.zeros_like(), like(eval_point, self.like_this(MaxPoolGrad)(images, maxout, grads))]

    def R_op(self, inputs, eval_points):
        images, _ = inputs
        if eval_points[1] is None:
            return [self(images, images.zeros_like())]
        return [self(images, eval_points[1])]


def max_pool_c01b(c01b, pool_shape, pool_stride, start=0):
    """Max-pooling with pylearn2's argument names.

    Parameters
    ----------
    c01b : (C, H, W, N) variable
    pool_shape : int or pair of int
        Size of a window: MaxPool's ds.
    pool_stride : int or pair of int
    start : int or pair of int

    Returns
    -------
    (C, OH, OW, N) variable
        MaxPool(pool_shape, pool_stride, start)(c01b), which says what is raised.
    """
    return MaxPool(pool_shape, pool_stride, start)(c01b)


class AvgPool(BasePool):
    """Average of each window, in the c01b layout (cuda-convnet's `convLocalPool` with AvgPooler).

    Takes the arguments of BasePool: ds, stride, start=0, outputs=0, ignore_border=None.

    Notes
    -----
    Called with (images):

    images : (C, H, W, N), float32 or float64
    returns : (C, OH, OW, N)
        The sum over each window, over the number of its pixels that lie inside the image.

    Errors and limits are those of MaxPool.
    """

    c_file = "avg_pool.c"
    c_function = "avg_pool"
    params_type = BasePool.params_type.extended(average=bool_t)
    average = True

    def convert_inputs(self, images):
        return self.as_arrays(images=images)

    def infer_shape(self, node, input_shapes):
        return [self.output_shape(input_shapes[0])]

    def grad(self, inputs, output_gradients):
        (images,) = inputs
        gradient = self.like_this(AvgPoolGrad if self.average else SumPoolGrad)
        return [like(images, gradient(output_gradients[0], images.shape[1:3]))]

    def R_op(self, inputs, eval_points):
        return [None if eval_points[0] is None else self(eval_points[0])]


class SumPool(AvgPool):
    """Sum of each window: AvgPool without the division."""

    average = False


class PoolGradOfShape(BasePool):
    """Base class of gradients that do not need the images, only their size: output_shape = (H, W)."""

    def output_broadcasts(self, inputs):
        gz = inputs[0]
        return [(gz.broadcastable[0], False, False, gz.broadcastable[3])]

    def infer_shape(self, node, input_shapes):
        gz, output_shape = input_shapes[0], node.inputs[-1]
        return [(gz[0], output_shape[0], output_shape[1], gz[3])]


class AvgPoolGrad(PoolGradOfShape):
    """Gradient of AvgPool (cuda-convnet's `convLocalAvgUndo`).

    Takes the arguments of BasePool: ds, stride, start=0, outputs=0, ignore_border=None.

    Notes
    -----
    Called with (gz, output_shape):

    gz : (C, OH, OW, N), float32 or float64
        The gradient of AvgPool's output.
    output_shape : (H, W)
        The images' size: two ints, two scalars or a vector.
    returns : (C, H, W, N)
        For every pixel the sum over its windows of gz over the number of the window's pixels inside the image.

    Errors and limits are those of MaxPool; gz of another shape than AvgPool's output is a ValueError too.
    """

    c_file = "avg_pool.c"
    c_function = "avg_pool_grad"
    params_type = BasePool.params_type.extended(average=bool_t)
    average = True

    def convert_inputs(self, gz, output_shape):
        return self.as_arrays(gz=gz) + [self.as_size("output_shape", output_shape)]

    def connection_pattern(self, node):
        return [[True], [False]]

    def grad(self, inputs, output_gradients):
        pool = self.like_this(AvgPool if self.average else SumPool)
        return [like(inputs[0], pool(output_gradients[0])), DisconnectedType()()]

    def R_op(self, inputs, eval_points):
        return [None if eval_points[0] is None else self(eval_points[0], inputs[1])]


class SumPoolGrad(AvgPoolGrad):
    """Gradient of SumPool: every pixel takes the sum of its windows' gradients."""

    average = False


def window_rows(name, threads=256, scalars=1, blocks_per_sm=1):
    """The rows of a kernel that reads windows: those that know a window of 2 x 2 or 3 x 3, and those for any.

    A thread has 4 adjacent images, or `scalars` single ones.
    """
    rows = [
        Row(
            "n%d%s" % (vec, "_%d" % window if window else ""),
            "%s<%d, %d>" % (name, vec, window),
            threads,
            blocks_per_sm if window else 1,
            tile_n=threads * (4 if vec == 4 else scalars),
            vec_n=vec,
            weight=weight,
            window=window,
        )
        for window, factor in ((2, 1.2), (3, 1.2), (0, 1))
        for vec, weight in ((4, int(100 * factor)), (1, int(50 * factor)))
    ]
    return rows[:-1] + [rows[-1]._replace(name="plain")]


def gradient_rows(name):
    """The rows of a kernel that spreads windows over pixels: by tiles for 2/2 and 3/2, else pixel by pixel."""
    rows = [
        Row(
            "n%d_%d_%d" % (vec, window, stride),
            "%s_tiles<%d, %d, %d>" % (name, vec, window, stride),
            threads=256,
            tile_n=256 * vec,
            vec_n=vec,
            weight=weight,
            window=window,
            stride=stride,
        )
        for vec, weight in ((4, 120), (1, 60))
        for window, stride in ((2, 2), (3, 2))
    ]
    return rows + any_window_rows(name, "<%d>")


def any_window_rows(name, template):
    """The rows of a kernel for windows of any size: loads of 4 images, and of 1."""
    return [
        Row("n4", name + template % 4, threads=256, tile_n=1024, vec_n=4, weight=100),
        Row("plain", name + template % 1, threads=256, tile_n=256, weight=50),
    ]


def pool_family(name, rows, struct, files=("pool.cu",)):
    """The family of a kernel of `files`, as a twin's kernel_families."""
    return (KernelFamily(name, ["pool.cuh"] + list(files), struct, rows),)


class GpuMaxPool(GpuOp, MaxPool):
    """MaxPool on the GPU; the graph rewrites make it."""

    c_file = "max_pool_gpu.c"
    params_type = gpu_params(MaxPool.params_type)
    kernel_families = pool_family("max_pool", window_rows("max_pool"), "MaxPoolArgs")


class GpuMaxPoolGrad(GpuOp, MaxPoolGrad):
    """MaxPoolGrad on the GPU; the graph rewrites make it."""

    c_file = "max_pool_grad_gpu.c"
    params_type = gpu_params(MaxPoolGrad.params_type)
    kernel_families = pool_family("max_pool_grad", gradient_rows("max_pool_grad"), "MaxPoolGradArgs")


class GpuMaxPoolRop(GpuOp, MaxPoolRop):
    """MaxPoolRop on the GPU; the graph rewrites make it."""

    c_file = "max_pool_rop_gpu.c"
    params_type = gpu_params(MaxPoolRop.params_type)
    kernel_families = pool_family("max_pool_rop", any_window_rows("max_pool_rop", "<%d, 0>"), "MaxPoolRopArgs")


class GpuAvgPool(GpuOp, AvgPool):
    """AvgPool on the GPU; the graph rewrites make it."""

    c_file = "avg_pool_gpu.c"
    params_type = gpu_params(AvgPool.params_type)
    kernel_families = pool_family("avg_pool", window_rows("avg_pool"), "AvgPoolArgs")


class GpuSumPool(GpuOp, SumPool):
    """SumPool on the GPU; the graph rewrites make it."""

    c_file = GpuAvgPool.c_file
    params_type = GpuAvgPool.params_type
    kernel_families = GpuAvgPool.kernel_families


class GpuAvgPoolGrad(GpuOp, AvgPoolGrad):
    """AvgPoolGrad on the GPU; the graph rewrites make it."""

    c_file = "avg_pool_grad_gpu.c"
    params_type = gpu_params(AvgPoolGrad.params_type)
    kernel_families = pool_family("avg_pool_grad", gradient_rows("avg_pool_grad"), "AvgPoolGradArgs")


class GpuSumPoolGrad(GpuOp, SumPoolGrad):
    """SumPoolGrad on the GPU; the graph rewrites make it."""

    c_file = GpuAvgPoolGrad.c_file
    params_type = GpuAvgPoolGrad.params_type
    kernel_families = GpuAvgPoolGrad.kernel_families
