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


def pair_of_pairs(op, argument, value, minimum):
    """((before, after) for rows, the same for columns) from a pair of pairs or ints; raises as `pair`."""
    if len(value) != 2:
        raise TypeError(
            "%s: %s is %r; it must be ((before, after), (before, after)) for rows and columns" % (op, argument, value)
        )
    return tuple(pair(op, argument, sides, minimum) for sides in value)


def integer(op, argument, value, minimum):
    """`value` as an int of at least `minimum`; TypeError or ValueError that names `op` and `argument`."""
    if not _is_int(value):
        raise TypeError("%s: %s is %r; it must be an int" % (op, argument, value))
    if value < minimum:
        raise ValueError("%s: %s is %r; it must be at least %d" % (op, argument, value, minimum))
    return int(value)


def _is_int(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def window_count(size, window, stride, ignore_border=False):
    """How many windows cover `size` pixels.

    The last one may hang over the end (cuda-convnet's ceil): ceil((size - window) / stride) + 1, and where the stride
    exceeds the window at most ceil(size / stride), so that no window lies wholly outside. With `ignore_border` all lie
    inside (Theano's floor): (size - window) // stride + 1.
    """
    if ignore_border:
        return (size - window) // stride + 1
    if isinstance(window, int) and isinstance(stride, int):
        reach = max(window, stride)
    else:
        reach = T.maximum(window, stride)
    return (size - reach + stride - 1) // stride + 1


def total_pad(pad, filter_size):
    """The zeros on both sides for one direction's `pad`: a pair of numbers, 'full' (filter_size - 1 each) or 'half'."""
    if pad == "full":
        return 2 * (filter_size - 1)
    if pad == "half":
        return 2 * (filter_size // 2)
    return sum(pad)


def conv_output_size(size, filter_size, stride, pad, ignore_border):
    """Rows (or columns) of FilterActs' output."""
    return window_count(size + total_pad(pad, filter_size), filter_size, stride, ignore_border)


def pool_output_size(size, window, stride, start, outputs, ignore_border):
    """Rows (or columns) of a pooling op's output; `outputs` > 0 sets it."""
    if outputs > 0:
        return outputs
    if ignore_border is None:
        return window_count(size - start, window, stride)
    if ignore_border:
        return window_count(size - 2 * start, window, stride, True)
    # A window may be larger than the image, and is then the only one.
    return T.maximum(window_count(size, window, stride), 1)
