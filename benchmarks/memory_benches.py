"""The benches of benchmarks.memory_ops: for every op its operands on a shape, its right result, Theano's own op."""

import convnet_ops as ops
import numpy as np
import theano
import theano.tensor as T
from convnet_ops import reference
from theano.compile.mode import Mode
from theano.tensor.signal.pool import pool_2d

from benchmarks.timing import relative_error

ALEXNET = (5, 1e-4, 0.75, False)
# The reference takes its time: results are checked on the first 4 images.
FEW_IMAGES = np.s_[..., :4]
ON_GPU = theano.config.device != "cpu"
RNG = np.random.default_rng()

_compiled = {}


def compiled(key, expression, arrays):
    """The function without inputs of `expression` of these arrays, its outputs left where they are computed.

    It is compiled at the key's first call, on shared variables; later calls give them other values.
    """
    if key not in _compiled:
        # None is the GPU. Sizes, which are vectors, stay on the host.
        targets = [None if ON_GPU and array.ndim == 4 else "cpu" for array in arrays]
        inputs = [theano.shared(array, target=target) for array, target in zip(arrays, targets)]
        outputs = expression(*inputs)
        outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
        if ON_GPU:
            outputs = [output.transfer(None) for output in outputs]
        mode = Mode(linker="cvm_nogc", optimizer="fast_run")
        mode = mode.including("gpuarray") if ON_GPU else mode.excluding("gpuarray")
        outputs = [theano.Out(output, borrow=True) for output in outputs]
        _compiled[key] = inputs, theano.function([], outputs, mode=mode)
    inputs, function = _compiled[key]
    for variable, array in zip(inputs, arrays):
        variable.set_value(array, borrow=True)
    return function


def outputs_over_nan(function):
    """The outputs, computed into memory that held no numbers."""
    for output in function():
        output[...] = np.nan if output.dtype == "float32" else -1
    return function()


class Bench(object):
    """An op in one direction on one shape.

    Attributes
    ----------
    functions : {"convnet_ops" or "theano": compiled function}
    bytes : the fewest that must move: every input and every output of ours once
    few, wanted : a slice of our outputs, and the right values there
    checked : the function whose outputs they are
    request : what to ask of benchmarks.torch_peer, if PyTorch has the op
    """

    def __init__(self, op, direction, shape, *pool):
        self.op, self.direction, self.shape, self.pool = op, direction, shape, pool
        self.functions, self.bytes, self.checked, self.request = {}, 0, None, None
        self.few, self.wanted = FEW_IMAGES, ()

    @property
    def label(self):
        return " ".join(filter(None, [self.op, "/".join(str(size) for size in self.pool)]))

    def compile(self, impl, expression, *arrays):
        return compiled((impl, self.op, self.direction) + self.pool, expression, arrays)

    def add_ours(self, expression, *arrays):
        """Compile our op; its outputs as arrays."""
        self.functions["convnet_ops"] = self.checked = self.compile("convnet_ops", expression, *arrays)
        outputs = [np.array(output) for output in self.checked()]
        self.bytes = sum(array.nbytes for array in list(arrays) + outputs)
        return outputs

    def add_peers(self, expression, *arrays):
        """Compile Theano's op, of the same arrays in bc01; PyTorch has the op too."""
        arrays = [np.ascontiguousarray(array.transpose(3, 0, 1, 2)) for array in arrays]
        self.functions["theano"] = self.compile("theano", expression, *arrays)
        direction = "forward" if self.direction == "forward" else "gradient"
        self.request = dict(zip(("window", "stride"), self.pool), op=self.op, direction=direction, shape=self.shape)

    def errors(self):
        """{impl: relative error} of the slice."""
        outs = outputs_over_nan(self.checked)
        slices = [np.array(out[self.few]) for out in outs]
        errors = {"convnet_ops": max(relative_error(*pair) for pair in zip(slices, self.wanted))}
        if "theano" in self.functions:
            out = np.array(outputs_over_nan(self.functions["theano"])[0][:4])
            errors["theano"] = relative_error(out.transpose(1, 2, 3, 0), self.wanted[0])
        return errors


