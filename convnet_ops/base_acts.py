"""What FilterActs, ImageActs and WeightActs share: their arguments."""

import os

from convnet_ops import shapes
from convnet_ops.base import ConvnetOp
from theano import config
from theano.configparser import AddConfigVar, EnumStr
from theano.gof import ParamsType
from theano.scalar import bool as bool_t
from theano.scalar import int64

# What c_code/autotune.h finds with CONVNET_OPS_AUTOTUNE=1 is kept here, beside Theano's compiled modules.
os.environ.setdefault("CONVNET_OPS_AUTOTUNE_FILE", os.path.join(config.compiledir, "convnet_ops_autotune.txt"))

# c_code/conv_shape.h has the same.
_PAD_CODES = {"full": -1, "half": -2}

PRECISIONS = ("float32", "tf32", "float16")

AddConfigVar(
    "convnet_ops.precision",
    "The precision of convnet_ops' convolutions where they are given none: 'float32', or 'tf32', which lets the GPU "
    "round operands to TF32, or 'float16', which lets it store them as scaled float16 too.",
    EnumStr(*PRECISIONS),
    in_c_key=False,
)


class BaseActs(ConvnetOp):
    """Base class of the three convolution ops, which are each other's gradients.

    Parameters
    ----------
    pad : int, pair of int, pair of pairs of int, 'valid', 'full' or 'half'
        Zeros around the images, (rows, columns) or ((top, bottom), (left, right)); by name: 0, filter size - 1, filter
        size // 2.
    partial_sum : int or None
        For the gradient of the filters: it must divide the area of the output, OH * OW, and at most
        OH * OW / partial_sum partial gradients are held at a time. None bounds them by 64 MB. It never changes a
        result by more than rounding.
    stride : int or pair of int
        Pixels between windows, (rows, columns); it may exceed the filter.
    groups : int
        Splits channels and filters into so many groups that see nothing of each other; it must divide both.
    precision : {'float32', 'tf32', 'float16'} or None
        How a GPU multiplies float32 arrays. 'float32': to float32's accuracy. 'tf32': it may round each value to TF32,
        11 significant bits (errors of 3e-4 to 5e-4 of the norm), which tensor cores multiply up to twice as fast;
        sums stay float32. 'float16': it may do that, or multiply copies of the arrays as float16, which has 11 bits
        too. Each array is scaled by a power of two that brings its largest magnitude near float16's limit: values below
        2^-28 of that have fewer bits, and below 2^-39 none. Errors are those of 'tf32'. None: what Theano's flag
        `convnet_ops.precision` says, 'float32' unless it is set. The CPU computes in float32, and float64 stays
        float64, whatever it is.
    numGroups : int, optional
        The name of `groups` in patched copies of pylearn2.
    ignore_border : bool
        Whether windows that hang over the bottom or right edge are left out, as Theano's conv2d does (it rounds the
        size of the output down). cuda-convnet has them.

    Raises
    ------
    TypeError
        An argument of the wrong type.
    ValueError
        A negative pad, a stride, partial_sum or groups below 1, an unknown pad or precision.
    """

    __props__ = ("pad", "partial_sum", "stride", "groups", "precision", "ignore_border")
    params_type = ParamsType(
        pad_y=int64,
        pad_x=int64,
        pad_y_end=int64,
        pad_x_end=int64,
        partial_sum_or_0=int64,
        stride_y=int64,
        stride_x=int64,
        groups=int64,
        ignore_border=bool_t,
        tf32=bool_t,
        float16=bool_t,
    )

    def __init__(
        self,
        pad=0,
        partial_sum=None,
        stride=1,
        groups=1,
        precision=None,
        numGroups=None,
        ignore_border=False,
    ):
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
        elif isinstance(pad, (tuple, list)) and any(isinstance(sides, (tuple, list)) for sides in pad):
            rows, cols = shapes.pair_of_pairs(name, "pad", pad, 0)
            self.pad = (rows[0], cols[0]) if rows[0] == rows[1] and cols[0] == cols[1] else (rows, cols)
        else:
            self.pad = shapes.pair(name, "pad", pad, 0)
        self.partial_sum = None if partial_sum is None else shapes.integer(name, "partial_sum", partial_sum, 1)
        self.stride = shapes.pair(name, "stride", stride, 1)
        self.groups = shapes.integer(name, "groups", groups, 1)
        if precision is None:
            precision = config.convnet_ops.precision
        if precision not in PRECISIONS:
            raise ValueError(
                "%s: precision is %r; it must be %s" % (name, precision, " or ".join(map(repr, PRECISIONS)))
            )
        self.precision = precision
        # What the GPU may round operands to: halves have the bits of TF32.
        self.tf32 = precision in ("tf32", "float16")
        self.float16 = precision == "float16"
        if not isinstance(ignore_border, bool):
            raise TypeError("%s: ignore_border is %r; it must be True or False" % (name, ignore_border))
        self.ignore_border = ignore_border
        sides = [(_PAD_CODES[pad],) * 2 if pad in _PAD_CODES else pad for pad in self.pads()]
        (self.pad_y, self.pad_y_end), (self.pad_x, self.pad_x_end) = sides
        self.stride_y, self.stride_x = self.stride
        self.partial_sum_or_0 = self.partial_sum or 0
        super().__init__()

    def like_this(self, op_class):
        """The op of another direction with the arguments of this one."""
        return op_class(**{name: getattr(self, name) for name in BaseActs.__props__})

    def pads(self):
        """The `pad` of each direction, rows and columns: its name, or (before, after)."""
        if isinstance(self.pad, str):
            return self.pad, self.pad
        return tuple(pad if isinstance(pad, tuple) else (pad, pad) for pad in self.pad)
