"""What FilterActs, ImageActs and WeightActs share: their arguments."""

from convnet_ops import shapes
from convnet_ops.base import ConvnetOp
from theano.gof import ParamsType
from theano.scalar import int64

# c_code/conv_shape.h has the same.
_PAD_CODES = {"full": -1, "half": -2}

PRECISIONS = ("float32",)


class BaseActs(ConvnetOp):
    """Base class of the three convolution ops, which are each other's gradients.

    Parameters
    ----------
    pad : int, pair of int, 'valid', 'full' or 'half'
        Zeros around the images, (rows, columns): 0, filter size - 1, filter size // 2.
    partial_sum : int or None
        For the gradient of the filters: it must divide the area of the output, OH * OW, and at most
        OH * OW / partial_sum partial gradients are held at a time. None bounds them by 64 MB. It never changes a
        result by more than rounding.
    stride : int or pair of int
        Pixels between windows, (rows, columns); it may exceed the filter.
    groups : int
        Splits channels and filters into so many groups that see nothing of each other; it must divide both.
    precision : {'float32'}
        How products of float32 arrays are computed.
    numGroups : int, optional
        The name of `groups` in patched copies of pylearn2.

    Raises
    ------
    TypeError
        An argument of the wrong type.
    ValueError
        A negative pad, a stride, partial_sum or groups below 1, an unknown pad or precision.
    """

    __props__ = ("pad", "partial_sum", "stride", "groups", "precision")
    params_type = ParamsType(
        pad_y=int64, pad_x=int64, partial_sum_or_0=int64, stride_y=int64, stride_x=int64, groups=int64
    )

    def __init__(self, pad=0, partial_sum=None, stride=1, groups=1, precision="float32", numGroups=None):
        name = type(self).__name__
        if numGroups is not None:
            if groups not in (1, numGroups):
                raise ValueError("%s: groups is %r and numGroups is %r; give one of them" % (name, groups, numGroups))
            groups = numGroups
        if pad == "valid":
            pad = 0
        if isinstance(pad, str):
            if pad not in _PAD_CODES:
                raise ValueError(
                    "%s: pad is %r; it must be an int, a pair of ints, 'valid', 'full' or 'half'" % (name, pad)
                )
            self.pad = pad
        else:
            self.pad = shapes.pair(name, "pad", pad, 0)
        self.partial_sum = None if partial_sum is None else shapes.integer(name, "partial_sum", partial_sum, 1)
        self.stride = shapes.pair(name, "stride", stride, 1)
        self.groups = shapes.integer(name, "groups", groups, 1)
        if precision not in PRECISIONS:
            raise ValueError(
                "%s: precision is %r; it must be %s" % (name, precision, " or ".join(map(repr, PRECISIONS)))
            )
        self.precision = precision
        self.pad_y, self.pad_x = (_PAD_CODES[pad],) * 2 if self.pad in _PAD_CODES else self.pad
        self.stride_y, self.stride_x = self.stride
        self.partial_sum_or_0 = self.partial_sum or 0
        super().__init__()

    def like_this(self, op_class):
        """The op of another direction with the arguments of this one."""
        return op_class(**{name: getattr(self, name) for name in BaseActs.__props__})

    def pads(self):
        """The `pad` of each direction: rows, columns."""
        return (self.pad, self.pad) if isinstance(self.pad, str) else self.pad