def normal(*shape):
    return RNG.standard_normal(shape, dtype="float32")


def theanos_pool(mode, window, stride):
    # The windows of these shapes fit, so that nothing is left at the border.
    return lambda x: pool_2d(x, (window, window), stride=(stride, stride), ignore_border=True, mode=mode)


def theanos_pool_grad(mode, window, stride):
    """Of the images, their pooled values, which are given as they are to ours, and the gradient."""

    def gradient(x, top, gz):
        pooled = theanos_pool(mode, window, stride)(x)
        return theano.clone(T.grad(None, x, known_grads={pooled: gz}), {pooled: T.as_tensor_variable(top)})

    return gradient


def max_pool(channels, size, batch, *pool):
    images = normal(channels, size, size, batch)
    forward = Bench("MaxPool", "forward", images.shape, *pool)
    (top,) = forward.add_ours(ops.MaxPool(*pool), images)
    forward.wanted = [reference.max_pool(images[FEW_IMAGES], *pool)]
    forward.add_peers(theanos_pool("max", *pool), images)

    gz = normal(*top.shape)
    backward = Bench("MaxPool", "gradient", images.shape, *pool)
    backward.add_ours(ops.MaxPoolGrad(*pool), images, top, gz)
    backward.wanted = [reference.max_pool_grad(images[FEW_IMAGES], top[FEW_IMAGES], gz[FEW_IMAGES], *pool)]
    backward.add_peers(theanos_pool_grad("max", *pool), images, top, gz)
    return [forward, backward]


def avg_pool(channels, size, batch, *pool):
    images = normal(channels, size, size, batch)
    forward = Bench("AvgPool", "forward", images.shape, *pool)
    (top,) = forward.add_ours(ops.AvgPool(*pool), images)
    forward.wanted = [reference.avg_pool(images[FEW_IMAGES], *pool)]
    forward.add_peers(theanos_pool("average_exc_pad", *pool), images)

    gz = normal(*top.shape)
    backward = Bench("AvgPool", "gradient", images.shape, *pool)
    backward.add_ours(ops.AvgPoolGrad(*pool), gz, np.array(images.shape[1:3]))
    backward.wanted = [reference.avg_pool_grad(gz[FEW_IMAGES], images.shape[1:3], *pool)]
    backward.add_peers(theanos_pool_grad("average_exc_pad", *pool), images, top, gz)
    return [forward, backward]


def stochastic_max_pool(channels, size, batch, *pool):
    images = np.abs(normal(channels, size, size, batch))
    op = ops.StochasticMaxPool(*pool)
    forward = Bench("StochasticMaxPool", "forward", images.shape, *pool)
    top, positions = forward.add_ours(lambda x: op.make_node(x).outputs, images)
    # Every call draws other numbers, but for a given draw. They depend on the place in the whole output: the slice is
    # the first channel, where the places are those of the slice's own output.
    forward.checked = forward.compile("draw 0", lambda x: op.make_node(x, 0).outputs, images)
    forward.few = np.s_[:1]
    forward.wanted = reference.stochastic_max_pool(images[:1], *pool)

    gz = normal(*top.shape)
    backward = Bench("StochasticMaxPool", "gradient", images.shape, *pool)
    backward.add_ours(ops.StochasticMaxPoolGrad(*pool), positions, gz, np.array(images.shape[1:3]))
    backward.few = np.s_[:1]
    backward.wanted = [reference.stochastic_max_pool_grad(positions[:1], gz[:1], images.shape[1:3], *pool)]
    return [forward, backward]


def weighted_max_pool(channels, size, batch, *pool):
    images = np.abs(normal(channels, size, size, batch))
    forward = Bench("WeightedMaxPool", "forward", images.shape, *pool)
    weighted, sums = forward.add_ours(lambda x: ops.WeightedMaxPool(*pool).make_node(x).outputs, images)
    forward.wanted = reference.weighted_max_pool(images[FEW_IMAGES], *pool)

    gz = normal(*weighted.shape)
    backward = Bench("WeightedMaxPool", "gradient", images.shape, *pool)
    backward.add_ours(ops.WeightedMaxPoolGrad(*pool), images, weighted, sums, gz)
    backward.wanted = [reference.weighted_max_pool_grad(images[FEW_IMAGES], gz[FEW_IMAGES], *pool)]
    return [forward, backward]


