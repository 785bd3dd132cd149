"""FusedFilterActs, FilterActs with a bias and an activation, and FusedActsGrad, the gradient below those.

opt/fuse.py puts them into graphs. CPU code: c_code/fused_filter_acts.c and fused_acts_grad.c, GPU host code: the same
with _gpu, kernels: cuda/correlate.cuh with cuda/fused_filter_acts.cu, and cuda/fused_acts.cu.
"""

import numbers

from convnet_ops.base import FirstOutputOp, GpuOp, gpu_params, like
from convnet_ops.base_acts import BaseActs
from convnet_ops.filter_acts import (
    FilterActs,
    correlate_rows,
    correlation_families,
    half_correlation_family,
    half_families,
    partial_families,
)
from convnet_ops.img_acts import ImageActs
from convnet_ops.kernels import KernelFamily, Row
from convnet_ops.layout import ContiguousOnGpu
from convnet_ops.tiles import FFT_OUTPUT_TILES, tile_family
from convnet_ops.weight_acts import WeightActs
from theano.gof import ParamsType
from theano.gpuarray.basic_ops import as_gpuarray_variable
from theano.gradient import DisconnectedType
from theano.scalar import float64, int64
from theano.tensor import as_tensor_variable

# c_code/activation.h and cuda/activation.cuh have the same.
_CODES = {"linear": 0, "relu": 1, "leaky_relu": 1, "tanh": 2, "sigmoid": 3}

ACTIVATIONS = tuple(_CODES)


class FusedFilterActs(BaseActs):
    """FilterActs, then a bias for each filter, then an activation, in one pass over memory.

    Parameters
    ----------
    pad, partial_sum, stride, groups, precision, ignore_border
        Those of BaseActs.
    activation : {'linear', 'relu', 'leaky_relu', 'tanh', 'sigmoid'}
    slope : float
        Of 'leaky_relu' below zero: x for x > 0, slope * x for x < 0. At least 0.
    at_zero : float
        The derivative of 'relu' and 'leaky_relu' at exactly 0. Theano's forms of them differ there: that of x * (x > 0)
        is 0, that of T.nnet.relu(x) 0.5, that of T.maximum(x, 0) 1.

    Notes
    -----
    Called with (images, filters, bias):

    images, filters
        As for FilterActs.
    bias : (F,), the dtype of images
    returns : (F, OH, OW, N)

    Where 'relu' gives 0, the sign of the 0 tells the gradient whether it came from below (-0.0) or from 0 itself.

    Errors and limits are those of FilterActs; a slope or at_zero that is no finite number, or that is not 0 for an
    activation that has none, a slope below 0 and a bias of another length are ValueErrors too.

    Examples
    --------
    >>> acts = FusedFilterActs(pad=2, activation="relu")(images, filters, bias)
    """

    __props__ = BaseActs.__props__ + ("activation", "slope", "at_zero")
    c_file = "fused_filter_acts.c"
    c_function = "fused_filter_acts"
    params_type = BaseActs.params_type.extended(activation_code=int64, slope=float64)

    def __init__(self, *arguments, activation="linear", slope=0.0, at_zero=0.0, **options):
        _set_activation(self, activation, slope, at_zero)
        super().__init__(*arguments, **options)

    def gradient_op(self):
        """The FusedActsGrad of this op's activation."""
        return FusedActsGrad(self.activation, self.slope, self.at_zero)

    def convert_inputs(self, images, filters, bias):
        arrays = self.as_arrays(images=images, filters=filters)
        bias = as_tensor_variable(bias)
        if bias.ndim != 1:
            raise TypeError("FusedFilterActs: bias has %d dimensions; it must have 1" % bias.ndim)
        if bias.dtype != arrays[0].dtype:
            raise TypeError("FusedFilterActs: bias is %s; it must be %s, as images is" % (bias.dtype, arrays[0].dtype))
        return arrays + [bias]

    def output_broadcasts(self, inputs):
        return FilterActs.output_broadcasts(self, inputs[:2])

    def infer_shape(self, node, input_shapes):
        return FilterActs.infer_shape(self, node, input_shapes[:2])

    def L_op(self, inputs, outputs, output_gradients):
        images, filters, bias = inputs
        hid_grads, bias_gradient = self.gradient_op()(outputs[0], output_gradients[0], return_list=True)
        images_gradient = self.like_this(ImageActs)(hid_grads, filters, images.shape[1:3])
        filters_gradient = self.like_this(WeightActs)(images, hid_grads, filters.shape[1:3])[0]
        return [like(images, images_gradient), like(filters, filters_gradient), like(bias, bias_gradient)]

    def R_op(self, inputs, eval_points):
        acts = self(*inputs)
        terms = [term for term in self.like_this(FilterActs).R_op(inputs[:2], eval_points[:2]) if term is not None]
        if eval_points[2] is not None:
            terms.append(acts.zeros_like() + eval_points[2].dimshuffle(0, "x", "x", "x"))
        if not terms:
            return [None]
        return [self.gradient_op()(acts, sum(terms[1:], terms[0]))]


