"""The code of the 2014 text, quoted one by one with its imports, gives the numbers of reference.py on CPU and GPU.

Theano's GPU, where there is one, is its default device here, as it was for the readers of that text.
"""

import textwrap

import numpy as np
import theano
import theano.tensor as T
from convnet_ops import FilterActs, ImageActs, MaxPool, WeightActs, reference
from convnet_ops.opt import GPU_TWINS
from scipy.signal import correlate
from theano.compile.mode import Mode

from tests.comparison import assert_close, assert_identical
from tests.processors import gpu_or_skip

DEFINITIONS = """
import theano.tensor as T
input = T.tensor4('input')
filters = T.tensor4('filters')
"""

# In the text this line is cut off after its comma; how it goes on is seen in its LeNet.
CONV2D = """
from theano.tensor.nnet import conv

out = conv.conv2d(input, filters, filter_shape=filter_shape,
                  image_shape=image_shape)
"""

IMPORTS = """
from pylearn2.sandbox.cuda_convnet.filter_acts import FilterActs
from theano.sandbox.cuda.basic_ops import gpu_contiguous
"""

FILTER_ACTS = """
conv_op = FilterActs()
contiguous_input = gpu_contiguous(input)
contiguous_filters = gpu_contiguous(filters)
out = conv_op(contiguous_input, contiguous_filters)
"""

SHUFFLED = """
conv_op = FilterActs()
input_shuffled = input.dimshuffle(1, 2, 3, 0) # bc01 to c01b
filters_shuffled = filters.dimshuffle(1, 2, 3, 0) # bc01 to c01b
contiguous_input = gpu_contiguous(input_shuffled)
contiguous_filters = gpu_contiguous(filters_shuffled)
out_shuffled = conv_op(contiguous_input, contiguous_filters)
out = out_shuffled.dimshuffle(3, 0, 1, 2) # c01b to bc01
"""

FLIPPED = """
conv_op = FilterActs()
input_shuffled = input.dimshuffle(1, 2, 3, 0) # bc01 to c01b
filters_shuffled = filters.dimshuffle(1, 2, 3, 0) # bc01 to c01b
filters_flipped = filters_shuffled[:, ::-1, ::-1, :] # flip rows and columns
contiguous_input = gpu_contiguous(input_shuffled)
contiguous_filters = gpu_contiguous(filters_flipped)
out_shuffled = conv_op(contiguous_input, contiguous_filters)
out = out_shuffled.dimshuffle(3, 0, 1, 2) # c01b to bc01
"""

PARTIAL_SUM = """
conv_op = FilterActs(partial_sum=1)
contiguous_input = gpu_contiguous(input)
contiguous_filters = gpu_contiguous(filters)
out = conv_op(contiguous_input, contiguous_filters)
"""

STRIDE = """
conv_op = FilterActs(partial_sum=1, stride=2)
contiguous_input = gpu_contiguous(input)
contiguous_filters = gpu_contiguous(filters)
out = conv_op(contiguous_input, contiguous_filters)
"""

PAD = """
conv_op = FilterActs(partial_sum=1, pad=filter_size - 1)
contiguous_input = gpu_contiguous(input)
contiguous_filters = gpu_contiguous(filters)
out = conv_op(contiguous_input, contiguous_filters)
"""

MAX_POOL_2D = """
from theano.tensor.signal import downsample

out = downsample.max_pool_2d(input, ds=(2, 2))
"""

MAX_POOL = """
from pylearn2.sandbox.cuda_convnet.pool import MaxPool
from theano.sandbox.cuda.basic_ops import gpu_contiguous

pool_op = MaxPool(ds=2, stride=2)
contiguous_input = gpu_contiguous(input)
out = pool_op(contiguous_input)
"""

LENET_IMPORTS = """
# from theano.tensor.signal import downsample
# from theano.tensor.nnet import conv
from theano.sandbox.cuda.basic_ops import gpu_contiguous
from pylearn2.sandbox.cuda_convnet.filter_acts import FilterActs
from pylearn2.sandbox.cuda_convnet.pool import MaxPool
"""

