"""Lasagne's cuda-convnet layers, made of this library's ops, for the GPU and the CPU.

Importing this module installs it as lasagne.layers.cuda_convnet too: Lasagne's own module of that name refuses to load
on Theano 1.0.5. Lasagne 0.1 also needs theano.tensor.signal.downsample, which is installed first.
"""

from convnet_ops import FilterActs, MaxPool, shapes
from convnet_ops.compat import downsample, modules
from convnet_ops.layout import bc01_to_c01b as shuffle_to_c01b
from convnet_ops.layout import c01b_to_bc01 as shuffle_to_bc01

_DOWNSAMPLE = {"theano.tensor.signal.downsample": {name: getattr(downsample, name) for name in downsample.__all__}}
# Lasagne 0.1 imports it.
modules.install(_DOWNSAMPLE)

import theano.tensor as T  # noqa: E402
from lasagne import init, nonlinearities  # noqa: E402
from lasagne.layers.base import Layer  # noqa: E402
from lasagne.layers.conv import conv_output_length  # noqa: E402
from lasagne.layers.pool import pool_output_length  # noqa: E402

__all__ = [
    "CCLayer",
    "Conv2DCCLayer",
    "MaxPool2DCCLayer",
    "NINLayer_c01b",
    "ShuffleBC01ToC01BLayer",
    "ShuffleC01BToBC01Layer",
    "bc01_to_c01b",
    "c01b_to_bc01",
]

# Initialisers keep nothing between calls: one serves all layers.
_ZERO = init.Constant(0.0)
_GLOROT = init.GlorotUniform()


def _shape_to_c01b(shape):
    return tuple(shape[1:]) + (shape[0],)


def _shape_to_bc01(shape):
    return (shape[3],) + tuple(shape[:3])


def _check_dimensions(layer, order):
    if len(layer.input_shape) != 4:
        raise ValueError(
            "%s: incoming has the shape %r; it must have 4 dimensions (%s)"
            % (type(layer).__name__, tuple(layer.input_shape), order)
        )


def _add_param(layer, name, value, shape, **tags):
    if None in shape:
        raise ValueError(
            "%s: %s has the shape %r, with incoming of shape %r; it must be known: only the batch may be None"
            % (type(layer).__name__, name, shape, tuple(layer.input_shape))
        )
    return layer.add_param(value, shape, name=name, **tags)


class CCLayer(Layer):
    """Base class of the layers that compute in c01b.

    A subclass says by `c01b_output_shape_for` and `c01b_output_for` what it computes.

    Parameters
    ----------
    incoming : Layer or tuple
        The layer below, or the shape of its output.
    dimshuffle : bool
        Whether input, output and filters are in bc01, and change their layout here.
    **kwargs
        Those of Lasagne's Layer.

    Raises
    ------
    ValueError
        `incoming` does not have 4 dimensions.
    """

    def __init__(self, incoming, dimshuffle=True, **kwargs):
        super().__init__(incoming, **kwargs)
        self.dimshuffle = bool(dimshuffle)
        _check_dimensions(self, "bc01" if self.dimshuffle else "c01b, as dimshuffle is False")

    def c01b_output_shape_for(self, input_shape):
        """The output's shape for that of an input, both in c01b."""
        raise NotImplementedError

    def c01b_output_for(self, images):
        """The output for images in c01b."""
        raise NotImplementedError

    def get_output_shape_for(self, input_shape):
        """The shape of the output for an input of shape `input_shape`; sizes may be None."""
        if not self.dimshuffle:
            return self.c01b_output_shape_for(input_shape)
        return _shape_to_bc01(self.c01b_output_shape_for(_shape_to_c01b(input_shape)))

    def get_output_for(self, input, **kwargs):
        """The output for the variable `input`; Lasagne's further arguments, such as deterministic, change nothing."""
        if not self.dimshuffle:
            return self.c01b_output_for(input)
        return shuffle_to_bc01(self.c01b_output_for(shuffle_to_c01b(input)))


