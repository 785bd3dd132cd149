"""conv2d, its gradients and pooling with Theano's signatures, in bc01, computed by the ops of this library.

Each function builds Theano's own node, which checks the arguments as Theano does, and swaps it for ours; what our ops
cannot take stays Theano's. `swap` is what the graph rewrites use too (opt/swap.py).
"""

import numpy as np
from convnet_ops.filter_acts import FilterActs
from convnet_ops.img_acts import ImageActs
from convnet_ops.layout import bc01_to_c01b, c01b_to_bc01
from convnet_ops.pool import AvgPool, AvgPoolGrad, MaxPool, MaxPoolGrad, MaxPoolRop, SumPool, SumPoolGrad
from convnet_ops.weight_acts import WeightActs
from theano.gof import Constant
from theano.tensor import nnet as theano_nnet
from theano.tensor.nnet import abstract_conv
from theano.tensor.opt import MakeVector
from theano.tensor.signal import pool as theano_pool

CONV_OPS = (
    abstract_conv.AbstractConv2d,
    abstract_conv.AbstractConv2d_gradInputs,
    abstract_conv.AbstractConv2d_gradWeights,
)
POOL_OPS = (
    theano_pool.Pool,
    theano_pool.MaxPoolGrad,
    theano_pool.AveragePoolGrad,
    theano_pool.DownsampleFactorMaxGradGrad,
    theano_pool.MaxPoolRop,
)


class Unsupported(Exception):
    """Why the ops of this library cannot compute a node of Theano's."""


def conv2d(
    input,
    filters,
    input_shape=None,
    filter_shape=None,
    border_mode="valid",
    subsample=(1, 1),
    filter_flip=True,
    image_shape=None,
    filter_dilation=(1, 1),
    num_groups=1,
    unshared=False,
    **kwargs
):
    """Convolution as by theano.tensor.nnet.conv2d: the same arguments, shapes, values and errors.

    Parameters
    ----------
    input : (N, C, H, W), float32 or float64
    filters : (F, C / num_groups, R, S)
    input_shape, filter_shape, image_shape : tuple, optional
        What is known of the shapes; image_shape is input_shape's old name.
    border_mode : 'valid', 'full', 'half', int, pair of int or pair of pairs of int
    subsample : pair of int
    filter_flip : bool
        Whether filters are flipped (a convolution) or not (a correlation, as FilterActs).
    filter_dilation, unshared
        Given, the result is that of Theano's own op; so it is for dtypes that FilterActs does not take.
    num_groups : int

    Returns
    -------
    (N, F, OH, OW) variable
        OH = (H + padding - R) // subsample + 1: rounded down, where FilterActs' own rule rounds up.
    """
    out = theano_nnet.conv2d(
        input,
        filters,
        input_shape,
        filter_shape,
        border_mode,
        subsample,
        filter_flip,
        image_shape,
        filter_dilation,
        num_groups,
        unshared,
        **kwargs
    )
    return _swapped(out)


def conv2d_grad_wrt_inputs(
    output_grad,
    filters,
    input_shape,
    filter_shape=None,
    border_mode="valid",
    subsample=(1, 1),
    filter_flip=True,
    filter_dilation=(1, 1),
    num_groups=1,
    unshared=False,
):
    """The gradient of conv2d's input, as by theano.tensor.nnet.abstract_conv.conv2d_grad_wrt_inputs.

    Parameters
    ----------
    output_grad : (N, F, OH, OW), float32 or float64
    filters : (F, C / num_groups, R, S)
    input_shape : tuple of 4
        (N, C, H, W); the first two may be None.
    filter_shape, border_mode, subsample, filter_flip, filter_dilation, num_groups, unshared
        As those of conv2d.

    Returns
    -------
    (N, C, H, W) variable
    """
    return _swapped(
        abstract_conv.conv2d_grad_wrt_inputs(
            output_grad,
            filters,
            input_shape,
            filter_shape,
            border_mode,
            subsample,
            filter_flip,
            filter_dilation,
            num_groups,
            unshared,
        )
    )