LENET_CONVOLUTION = """
# convolve input feature maps with filters
# conv_out = conv.conv2d(input=input, filters=self.W,
#         filter_shape=filter_shape, image_shape=image_shape)
input_shuffled = input.dimshuffle(1, 2, 3, 0) # bc01 to c01b
filters_shuffled = self.W.dimshuffle(1, 2, 3, 0) # bc01 to c01b
conv_op = FilterActs(stride=1, partial_sum=1)
contiguous_input = gpu_contiguous(input_shuffled)
contiguous_filters = gpu_contiguous(filters_shuffled)
conv_out_shuffled = conv_op(contiguous_input, contiguous_filters)
"""

LENET_POOLING = """
# downsample each feature map individually, using maxpooling
# pooled_out = downsample.max_pool_2d(input=conv_out,
#                                     ds=poolsize, ignore_border=True)
pool_op = MaxPool(ds=poolsize[0], stride=poolsize[0])
pooled_out_shuffled = pool_op(conv_out_shuffled)
pooled_out = pooled_out_shuffled.dimshuffle(3, 0, 1, 2) # c01b to bc01
"""

LENET_SIGNATURE = """
# def evaluate_lenet5(learning_rate=0.1, n_epochs=200,
#                     dataset='mnist.pkl.gz',
#                     nkerns=[20, 50], batch_size=500):
def evaluate_lenet5(learning_rate=0.1, n_epochs=200,
                    nkerns=[32, 64], batch_size=500):
"""

# What the text does not change, of a layer and of the training. PLAIN_LAYER is the layer before its changes, unflipped.
LAYER = """
class LeNetConvPoolLayer(object):
    def __init__(self, W, b, input, poolsize=(2, 2)):
        self.W, self.b = W, b
%s
        self.output = T.tanh(pooled_out + self.b.dimshuffle('x', 0, 'x', 'x'))
"""

PLAIN_LAYER = LAYER % """
        conv_out = T.nnet.conv2d(input, self.W, filter_flip=False)
        pooled_out = pool_2d(conv_out, ws=poolsize, ignore_border=True)
"""

TRAINING = """
    return train(LeNetConvPoolLayer, learning_rate, nkerns, 4)
"""

IMAGES, FILTERS = (5, 3, 8, 8), (16, 3, 3, 3)  # bc01


def setup_module():
    import convnet_ops.compat.pylearn2 as door

    door.install()


def teardown_module():
    import convnet_ops.compat.pylearn2 as door

    door.uninstall()


def run(*fragments, **names):
    """The names that there are after running pieces of code one after the other, beginning with `names`."""
    with theano.change_flags(floatX="float32"):
        for fragment in fragments:
            exec(compile(fragment, "<the text of 2014>", "exec"), names)
    return names


def function(inputs, outputs, device, ops):
    """A compiled function whose graph is seen to have each of `ops`, on that device."""
    mode = Mode(linker="cvm", optimizer="fast_run")
    mode = mode.including("gpuarray") if device == "gpu" else mode.excluding("gpuarray")
    compiled = theano.function(inputs, outputs, mode=mode, on_unused_input="ignore")
    types = {type(node.op) for node in compiled.maker.fgraph.apply_nodes}
    for op in ops:
        wanted = GPU_TWINS[op] if device == "gpu" else op
        assert wanted in types, "no %s in the graph: %s" % (wanted.__name__, types)
    return compiled


def data(layout):
    """Random images and filters in a layout, and both in c01b."""
    rng = np.random.RandomState()
    images, filters = (rng.standard_normal(shape).astype("float32") for shape in (IMAGES, FILTERS))
    in_c01b = [np.ascontiguousarray(array.transpose(1, 2, 3, 0)) for array in (images, filters)]
    return ((images, filters) if layout == "bc01" else in_c01b), in_c01b


