"""What every op computes, in NumPy float64 and plain loops over windows: slow, and obviously right.

The functions take the arguments of the ops of the same name, c01b arrays of any dtype, and give float64. They do not
check their arguments.
"""

import numpy as np


def output_size(size, window, stride):
    """How many windows cover `size` pixels: the last may hang over the end, none lies wholly outside."""
    count = -(-(size - window) // stride) + 1
    return min(count, -(-size // stride)) if stride > window else count


def conv_geometry(pad, stride, filter_size):
    """(pad rows, pad columns), (stride rows, stride columns) from an op's arguments."""
    if pad == "valid":
        pad = 0
    if pad == "full":
        pad = tuple(size - 1 for size in filter_size)
    if pad == "half":
        pad = tuple(size // 2 for size in filter_size)
    return as_pair(pad), as_pair(stride)


def as_pair(value):
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def filter_acts(images, filters, pad=0, stride=1, groups=1):
    """out[f, y, x, n] = sum of images[c, y * stride + r - pad, x * stride + s - pad, n] * filters[c, r, s, f]."""
    images, filters = np.asarray(images, "float64"), np.asarray(filters, "float64")
    channels, rows, cols, filter_count = filters.shape
    (pad_y, pad_x), (stride_y, stride_x) = conv_geometry(pad, stride, (rows, cols))
    out_rows = output_size(images.shape[1] + 2 * pad_y, rows, stride_y)
    out_cols = output_size(images.shape[2] + 2 * pad_x, cols, stride_x)
    padded = _pad_for_windows(images, pad_y, pad_x, out_rows, out_cols, rows, cols, stride_y, stride_x)
    out = np.empty((filter_count, out_rows, out_cols, images.shape[3]))
    per_group = filter_count // groups
    for group in range(groups):
        own_channels = slice(group * channels, (group + 1) * channels)
        own_filters = slice(group * per_group, (group + 1) * per_group)
        for y in range(out_rows):
            for x in range(out_cols):
                window = padded[own_channels, y * stride_y : y * stride_y + rows, x * stride_x : x * stride_x + cols]
                out[own_filters, y, x] = np.tensordot(filters[..., own_filters], window, ([0, 1, 2], [0, 1, 2]))
    return out


def img_acts(hid_acts, filters, output_shape=None, pad=0, stride=1, groups=1):
    """The gradient of `filter_acts` with respect to images of `output_shape`."""
    hid_acts, filters = np.asarray(hid_acts, "float64"), np.asarray(filters, "float64")
    channels, rows, cols, filter_count = filters.shape
    (pad_y, pad_x), (stride_y, stride_x) = conv_geometry(pad, stride, (rows, cols))
    out_rows, out_cols, batch = hid_acts.shape[1:]
    if output_shape is None:
        output_shape = (out_rows - 1 + rows - 2 * pad_y, out_cols - 1 + cols - 2 * pad_x)
    images = np.zeros((channels * groups,) + tuple(output_shape) + (batch,))
    padded = _pad_for_windows(images, pad_y, pad_x, out_rows, out_cols, rows, cols, stride_y, stride_x)
    per_group = filter_count // groups
    for group in range(groups):
        own_channels = slice(group * channels, (group + 1) * channels)
        own_filters = slice(group * per_group, (group + 1) * per_group)
        for y in range(out_rows):
            for x in range(out_cols):
                padded[own_channels, y * stride_y : y * stride_y + rows, x * stride_x : x * stride_x + cols] += (
                    np.tensordot(filters[..., own_filters], hid_acts[own_filters, y, x], (3, 0))
                )
    return padded[:, pad_y : pad_y + output_shape[0], pad_x : pad_x + output_shape[1]]


def weight_acts(images, hid_grads, output_shape, pad=0, stride=1, groups=1):
    """The gradient of `filter_acts` with respect to filters of `output_shape` taps."""
    images, hid_grads = np.asarray(images, "float64"), np.asarray(hid_grads, "float64")
    rows, cols = output_shape
    (pad_y, pad_x), (stride_y, stride_x) = conv_geometry(pad, stride, (rows, cols))
    filter_count, out_rows, out_cols = hid_grads.shape[:3]
    padded = _pad_for_windows(images, pad_y, pad_x, out_rows, out_cols, rows, cols, stride_y, stride_x)
    channels, per_group = images.shape[0] // groups, filter_count // groups
    gradient = np.zeros((channels, rows, cols, filter_count))
    for group in range(groups):
        own_channels = slice(group * channels, (group + 1) * channels)
        own_filters = slice(group * per_group, (group + 1) * per_group)
        for y in range(out_rows):
            for x in range(out_cols):
                window = padded[own_channels, y * stride_y : y * stride_y + rows, x * stride_x : x * stride_x + cols]
                gradient[..., own_filters] += np.tensordot(window, hid_grads[own_filters, y, x], (3, 1))
    return gradient


def max_pool(images, ds, stride, start=0, outputs=0):
    """The maximum of each window; NaN if the window has one."""
    images = np.asarray(images, "float64")
    windows = pool_windows(images.shape, ds, stride, start, outputs)
    out = np.empty((images.shape[0], len(windows), len(windows[0]), images.shape[3]))
    for y, row in enumerate(windows):
        for x, window in enumerate(row):
            out[:, y, x] = images[window].max(axis=(1, 2))
    return out


def max_pool_grad(images, maxout, gz, ds, stride, start=0, outputs=0):
    """Every position that equals its window's maximum gets that window's gradient."""
    images, maxout, gz = (np.asarray(array, "float64") for array in (images, maxout, gz))
    gradient = np.zeros(images.shape)
    for y, row in enumerate(pool_windows(images.shape, ds, stride, start, outputs)):
        for x, window in enumerate(row):
            at_maximum = images[window] == maxout[:, y, x][:, None, None]
            gradient[window] += at_maximum * gz[:, y, x][:, None, None]
    return gradient


def max_pool_rop(images, eval_point, ds, stride, start=0, outputs=0):
    """The sum of `eval_point` over the positions of a window that equal its maximum."""
    images, eval_point = np.asarray(images, "float64"), np.asarray(eval_point, "float64")
    maxout = max_pool(images, ds, stride, start, outputs)
    out = np.empty(maxout.shape)
    for y, row in enumerate(pool_windows(images.shape, ds, stride, start, outputs)):
        for x, window in enumerate(row):
            at_maximum = images[window] == maxout[:, y, x][:, None, None]
            out[:, y, x] = (at_maximum * eval_point[window]).sum(axis=(1, 2))
    return out


def channel_windows(channels, size_f, blocked):
    """For each channel the slice of the channels in its window."""
    begins = [f // size_f * size_f if blocked else f - size_f // 2 for f in range(channels)]
    return [slice(max(begin, 0), min(begin + size_f, channels)) for begin in begins]


def cross_map_sum(images, size_f, blocked, transposed=False):
    """The sum over each channel's window, or, transposed, over the channels in whose windows it lies."""
    images = np.asarray(images, "float64")
    out = np.zeros_like(images)
    for f, window in enumerate(channel_windows(len(images), size_f, blocked)):
        if transposed:
            out[window] += images[f]
        else:
            out[f] = images[window].sum(axis=0)
    return out


def cross_map_norm(images, size_f, add_scale, pow_scale, blocked):
    """(acts, denoms): denoms = 1 + add_scale * sum of squares over the window, acts = images * denoms ** -pow_scale."""
    images = np.asarray(images, "float64")
    denoms = 1 + add_scale * cross_map_sum(images**2, size_f, blocked)
    return images * denoms**-pow_scale, denoms


def cross_map_norm_undo(images, acts, denoms, dout, size_f, add_scale, pow_scale, blocked):
    """(gradient of the images, out_acts) of the gradient `dout` of acts."""
    images, acts, denoms, dout = (np.asarray(array, "float64") for array in (images, acts, denoms, dout))
    out_acts = -2 * add_scale * pow_scale * dout * acts / denoms
    return dout * denoms**-pow_scale + images * cross_map_sum(out_acts, size_f, blocked, True), out_acts


def pool_windows(images_shape, ds, stride, start=0, outputs=0):
    """For each output row and column the index of its window in the images, clipped to them."""
    spans = []
    for size, window, step, first, count in zip(
        images_shape[1:3], as_pair(ds), as_pair(stride), as_pair(start), as_pair(outputs)
    ):
        count = count or output_size(size - first, window, step)
        begins = [first + i * step for i in range(count)]
        spans.append([slice(max(begin, 0), min(begin + window, size)) for begin in begins])
    return [[(slice(None), rows, cols) for cols in spans[1]] for rows in spans[0]]


def _pad_for_windows(images, pad_y, pad_x, out_rows, out_cols, rows, cols, stride_y, stride_x):
    """The images with zeros around them, also where the last window hangs over the end."""
    below = max(0, (out_rows - 1) * stride_y + rows - pad_y - images.shape[1])
    right = max(0, (out_cols - 1) * stride_x + cols - pad_x - images.shape[2])
    return np.pad(images, ((0, 0), (pad_y, max(below, pad_y)), (pad_x, max(right, pad_x)), (0, 0)))