class FusedActsGrad(FirstOutputOp):
    """The gradient below a bias and an activation, and the bias's, in one pass over memory.

    Parameters
    ----------
    activation : {'linear', 'relu', 'leaky_relu', 'tanh', 'sigmoid'}
    slope : float
    at_zero : float
        As in FusedFilterActs.

    Notes
    -----
    Called with (acts, gacts):

    acts : (F, OH, OW, N), float32 or float64
        The activation's values. Of 'relu' and 'leaky_relu' a 0 counts as x < 0 if it is -0.0, as x = 0 if not.
    gacts : (F, OH, OW, N), the dtype of acts
        Their gradients.
    returns : gz; with return_list=True, [gz, gbias]
        gz, (F, OH, OW, N), is gacts times the activation's derivative, for 'linear' gacts itself; gbias, (F,), is the
        sum of gz over rows, columns and images. Both are differentiable.

    On the GPU: float32 only (float64 stays on the CPU), and under 2**31 elements.

    Raises
    ------
    TypeError
        When the graph is built: wrong dtype or number of dimensions.
    ValueError
        As for FusedFilterActs; when it runs: gacts of another shape than acts, an array without elements or, on the
        GPU, with 2**31 or more.
    MemoryError
        No room for an output or, on the GPU, for the workspace of one float for each 4096 to 8192 values.
    """

    __props__ = ("activation", "slope", "at_zero")
    c_file = "fused_acts_grad.c"
    c_function = "fused_acts_grad"
    params_type = ParamsType(activation_code=int64, slope=float64, at_zero=float64)

    def __init__(self, activation="linear", slope=0.0, at_zero=0.0):
        _set_activation(self, activation, slope, at_zero)
        if activation == "linear":
            self.view_map = {0: [1]}
        super().__init__()

    def convert_inputs(self, acts, gacts):
        return self.as_arrays(acts=acts, gacts=gacts)

    def output_broadcasts(self, inputs):
        acts, gacts = inputs
        return [gacts.broadcastable, (acts.broadcastable[0],)]

    def infer_shape(self, node, input_shapes):
        return [input_shapes[1], (input_shapes[0][0],)]

    def L_op(self, inputs, outputs, output_gradients):
        acts, gacts = inputs
        gz_gradient, bias_gradient = output_gradients
        terms = []
        if not isinstance(gz_gradient.type, DisconnectedType):
            terms.append(gz_gradient)
        if not isinstance(bias_gradient.type, DisconnectedType):
            terms.append(gacts.zeros_like() + bias_gradient.dimshuffle(0, "x", "x", "x"))
        direction = sum(terms[1:], terms[0])
        return [like(acts, self._curvature(acts, gacts * direction)), like(gacts, self(acts, direction))]

    def R_op(self, inputs, eval_points):
        acts, gacts = inputs
        outputs = []
        if eval_points[1] is not None:
            outputs.append(self(acts, eval_points[1], return_list=True))
        if eval_points[0] is not None:
            by_acts = self._curvature(acts, gacts * eval_points[0])
            outputs.append([by_acts, by_acts.sum(axis=(1, 2, 3))])
        return [sum(terms[1:], terms[0]) for terms in zip(*outputs)] or [None, None]

    def _curvature(self, acts, products):
        """`products` times what the derivative changes by with acts: 0 where it is constant in pieces."""
        if self.activation == "tanh":
            return -2 * acts * products
        if self.activation == "sigmoid":
            return (1 - 2 * acts) * products
        return acts.zeros_like()