def test_fragments():
    for device in ("cpu", "gpu"):
        for check in (
            check_conv2d,
            check_filter_acts,
            check_shuffled,
            check_flipped,
            check_partial_sum,
            check_stride,
            check_pad,
            check_max_pool_2d,
            check_max_pool,
            check_lenet,
        ):
            yield on_device, check, device


def on_device(check, device):
    if device == "gpu":
        gpu_or_skip()
    check(device)


def compute(names, arrays, device, ops=(FilterActs,)):
    return np.array(function([names["input"], names["filters"]], names["out"], device, ops)(*arrays))


def assert_reference(out, reference_out, what):
    assert_close(out, reference_out, int(np.prod(FILTERS[1:])), what)


def to_bc01(array):
    return array.transpose(3, 0, 1, 2)


def check_conv2d(device):
    arrays, (images, filters) = data("bc01")
    names = run(DEFINITIONS, CONV2D, filter_shape=FILTERS, image_shape=IMAGES)
    expected = reference.filter_acts(images, filters[:, ::-1, ::-1])
    assert_reference(compute(names, arrays, device, ()), to_bc01(expected), "conv2d")


def check_filter_acts(device):
    arrays, (images, filters) = data("c01b")
    names = run(DEFINITIONS, IMPORTS, FILTER_ACTS)
    assert_reference(compute(names, arrays, device), reference.filter_acts(images, filters), "FilterActs")


def check_shuffled(device):
    arrays, (images, filters) = data("bc01")
    names = run(DEFINITIONS, IMPORTS, SHUFFLED)
    assert_reference(compute(names, arrays, device), to_bc01(reference.filter_acts(images, filters)), "shuffled")


def check_flipped(device):
    """It equals conv2d: both in one function."""
    arrays, (images, filters) = data("bc01")
    theirs = run(DEFINITIONS, CONV2D, filter_shape=FILTERS, image_shape=IMAGES)
    names = run(IMPORTS, FLIPPED, input=theirs["input"], filters=theirs["filters"])
    inputs = [names["input"], names["filters"]]
    out, conv2d = function(inputs, [names["out"], theirs["out"]], device, [FilterActs])(*arrays)
    expected = to_bc01(reference.filter_acts(images, filters[:, ::-1, ::-1]))
    assert_reference(np.array(out), expected, "flipped")
    assert_reference(np.array(conv2d), expected, "conv2d")


def check_partial_sum(device):
    """With the gradients, of which that of the filters has the partial sums."""
    arrays, (images, filters) = data("c01b")
    names = run(DEFINITIONS, IMPORTS, PARTIAL_SUM)
    assert names["conv_op"].partial_sum == 1
    inputs = [names["input"], names["filters"]]
    gradients = T.grad((names["out"] ** 2).sum() / 2, inputs)
    ops = [FilterActs, ImageActs, WeightActs]
    out, of_images, of_filters = map(np.array, function(inputs, [names["out"]] + gradients, device, ops)(*arrays))
    expected = reference.filter_acts(images, filters)
    assert_reference(out, expected, "partial_sum=1")
    # The gradient of the output is the output itself, which is rounded too: twice the terms' rounding.
    assert_close(of_images, reference.img_acts(expected, filters), 10000, "gradient of the images")
    assert_close(of_filters, reference.weight_acts(images, expected, FILTERS[2:]), 10000, "gradient of the filters")


def check_stride(device):
    """ceil((8 - 3) / 2) + 1 = 4 rows, where the floor would give 3."""
    arrays, (images, filters) = data("c01b")
    out = compute(run(DEFINITIONS, IMPORTS, STRIDE), arrays, device)
    assert out.shape == (16, 4, 4, 5), out.shape
    assert_reference(out, reference.filter_acts(images, filters, stride=2), "stride=2")