class Conv2DCCLayer(CCLayer):
    """A convolution by FilterActs, with a bias and a nonlinearity.

    Parameters
    ----------
    incoming : Layer or tuple
        The layer below, or the shape of its output: (N, C, H, W), or, without dimshuffle, (C, H, W, N).
    num_filters : int
    filter_size : int or pair of int
        (rows, columns).
    stride : int or pair of int
    pad : int, pair of int, 'valid', 'full' or 'same'
        Zeros around the images; by name: 0, filter_size - 1, (filter_size - 1) // 2.
    untie_biases : bool
        Whether each position of the output has a bias of its own.
    W : initializer, array or shared variable, optional
        The filters: (F, C, R, S), or, without dimshuffle, (C, R, S, F). None: GlorotUniform for that order.
    b : initializer, array, shared variable or None
        The biases: (F,), or, untied, (F, OH, OW). None: there are none.
    nonlinearity : callable or None
        None: identity.
    dimshuffle : bool
        Whether input, output and filters are in bc01; False: in c01b.
    flip_filters : bool
        Whether the filters are flipped, as Lasagne's Conv2DLayer does.
    partial_sum : int or None
        Accepted for old code. It changed no result, and the ops bound their memory without it.
    num_groups : int
        FilterActs' groups; W then has C / num_groups channels.
    **kwargs
        Those of Lasagne's Layer.

    Attributes
    ----------
    W, b : shared variables, or None for b
    filter_size, stride, pad : pairs of int

    Notes
    -----
    As with Lasagne's layer of this name, the output has (H + 2 * pad - R) // stride + 1 rows: a window that hangs over
    the edge is left out, which FilterActs alone keeps.

    Raises
    ------
    TypeError, ValueError
        An argument, or a shape, that is not as said here.
    """

    def __init__(
        self,
        incoming,
        num_filters,
        filter_size,
        stride=(1, 1),
        pad=0,
        untie_biases=False,
        W=None,
        b=_ZERO,
        nonlinearity=nonlinearities.rectify,
        dimshuffle=True,
        flip_filters=False,
        partial_sum=1,
        num_groups=1,
        **kwargs,
    ):
        super().__init__(incoming, dimshuffle, **kwargs)
        name = type(self).__name__
        self.nonlinearity = nonlinearities.identity if nonlinearity is None else nonlinearity
        self.num_filters = shapes.integer(name, "num_filters", num_filters, 1)
        self.filter_size = shapes.pair(name, "filter_size", filter_size, 1)
        self.stride = shapes.pair(name, "stride", stride, 1)
        self.pad = self._pad_of(pad)
        self.untie_biases = bool(untie_biases)
        self.flip_filters = bool(flip_filters)
        self.partial_sum = None if partial_sum is None else shapes.integer(name, "partial_sum", partial_sum, 0)
        self.num_groups = shapes.integer(name, "num_groups", num_groups, 1)
        if self.num_filters % self.num_groups or (self.num_input_channels or 0) % self.num_groups:
            raise ValueError(
                "%s: num_groups is %d; it must divide num_filters, %d, and the channels of incoming, %r"
                % (name, self.num_groups, self.num_filters, self.num_input_channels)
            )
        # The divisors that partial_sum may be are those of the area with the windows over the edge, which is not this
        # op's; it is not needed.
        self.filter_acts_op = FilterActs(pad=self.pad, stride=self.stride, groups=self.num_groups, ignore_border=True)
        if W is None:
            W = init.GlorotUniform(c01b=not self.dimshuffle)
        self.W = _add_param(self, "W", W, self.get_W_shape())
        self.b = None
        if b is not None:
            output_shape = self.c01b_output_shape_for(self._c01b_input_shape())
            biases_shape = output_shape[:3] if self.untie_biases else output_shape[:1]
            self.b = _add_param(self, "b", b, biases_shape, regularizable=False)

    def _pad_of(self, pad):
        if not isinstance(pad, str):
            return shapes.pair(type(self).__name__, "pad", pad, 0)
        if pad not in ("valid", "full", "same"):
            raise ValueError(
                "%s: pad is %r; it must be an int, a pair of ints, 'valid', 'full' or 'same'"
                % (type(self).__name__, pad)
            )
        sizes = {"valid": lambda size: 0, "full": lambda size: size - 1, "same": lambda size: (size - 1) // 2}
        return tuple(sizes[pad](size) for size in self.filter_size)

    def _c01b_input_shape(self):
        return _shape_to_c01b(self.input_shape) if self.dimshuffle else self.input_shape

    @property
    def num_input_channels(self):
        """The channels of the input."""
        return self._c01b_input_shape()[0]

    def get_W_shape(self):
        """The shape of the filters, in the order of the input."""
        channels = self.num_input_channels
        channels = None if channels is None else channels // self.num_groups
        if self.dimshuffle:
            return (self.num_filters, channels) + self.filter_size
        return (channels,) + self.filter_size + (self.num_filters,)

    def c01b_output_shape_for(self, input_shape):
        rows, cols = (
            conv_output_length(input_shape[i + 1], self.filter_size[i], self.stride[i], self.pad[i]) for i in (0, 1)
        )
        return (self.num_filters, rows, cols, input_shape[3])

    def c01b_output_for(self, images):
        filters = shuffle_to_c01b(self.W) if self.dimshuffle else self.W
        if self.flip_filters:
            filters = filters[:, ::-1, ::-1]
        return self.nonlinearity(_add_biases(self, self.filter_acts_op(images, filters)))


class MaxPool2DCCLayer(CCLayer):
    """Max-pooling by MaxPool.

    Parameters
    ----------
    incoming : Layer or tuple
        The layer below, or the shape of its output: (N, C, H, W), or, without dimshuffle, (C, H, W, N).
    pool_size : int or pair of int
        Size of a window, (rows, columns).
    stride : int or pair of int, optional
        Pixels between windows; None: pool_size.
    ignore_border : bool
        Whether windows that hang over the edge are left out. The default keeps them, unlike MaxPool2DLayer's.
    dimshuffle : bool
        Whether input and output are in bc01; False: in c01b.
    pad : int or pair of int
        Pixels around the images, less than pool_size; only with ignore_border.
    **kwargs
        Those of Lasagne's Layer.

    Raises
    ------
    TypeError, ValueError
        An argument, or a shape, that is not as said here.
    """

    def __init__(self, incoming, pool_size, stride=None, ignore_border=False, dimshuffle=True, pad=0, **kwargs):
        super().__init__(incoming, dimshuffle, **kwargs)
        name = type(self).__name__
        self.pool_size = shapes.pair(name, "pool_size", pool_size, 1)
        self.stride = self.pool_size if stride is None else shapes.pair(name, "stride", stride, 1)
        self.pad = shapes.pair(name, "pad", pad, 0)
        self.ignore_border = bool(ignore_border)
        if self.pad != (0, 0) and not self.ignore_border:
            raise ValueError("%s: pad is %r; without ignore_border it must be 0" % (name, pad))
        if any(before >= window for before, window in zip(self.pad, self.pool_size)):
            raise ValueError("%s: pad is %r; it must be less than pool_size, %r" % (name, pad, pool_size))
        self.pool_op = MaxPool(
            self.pool_size, self.stride, start=tuple(-before for before in self.pad), ignore_border=self.ignore_border
        )

    def c01b_output_shape_for(self, input_shape):
        rows, cols = (
            pool_output_length(input_shape[i + 1], self.pool_size[i], self.stride[i], self.pad[i], self.ignore_border)
            for i in (0, 1)
        )
        return (input_shape[0], rows, cols, input_shape[3])

    def c01b_output_for(self, images):
        return self.pool_op(images)


class ShuffleBC01ToC01BLayer(Layer):
    """(batch, channel, row, column) to (channel, row, column, batch); for layers without dimshuffle.

    Parameters
    ----------
    incoming : Layer or tuple
        The layer below, or the shape of its output.
    **kwargs
        Those of Lasagne's Layer.

    Raises
    ------
    ValueError
        `incoming` does not have 4 dimensions.
    """

    def __init__(self, incoming, **kwargs):
        super().__init__(incoming, **kwargs)
        _check_dimensions(self, "bc01")

    def get_output_shape_for(self, input_shape):
        return _shape_to_c01b(input_shape)

    def get_output_for(self, input, **kwargs):
        return shuffle_to_c01b(input)


class ShuffleC01BToBC01Layer(Layer):
    """(channel, row, column, batch) to (batch, channel, row, column): the inverse of ShuffleBC01ToC01BLayer."""

    def __init__(self, incoming, **kwargs):
        super().__init__(incoming, **kwargs)
        _check_dimensions(self, "c01b")

    def get_output_shape_for(self, input_shape):
        return _shape_to_bc01(input_shape)

    def get_output_for(self, input, **kwargs):
        return shuffle_to_bc01(input)


bc01_to_c01b = ShuffleBC01ToC01BLayer
c01b_to_bc01 = ShuffleC01BToBC01Layer


class NINLayer_c01b(Layer):
    """A dense layer over the channels of each pixel: Lasagne's NINLayer, with the batch last.

    Parameters
    ----------
    incoming : Layer or tuple
        The layer below, or the shape of its output: (C, ..., N), of 2 dimensions or more.
    num_units : int
    untie_biases : bool
        Whether each pixel has biases of its own.
    W : initializer, array or shared variable
        (num_units, C).
    b : initializer, array, shared variable or None
        (num_units,), or, untied, (num_units, ...) with the sizes between channels and batch. None: there are none.
    nonlinearity : callable or None
        None: identity.
    **kwargs
        Those of Lasagne's Layer.

    Raises
    ------
    TypeError, ValueError
        An argument, or a shape, that is not as said here.
    """

    def __init__(
        self, incoming, num_units, untie_biases=False, W=_GLOROT, b=_ZERO, nonlinearity=nonlinearities.rectify, **kwargs
    ):
        super().__init__(incoming, **kwargs)
        self.nonlinearity = nonlinearities.identity if nonlinearity is None else nonlinearity
        self.num_units = shapes.integer(type(self).__name__, "num_units", num_units, 1)
        self.untie_biases = bool(untie_biases)
        self.W = _add_param(self, "W", W, (self.num_units, self.input_shape[0]))
        self.b = None
        if b is not None:
            biases_shape = (self.num_units,) + (tuple(self.input_shape[1:-1]) if self.untie_biases else ())
            self.b = _add_param(self, "b", b, biases_shape, regularizable=False)

    def get_output_shape_for(self, input_shape):
        return (self.num_units,) + tuple(input_shape[1:])

    def get_output_for(self, input, **kwargs):
        # A product of matrices, which the BLAS of either device does best.
        return self.nonlinearity(_add_biases(self, T.tensordot(self.W, input, axes=[[1], [0]])))


def _add_biases(layer, output):
    """`output`, channels first and batch last, with the biases of the layer added, if it has any."""
    if layer.b is None:
        return output
    return output + layer.b.dimshuffle(list(range(layer.b.ndim)) + ["x"] * (output.ndim - layer.b.ndim))


MODULES = {"lasagne.layers.cuda_convnet": dict({name: globals()[name] for name in __all__}, __all__=__all__)}


def install():
    """Make `lasagne.layers.cuda_convnet` this module's layers."""
    modules.install(MODULES)


def uninstall():
    """Undo `install`. theano.tensor.signal.downsample stays, since Lasagne 0.1 uses it."""
    modules.uninstall(MODULES)


install()
