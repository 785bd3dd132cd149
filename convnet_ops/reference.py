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


def activate(values, activation, slope=0.0):
    """The activations of FusedFilterActs."""
    values = np.asarray(values, "float64")
    if activation in ("relu", "leaky_relu"):
        return np.where(values < 0, slope * values, values)
    if activation == "tanh":
        return np.tanh(values)
    if activation == "sigmoid":
        return 1 / (1 + np.exp(-values))
    return values


def fused_filter_acts(images, filters, bias, activation="linear", slope=0.0, **options):
    """activation(filter_acts(images, filters) + bias)."""
    biased = filter_acts(images, filters, **options) + np.asarray(bias, "float64")[:, None, None, None]
    return activate(biased, activation, slope)


def fused_acts_grad(acts, gacts, activation="linear", slope=0.0, at_zero=0.0):
    """gacts times the derivative of the activation whose values are acts, and the sum of that for each filter."""
    acts, gacts = np.asarray(acts, "float64"), np.asarray(gacts, "float64")
    derivative = np.ones_like(acts)
    if activation in ("relu", "leaky_relu"):
        below = np.signbit(acts)
        derivative[below] = slope
        derivative[(acts == 0) & ~below] = at_zero
    if activation == "tanh":
        derivative = 1 - acts**2
    if activation == "sigmoid":
        derivative = acts * (1 - acts)
    gz = gacts * derivative
    return gz, gz.sum(axis=(1, 2, 3))


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


def shuffle_dims(x, to, flip=False):
    """The axes of a bc01 array in the order c01b, or the other way; with flip rows and columns run backwards."""
    rows, cols = (2, 3) if to == "c01b" else (1, 2)
    x = np.asarray(x, "float64")
    x = np.flip(np.flip(x, rows), cols) if flip else x
    return x.transpose({"c01b": (1, 2, 3, 0), "bc01": (3, 0, 1, 2)}[to])


def max_pool(images, ds, stride, start=0, outputs=0):
    """The maximum of each window; NaN if the window has one."""
    images = np.asarray(images, "float64")
    return _pooled(images, lambda window: window.max(axis=(1, 2)), ds, stride, start, outputs)


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


def avg_pool(images, ds, stride, start=0, outputs=0):
    """The average of each window, over its pixels inside the image."""
    images = np.asarray(images, "float64")
    return _pooled(images, lambda window: window.mean(axis=(1, 2)), ds, stride, start, outputs)


def sum_pool(images, ds, stride, start=0, outputs=0):
    """The sum of each window."""
    images = np.asarray(images, "float64")
    return _pooled(images, lambda window: window.sum(axis=(1, 2)), ds, stride, start, outputs)


def avg_pool_grad(gz, output_shape, ds, stride, start=0, outputs=0, average=True):
    """Every pixel gets the gradients of its windows, each over the window's pixels inside the image if `average`."""
    gz = np.asarray(gz, "float64")
    gradient = np.zeros((gz.shape[0],) + tuple(output_shape) + (gz.shape[3],))
    for y, row in enumerate(pool_windows(gradient.shape, ds, stride, start, outputs)):
        for x, window in enumerate(row):
            count = gradient[window][0, :, :, 0].size if average else 1
            gradient[window] += gz[:, y, x][:, None, None] / count
    return gradient


def philox(counter, key):
    """Philox 4x32-10 of Salmon et al. 2011: 4 random words of 4 words of counter and 2 of key, all in uint64."""
    mask, words = np.uint64(0xFFFFFFFF), [np.asarray(word, "uint64") for word in counter]
    low, high = (np.uint64(word) for word in key)
    for _ in range(10):
        one, other = np.uint64(0xD2511F53) * words[0], np.uint64(0xCD9E8D57) * words[2]
        words = [
            (other >> np.uint64(32)) ^ words[1] ^ low,
            other & mask,
            (one >> np.uint64(32)) ^ words[3] ^ high,
            one & mask,
        ]
        low, high = (low + np.uint64(0x9E3779B9)) & mask, (high + np.uint64(0xBB67AE85)) & mask
    return words