def _set_activation(op, activation, slope, at_zero):
    name = type(op).__name__
    if activation not in ACTIVATIONS:
        raise ValueError(
            "%s: activation is %r; it must be %s" % (name, activation, " or ".join(map(repr, ACTIVATIONS)))
        )
    for argument, value, takers in (("slope", slope, ("leaky_relu",)), ("at_zero", at_zero, ("relu", "leaky_relu"))):
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            raise TypeError("%s: %s is %r; it must be a number" % (name, argument, value))
        if not abs(value) < float("inf"):
            raise ValueError("%s: %s is %r; it must be finite" % (name, argument, value))
        if value != 0 and activation not in takers:
            raise ValueError("%s: %s is %r; with activation %r it must be 0" % (name, argument, value, activation))
    if slope < 0:
        raise ValueError("%s: slope is %r; it must be at least 0" % (name, slope))
    op.activation, op.slope, op.at_zero = activation, float(slope), float(at_zero)
    op.activation_code = _CODES[activation]


_FUSED_FILES = [
    "activation.cuh",
    "product.cuh",
    "correlate.cuh",
    "filter_acts.cu",
    "partials.cu",
    "tiles.cuh",
    "winograd.cu",
    "fft.cu",
    "fused_filter_acts.cu",
]


class GpuFusedFilterActs(GpuOp, FusedFilterActs):
    """FusedFilterActs on the GPU; the graph rewrites make it."""

    c_file = "fused_filter_acts_gpu.c"
    shared_c_files = ("correlation_gpu.c",)
    params_type = gpu_params(FusedFilterActs.params_type)
    kernel_families = (
        tuple(
            KernelFamily(name, _FUSED_FILES, struct, rows)
            for name, struct, rows in (
                ("fused_filter_acts", "FusedFilterActsArgs", correlate_rows(phases=False)),
                ("fused_filter_acts_plain", "FusedFilterActsPlainArgs", [Row("plain", "filter_acts", 256)]),
                ("fused_sum_partials", "FusedSumPartialsArgs", [Row("plain", "sum_partials", 256)]),
            )
        )
        + partial_families()[:1]
        + correlation_families()
        + (
            tile_family(
                "fused_tile_outputs", "outputs", "FusedTileOutputsArgs", _FUSED_FILES, fft_tiles=FFT_OUTPUT_TILES
            ),
            half_correlation_family("fused_filter_acts_f16", files=_FUSED_FILES, struct="FusedHalfFilterActsArgs"),
        )
        + half_families("pair_channels", "PairChannelsArgs")
    )

    def make_node(self, images, filters, bias):
        # The lifter leaves on the host what is not 4-D, for the ops' sizes.
        bias = ContiguousOnGpu()(as_gpuarray_variable(bias, images.type.context_name))
        return super().make_node(images, filters, bias)


def _gradient_rows():
    # 8192 and 4096 values a block: enough for the card's multiprocessors to share a small layer.
    return [
        Row("n4", "fused_acts_grad<4, 8>", threads=256, blocks_per_sm=4, tile_n=8192, vec_n=4, weight=100),
        Row("plain", "fused_acts_grad<1, 16>", threads=256, blocks_per_sm=4, tile_n=4096, weight=50),
    ]


class GpuFusedActsGrad(GpuOp, FusedActsGrad):
    """FusedActsGrad on the GPU; the graph rewrites make it."""

    c_file = "fused_acts_grad_gpu.c"
    params_type = gpu_params(FusedActsGrad.params_type)
    kernel_families = tuple(
        KernelFamily(name, ["activation.cuh", "fused_acts.cu"], struct, rows)
        for name, struct, rows in (
            ("fused_acts_grad", "FusedActsGradArgs", _gradient_rows()),
            ("sum_parts", "SumPartsArgs", [Row("plain", "sum_parts", 128)]),
        )
    )