def conv2d_grad_wrt_weights(
    input,
    output_grad,
    filter_shape,
    input_shape=None,
    border_mode="valid",
    subsample=(1, 1),
    filter_flip=True,
    filter_dilation=(1, 1),
    num_groups=1,
    unshared=False,
):
    """The gradient of conv2d's filters, as by theano.tensor.nnet.abstract_conv.conv2d_grad_wrt_weights.

    Parameters
    ----------
    input : (N, C, H, W), float32 or float64
    output_grad : (N, F, OH, OW)
    filter_shape : tuple of 4
        (F, C / num_groups, R, S); the first two may be None.
    input_shape, border_mode, subsample, filter_flip, filter_dilation, num_groups, unshared
        As those of conv2d.

    Returns
    -------
    (F, C / num_groups, R, S) variable
    """
    return _swapped(
        abstract_conv.conv2d_grad_wrt_weights(
            input,
            output_grad,
            filter_shape,
            input_shape,
            border_mode,
            subsample,
            filter_flip,
            filter_dilation,
            num_groups,
            unshared,
        )
    )


def pool_2d(
    input,
    ws=None,
    ignore_border=None,
    stride=None,
    pad=(0, 0),
    mode="max",
    ds=None,
    st=None,
    padding=None,
):
    """Pooling as by theano.tensor.signal.pool.pool_2d: the same arguments, shapes and errors.

    Parameters
    ----------
    input : (N, C, H, W), float32 or float64
        Another number of dimensions is left to Theano's op.
    ws : pair of int
        Size of a window; a symbolic one is left to Theano's op.
    ignore_border : bool
        Whether windows that hang over the edge are left out; None warns and stands for False, as in Theano.
    stride : pair of int, optional
        ws if not given.
    pad : pair of int
        Pixels around the images, which a maximum does not see.
    mode : {'max', 'sum', 'average_inc_pad', 'average_exc_pad'}
    ds, st, padding
        Old names of ws, stride and pad.

    Returns
    -------
    (N, C, OH, OW) variable
        The values are Theano's; but a maximum over NaN is NaN.
    """
    return _swapped(theano_pool.pool_2d(input, ws, ignore_border, stride, pad, mode, ds, st, padding))


def max_pool_2d(input, ds, ignore_border=None, st=None, padding=(0, 0), mode="max"):
    """`pool_2d` with the signature of theano.tensor.signal.downsample.max_pool_2d, which Theano dropped.

    Parameters
    ----------
    input : (N, C, H, W), float32 or float64
    ds : pair of int
        Size of a window.
    ignore_border : bool
    st : pair of int, optional
        The stride; ds if not given.
    padding : pair of int
    mode : str

    Returns
    -------
    (N, C, OH, OW) variable
    """
    return pool_2d(input, ds, ignore_border, st, padding, mode)


def swap(node, to_c01b=bc01_to_c01b):
    """The output of a node of Theano's, computed by an op of this library.

    Parameters
    ----------
    node : Apply
        Of one of CONV_OPS or POOL_OPS, on the host.
    to_c01b : function
        Gives a bc01 variable in c01b.

    Returns
    -------
    4-D variable
        In bc01: our op's output, shuffled.

    Raises
    ------
    Unsupported
        With the reason, if our ops cannot compute it.
    """
    for variable in node.inputs:
        if variable.ndim == 4 and variable.dtype not in ("float32", "float64"):
            raise Unsupported("its dtype is %s; it must be float32 or float64" % variable.dtype)
        if variable.ndim > 2 and variable.dtype != node.outputs[0].dtype:
            raise Unsupported("it mixes %s and %s" % (variable.dtype, node.outputs[0].dtype))
    swap_op = _swap_conv if isinstance(node.op, CONV_OPS) else _swap_pool
    result = c01b_to_bc01(swap_op(node, to_c01b))
    if isinstance(node.op, abstract_conv.AbstractConv2d_gradWeights):
        result = _flipped(node.op, result)
    return node.outputs[0].type.filter_variable(result, allow_convert=True)