def unit_intervals(shape, seed, draw):
    """For element e of an array of that shape word e % 4 of the counter (e // 4, draw), its upper 24 bits in [0, 1)."""
    size = int(np.prod(shape))
    blocks = np.arange((size + 3) // 4, dtype="uint64")
    words = philox([blocks & 0xFFFFFFFF, blocks >> 32, draw & 0xFFFFFFFF, draw >> 32], [seed & 0xFFFFFFFF, seed >> 32])
    drawn = np.stack(words, axis=1).reshape(-1)[:size] >> np.uint64(8)
    return (drawn * 2.0**-24).reshape(shape)


def stochastic_max_pool(images, ds, stride, start=0, outputs=0, seed=1234, draw=0):
    """(pooled, positions): one value of each window, drawn in proportion to it, and its number in the window.

    Unlike the rest of this file it computes in the images' dtype, adding in the window's order: on which value a random
    number falls must not depend on rounding.
    """
    images = np.asarray(images)
    windows = pool_windows(images.shape, ds, stride, start, outputs)
    shape = images.shape[0], len(windows), len(windows[0]), images.shape[3]
    pooled, positions = np.zeros(shape, images.dtype), np.full(shape, -1, "int32")
    chances = unit_intervals(shape, seed, draw).astype(images.dtype)
    for y, row in enumerate(windows):
        for x, window in enumerate(row):
            top, left = (first + i * step for i, first, step in zip((y, x), as_pair(start), as_pair(stride)))
            pixels = [(i, j) for i in range(*window[1].indices(2**31)) for j in range(*window[2].indices(2**31))]
            weights = _weights(np.stack([images[:, i, j] for i, j in pixels]))
            total = np.zeros_like(weights[0])
            for weight in weights:
                total += weight
            pooled[:, y, x] = np.where(np.isnan(total), total, 0)
            before = np.zeros_like(total)
            for (i, j), weight in zip(pixels, weights):
                drawn = (weight > 0) & (before <= chances[:, y, x] * total)
                pooled[:, y, x] = np.where(drawn, images[:, i, j], pooled[:, y, x])
                number = (i - top) * as_pair(ds)[1] + j - left
                positions[:, y, x] = np.where(drawn, number, positions[:, y, x])
                before += weight
    return pooled, positions


def _weights(values):
    """What the values of windows (pixel, channel, image) weigh.

    Negative ones weigh nothing; infinite ones 1, and beside them nothing else does; sums must not overflow.
    """
    weights = np.where(values < 0, values.dtype.type(0), values)
    with np.errstate(over="ignore", invalid="ignore"):
        too_much = np.isposinf(np.add.reduce(weights))
    infinite = np.isposinf(values)
    weights = np.where(too_much, weights * values.dtype.type(2.0**-64), weights)
    return np.where(too_much & infinite.any(axis=0), infinite.astype(values.dtype), weights)


def stochastic_max_pool_grad(positions, gz, output_shape, ds, stride, start=0, outputs=0):
    """Every pixel gets the gradients of the windows that drew it."""
    gz = np.asarray(gz, "float64")
    gradient = np.zeros((gz.shape[0],) + tuple(output_shape) + (gz.shape[3],))
    for output, pixel in _drawn_pixels(positions, ds, stride, start):
        gradient[pixel] += gz[output]
    return gradient


def stochastic_max_pool_rop(eval_point, positions, ds, stride, start=0, outputs=0):
    """The direction where each window drew."""
    out = np.zeros(positions.shape)
    for output, pixel in _drawn_pixels(positions, ds, stride, start):
        out[output] = eval_point[pixel]
    return out


def _drawn_pixels(positions, ds, stride, start):
    """(index of an output, index of the pixel that it drew)."""
    for channel, y, x, image in np.argwhere(np.asarray(positions) >= 0):
        row, col = divmod(int(positions[channel, y, x, image]), as_pair(ds)[1])
        row += as_pair(start)[0] + y * as_pair(stride)[0]
        col += as_pair(start)[1] + x * as_pair(stride)[1]
        yield (channel, y, x, image), (channel, row, col, image)


def weighted_max_pool(images, ds, stride, start=0, outputs=0):
    """(weighted, sums): the sum of squares over the sum of each window, negative values counting as 0; the sum."""
    weights = np.maximum(np.asarray(images, "float64"), 0)
    sums = sum_pool(weights, ds, stride, start, outputs)
    squares = sum_pool(weights**2, ds, stride, start, outputs)
    return np.divide(squares, sums, out=np.zeros_like(sums), where=sums != 0), sums


def weighted_max_pool_grad(images, gz, ds, stride, start=0, outputs=0):
    """(2 * a - weighted) / sum for each value a >= 0 of a window, times the window's gradient."""
    images, gz = np.asarray(images, "float64"), np.asarray(gz, "float64")
    weighted, sums = weighted_max_pool(images, ds, stride, start, outputs)
    gradient = np.zeros(images.shape)
    for y, row in enumerate(pool_windows(images.shape, ds, stride, start, outputs)):
        for x, window in enumerate(row):
            total, output, top = (array[:, y, x][:, None, None] for array in (sums, weighted, gz))
            scaled = np.divide(top, total, out=np.zeros_like(top), where=total != 0)
            gradient[window] += np.where(
                (images[window] < 0) | (scaled == 0), 0, scaled * (2 * images[window] - output)
            )
    return gradient


def prob_max_pool(z, top_down, ds, start=0, outputs=0):
    """(p, h): the probabilities that any pixel of each block is on, and that each pixel is."""
    z, top_down = np.asarray(z, "float64"), np.asarray(top_down, "float64")
    p, h = np.empty(top_down.shape), np.zeros(z.shape)
    for y, row in enumerate(pool_windows(z.shape, ds, ds, start, outputs)):
        for x, window in enumerate(row):
            exponents = np.maximum(z[window].max(axis=(1, 2)), -top_down[:, y, x])[:, None, None]
            pixels = np.exp(z[window] - exponents)
            off = np.exp(-top_down[:, y, x] - exponents[:, 0, 0])
            denom = off + pixels.sum(axis=(1, 2))
            h[window] = pixels / denom[:, None, None]
            p[:, y, x] = pixels.sum(axis=(1, 2)) / denom
    return p, h


def prob_max_pool_grad(z, top_down, gp, gh, ds, start=0, outputs=0):
    """(gradient of z, gradient of top_down) of the gradients of p and h."""
    gp, gh = np.asarray(gp, "float64"), np.asarray(gh, "float64")
    p, h = prob_max_pool(z, top_down, ds, start, outputs)
    weighted = sum_pool(h * gh, ds, ds, start, outputs)
    inner = avg_pool_grad((1 - p) * gp - weighted, h.shape[1:3], ds, ds, start, outputs, average=False)
    return h * (gh + inner), (1 - p) * (p * gp + weighted)


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


def _pooled(images, reduce, ds, stride, start, outputs):
    """`reduce` of each window."""
    windows = pool_windows(images.shape, ds, stride, start, outputs)
    out = np.empty((images.shape[0], len(windows), len(windows[0]), images.shape[3]))
    for y, row in enumerate(windows):
        for x, window in enumerate(row):
            out[:, y, x] = reduce(images[window])
    return out


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