def check_pad(device):
    """A full convolution: n + f - 1 rows, as SciPy has it."""
    arrays, (images, filters) = data("c01b")
    out = compute(run(DEFINITIONS, IMPORTS, PAD, filter_size=FILTERS[2]), arrays, device)
    assert out.shape == (16, 10, 10, 5), out.shape
    x, w = images.astype("float64"), filters.astype("float64")
    full = np.zeros(out.shape)
    for f in range(16):
        for n in range(5):
            full[f, :, :, n] = sum(correlate(x[c, :, :, n], w[c, :, :, f], mode="full") for c in range(3))
    assert_reference(out, full, "pad=filter_size - 1")


def check_max_pool_2d(device):
    """On 7 x 7: Theano's default of 2014 counts the window at the border."""
    images = np.random.standard_normal((4, 3, 7, 7)).astype("float32")
    out = compute(run(DEFINITIONS, MAX_POOL_2D), [images, images], device, ())
    assert_identical(out, to_bc01(reference.max_pool(images.transpose(1, 2, 3, 0), 2, 2)), "max_pool_2d")


def check_max_pool(device):
    images = np.random.standard_normal((3, 7, 7, 4)).astype("float32")
    out = compute(run(DEFINITIONS, MAX_POOL), [images, images], device, [MaxPool])
    assert_identical(out, reference.max_pool(images, 2, 2), "MaxPool")


def check_lenet(device):
    """Costs and gradients of three steps are those of the layer before the changes, computed by Theano in float64."""
    lines = textwrap.indent(LENET_CONVOLUTION + LENET_POOLING, 8 * " ")
    ours = run(
        LENET_IMPORTS,
        LAYER % lines,
        LENET_SIGNATURE + TRAINING,
        T=T,
        train=lambda *arguments: train(device, "float32", [FilterActs, ImageActs, WeightActs, MaxPool], *arguments),
    )["evaluate_lenet5"]()
    plain = run(
        "from theano.tensor.signal.pool import pool_2d",
        PLAIN_LAYER,
        LENET_SIGNATURE + TRAINING,
        T=T,
        train=lambda *arguments: train("cpu", "float64", [], *arguments),
    )["evaluate_lenet5"]()
    for step, (results, expected) in enumerate(zip(ours, plain)):
        for index, pair in enumerate(zip(results, expected)):
            # Two layers round, not one op.
            assert_close(*pair, 10000, "step %d, output %d" % (step, index))
    assert plain[-1][0] < plain[0][0], [float(results[0]) for results in plain]


def train(device, dtype, ops, layer, learning_rate, nkerns, batch_size):
    """[cost, gradients ...] of each of three steps of two layers and a softmax, on made-up images of 16 x 16."""
    # The seed is fixed: in a window with two almost equal maxima float32 and float64 may see another one, and then a
    # gradient goes another way, by right.
    rng = np.random.RandomState(3)

    def made_up(*shape, scale=1.0):
        return (scale * rng.standard_normal(shape)).astype("float32").astype(dtype)

    sizes = [(nkerns[0], 1, 5, 5), (nkerns[0],), (nkerns[1], nkerns[0], 5, 5), (nkerns[1],), (nkerns[1], 10)]
    parameters = [theano.shared(made_up(*size, scale=0.1)) for size in sizes]
    x, y = T.TensorType(dtype, (False,) * 4)("x"), T.ivector("y")
    first = layer(parameters[0], parameters[1], x)
    second = layer(parameters[2], parameters[3], first.output)
    scores = T.dot(second.output.flatten(2), parameters[4])
    cost = -T.log(T.nnet.softmax(scores))[T.arange(y.shape[0]), y].mean()
    gradients = T.grad(cost, parameters)
    step = function([x, y], [cost] + gradients, device, ops)
    images, labels = made_up(batch_size, 1, 16, 16), np.arange(batch_size).astype("int32")
    results = []
    for _ in range(3):
        results.append([np.array(value) for value in step(images, labels)])
        for parameter, gradient in zip(parameters, results[-1][1:]):
            parameter.set_value((parameter.get_value() - learning_rate * gradient).astype(dtype))
    return results
