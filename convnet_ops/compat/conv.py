"""theano.tensor.nnet.conv with a conv2d that compiles for the GPU too.

Theano 1.0.5 has the module of 2014, but refuses its ConvOp where it computes on a GPU, and says to use the newer
conv2d. Here it is used, under the old name and with the old arguments; all else in the module is Theano's.
"""

from theano.tensor import nnet
from theano.tensor.nnet import conv as theano_conv

# Of ConvOp's arguments those that only say how to compute.
HINTS = ("unroll_batch", "unroll_kern", "unroll_patch", "verbose", "version", "openmp", "direction_hint")


def conv2d(input, filters, image_shape=None, filter_shape=None, border_mode="valid", subsample=(1, 1), **options):
    """A convolution, by Theano's theano.tensor.nnet.conv2d: filters are flipped, and sizes are floored.

    Parameters
    ----------
    input : (batch, channels, rows, columns) variable
    filters : (filters, channels, rows, columns) variable
    image_shape, filter_shape : four ints, constants or None, or None
        The shapes, as far as they are known.
    border_mode : {'valid', 'full'}
    subsample : pair of int
        Pixels between windows.
    **options
        Those in `HINTS` are ignored. Any other makes it Theano's old conv2d, which knows it, and is for the CPU.

    Returns
    -------
    4-D variable
    """
    if set(options) - set(HINTS):
        return theano_conv.conv2d(input, filters, image_shape, filter_shape, border_mode, subsample, **options)
    return nnet.conv2d(
        input,
        filters,
        input_shape=image_shape,
        filter_shape=filter_shape,
        border_mode=border_mode,
        subsample=tuple(subsample),
    )


def names():
    """What the module of 2014 has: Theano's names, and this conv2d."""
    kept = {name: value for name, value in vars(theano_conv).items() if not name.startswith("__")}
    return dict(kept, __doc__=__doc__, conv2d=conv2d)