def prob_max_pool(channels, size, batch, ds):
    z = normal(channels, size, size, batch)
    top_down = normal(channels, -(-size // ds), -(-size // ds), batch)
    forward = Bench("ProbMaxPool", "forward", z.shape, ds)
    forward.add_ours(ops.ProbMaxPool(ds), z, top_down)
    forward.wanted = reference.prob_max_pool(z[FEW_IMAGES], top_down[FEW_IMAGES], ds)

    arrays = z, top_down, normal(*top_down.shape), normal(*z.shape)
    backward = Bench("ProbMaxPool", "gradient", z.shape, ds)
    backward.add_ours(ops.ProbMaxPoolGrad(ds), *arrays)
    backward.wanted = reference.prob_max_pool_grad(*[array[FEW_IMAGES] for array in arrays], ds)
    return [forward, backward]


def theanos_norm(x):
    """Normalisation as users of Theano write it, on bc01."""
    size, alpha, beta, _ = ALEXNET
    squares, half = T.sqr(x), size // 2
    batch, channels, rows, cols = x.shape
    padded = T.alloc(np.float32(0), batch, channels + 2 * half, rows, cols)
    padded = T.set_subtensor(padded[:, half : half + channels], squares)
    scale = sum(padded[:, i : i + channels] for i in range(size))
    return x / (1 + np.float32(alpha) * scale) ** np.float32(beta)


def cross_map_norm(channels, size, batch):
    # Values of a size that makes the denominators differ from 1.
    images, dout = 30 * normal(channels, size, size, batch), normal(channels, size, size, batch)
    acts, denoms = reference.cross_map_norm(images[FEW_IMAGES], *ALEXNET)
    forward = Bench("CrossMapNorm", "forward", images.shape)
    our_acts, our_denoms = forward.add_ours(ops.CrossMapNorm(*ALEXNET), images)
    forward.wanted = [acts, denoms]
    forward.add_peers(theanos_norm, images)

    backward = Bench("CrossMapNorm", "Undo", images.shape)
    backward.add_ours(ops.CrossMapNormUndo(*ALEXNET), images, our_acts, our_denoms, dout)
    backward.wanted = reference.cross_map_norm_undo(images[FEW_IMAGES], acts, denoms, dout[FEW_IMAGES], *ALEXNET)
    backward.add_peers(lambda x, g: T.grad(None, x, known_grads={theanos_norm(x): g}), images, dout)
    return [forward, backward]


def shuffle_dims(channels, size, batch):
    images = normal(batch, channels, size, size)
    shuffled = np.ascontiguousarray(images.transpose(1, 2, 3, 0))
    benches = []
    for to, source, target in (("c01b", images, shuffled), ("bc01", shuffled, images)):
        bench = Bench("ShuffleDims", "to " + to, shuffled.shape)
        bench.add_ours(ops.ShuffleDims(to), source)
        bench.few, bench.wanted = np.s_[:4], [target[:4]]
        benches.append(bench)
    return benches


def fused_acts_grad(channels, size, batch):
    acts, gacts = np.maximum(normal(channels, size, size, batch), 0), normal(channels, size, size, batch)
    bench = Bench("FusedActsGrad", "relu", acts.shape)
    bench.add_ours(lambda x, g: ops.FusedActsGrad("relu").make_node(x, g).outputs, acts, gacts)
    gz = np.where(acts[:4] > 0, gacts[:4], 0).astype("float64")
    bench.few, bench.wanted = np.s_[:4], [gz, gz.sum(axis=(1, 2, 3))]
    return [bench]


BUILDERS = {
    "ShuffleDims": shuffle_dims,
    "FusedActsGrad": fused_acts_grad,
    "MaxPool": max_pool,
    "AvgPool": avg_pool,
    "StochasticMaxPool": stochastic_max_pool,
    "WeightedMaxPool": weighted_max_pool,
    "ProbMaxPool": prob_max_pool,
    "CrossMapNorm": cross_map_norm,
}
