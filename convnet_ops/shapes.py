"""Size arithmetic of windows that slide over images, once for all ops.

Sizes are Python ints, or Theano integers where a graph's shapes are inferred.
"""

import numbers

import theano.tensor as T


def pair(op, argument, value, minimum):
    """A size for rows and one for columns from an int or a pair of ints.

    Parameters
    ----------
    op, argument : str
        Named in the error.
    value : int or pair of int
        One size for both directions, or (rows, columns).
    minimum : int or None
        The smallest valid size; None for any.

    Returns
    -------
    tuple of int
        (rows, columns).

    Raises
    ------
    TypeError
        `value` is neither an int nor a pair of ints.
    ValueError
        A size is below `minimum`.
    """
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2 or not all(_is_int(size) for size in values):
        raise TypeError("%s: %s is %r; it must be an int or a pair of ints (rows, columns)" % (op, argument, value))
    if minimum is not None and min(values) < minimum:
        raise ValueError("%s: %s is %r; it must be at least %d" % (op, argument, value, minimum))
    return tuple(int(size) for size in values)


def integer(op, argument, value, minimum):
    """`value` as an int of at least `minimum`; TypeError or ValueError that names `op` and `argument`."""
    if not _is_int(value):
        raise TypeError("%s: %s is %r; it must be an int" % (op, argument, value))
    if value < minimum:
        raise ValueError("%s: %s is %r; it must be at least %d" % (op, argument, value, minimum))
    return int(value)


def _is_int(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def window_count(size, window, stride):
    """How many windows cover `size` pixels, the last one allowed to hang over the end (cuda-convnet's ceil).

    ceil((size - window) / stride) + 1, and where the stride exceeds the window at most ceil(size / stride), so that
    no window lies wholly outside.
    """
    if isinstance(window, int) and isinstance(stride, int):
        reach = max(window, stride)
    else:
        reach = T.maximum(window, stride)
    return (size - reach + stride - 1) // stride + 1


def filter_pad(pad, filter_size):
    """The zeros on each side for one direction's `pad`: a number, 'full' (filter_size - 1) or 'half'."""
    if pad == "full":
        return filter_size - 1
    if pad == "half":
        return filter_size // 2
    return pad


def conv_output_size(size, filter_size, stride, pad):
    """Rows (or columns) of FilterActs' output."""
    return window_count(size + 2 * filter_pad(pad, filter_size), filter_size, stride)


def pool_output_size(size, window, stride, start, outputs):
    """Rows (or columns) of a pooling op's output; `outputs` > 0 sets it."""
    return outputs if outputs > 0 else window_count(size - start, window, stride)