def _swapped(variable):
    try:
        return swap(variable.owner)
    except Unsupported:
        return variable


def _swap_conv(node, to_c01b):
    op = node.op
    if op.unshared:
        raise Unsupported("its filters are unshared")
    if op.filter_dilation != (1, 1):
        raise Unsupported("its filter_dilation is %r; it must be (1, 1)" % (op.filter_dilation,))
    if any(not isinstance(step, int) for step in op.subsample):
        raise Unsupported("its subsample is symbolic")
    arguments = dict(
        pad=op.border_mode,
        stride=op.subsample,
        groups=op.num_groups,
        # With stride 1 both rules give one size: then the plain op, which merges with one made by hand.
        ignore_border=op.subsample != (1, 1),
    )
    if isinstance(op, abstract_conv.AbstractConv2d):
        images, filters = node.inputs
        return FilterActs(**arguments)(to_c01b(images), to_c01b(_flipped(op, filters)))
    if isinstance(op, abstract_conv.AbstractConv2d_gradInputs):
        filters, hid_acts, shape = node.inputs
        return ImageActs(**arguments)(to_c01b(hid_acts), to_c01b(_flipped(op, filters)), shape)
    images, hid_grads, shape = node.inputs
    return WeightActs(**arguments)(to_c01b(images), to_c01b(hid_grads), shape)[0]


def _flipped(op, filters):
    return filters[:, :, ::-1, ::-1] if op.filter_flip else filters


def _swap_pool(node, to_c01b):
    op = node.op
    x, ws, stride, pad = node.inputs[0], *(_constant_pair(variable) for variable in node.inputs[-3:])
    if op.ndim != 2 or x.ndim != 4:
        raise Unsupported("it pools %d of %d dimensions; it must be 2 of 4" % (op.ndim, x.ndim))
    if None in (ws, stride, pad):
        raise Unsupported("its window, stride or pad is not known when the function is compiled")
    arguments = dict(ds=ws, stride=stride, start=(-pad[0], -pad[1]), ignore_border=bool(op.ignore_border))
    arrays = [to_c01b(variable) for variable in node.inputs[:-3]]
    if isinstance(op, theano_pool.MaxPoolGrad):
        return MaxPoolGrad(**arguments)(*arrays)
    if isinstance(op, theano_pool.DownsampleFactorMaxGradGrad):
        return MaxPoolRop(**arguments)(arrays[0], arrays[2])
    if isinstance(op, theano_pool.MaxPoolRop):
        return MaxPoolRop(**arguments)(*arrays)
    if op.mode == "max":
        return MaxPool(**arguments)(*arrays)
    average = op.mode == "average_exc_pad" or op.mode == "average_inc_pad" and pad == (0, 0)
    if isinstance(op, theano_pool.Pool):
        out = (AvgPool if average else SumPool)(**arguments)(*arrays)
    else:
        out = (AvgPoolGrad if average else SumPoolGrad)(**arguments)(arrays[1], x.shape[2:4])
    # Padded pixels count as zeros: every window has all its pixels.
    return out if average or op.mode == "sum" else out / np.asarray(ws[0] * ws[1], out.dtype)


def _constant_pair(variable):
    """The two ints of a vector that is known when the function is compiled, or None."""
    if isinstance(variable, Constant):
        values = variable.data
    elif variable.owner is not None and isinstance(variable.owner.op, MakeVector):
        if not all(isinstance(element, Constant) for element in variable.owner.inputs):
            return None
        values = [element.data for element in variable.owner.inputs]
    else:
        return None
    return tuple(int(value) for value in values) if len(values) == 2 else None
