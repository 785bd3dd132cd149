"""Lasagne's cuda-convnet layers: the numbers of reference.py, and training as with Lasagne's plain layers.

Theano's GPU, where there is one, is its default device here, as it is for users of device=cuda.
"""

import importlib
import importlib.util
import inspect
from unittest import SkipTest

import numpy as np
import theano
import theano.tensor as T
from convnet_ops import ImageActs, MaxPool, WeightActs, reference
from convnet_ops.opt import GPU_TWINS
from theano.gpuarray.type import gpuarray_shared_constructor

from tests.comparison import assert_close, assert_identical
from tests.processors import gpu_or_skip
from tests.test_opt import gpu_mode, op_types

DEVICES = ("cpu", "gpu")


def setup_module():
    if importlib.util.find_spec("lasagne") is None:
        raise SkipTest("Lasagne is not installed")
    door().install()


def teardown_module():
    door().uninstall()


def door():
    return importlib.import_module("convnet_ops.compat.lasagne")


def lasagne():
    return importlib.import_module("lasagne")


# Shape of the images in c01b, arguments of Conv2DCCLayer.
CONVOLUTIONS = [
    ((3, 7, 6, 4), dict(num_filters=5, filter_size=3)),
    # Each limit of the old layer broken: channels, filters, and everything that had to be square.
    ((5, 8, 7, 3), dict(num_filters=4, filter_size=(3, 2), stride=(2, 1), pad=(1, 0), partial_sum=7)),
    # A window would hang over the edge: FilterActs alone has 4 x 4 of them.
    ((2, 8, 8, 4), dict(num_filters=3, filter_size=3, stride=2, flip_filters=True)),
    ((2, 8, 8, 4), dict(num_filters=3, filter_size=2, stride=3, pad="valid", b=None)),
    ((4, 6, 5, 4), dict(num_filters=16, filter_size=5, pad="same", partial_sum=0)),
    # An even size: 1 pixel on each side, and the output is smaller by 1.
    ((2, 6, 6, 4), dict(num_filters=3, filter_size=4, pad="same", partial_sum=None)),
    ((2, 4, 5, 4), dict(num_filters=3, filter_size=(2, 3), pad="full", untie_biases=True, nonlinearity=None)),
    # Sizes of 1, of which Lasagne's later sources make broadcastable variables.
    ((1, 4, 4, 1), dict(num_filters=1, filter_size=1)),
    ((4, 5, 5, 4), dict(num_filters=6, filter_size=3, num_groups=2)),
]

# Shape of the images in c01b, arguments of MaxPool2DCCLayer.
POOLINGS = [
    ((3, 6, 6, 4), dict(pool_size=2)),
    ((2, 7, 6, 3), dict(pool_size=3, stride=2)),
    ((2, 7, 8, 4), dict(pool_size=(3, 2), stride=(1, 3))),
    ((2, 7, 7, 4), dict(pool_size=3, stride=2, ignore_border=False, pad=0)),
    # Windows would hang over the edge of the columns.
    ((2, 9, 8, 4), dict(pool_size=3, stride=2, ignore_border=True, pad=(1, 0))),
    # The window is larger than the image.
    ((2, 2, 5, 4), dict(pool_size=3)),
]


def random(*shape):
    return np.random.standard_normal(shape).astype("float32")


def to_bc01(array):
    return array.transpose(3, 0, 1, 2)


def share(array, device):
    """A shared variable on the host, or on Theano's default GPU, as theano.shared makes it with device=cuda."""
    return gpuarray_shared_constructor(array) if device == "gpu" else theano.shared(array, target="cpu")


def compiled(inputs, outputs, device, updates=None):
    mode = gpu_mode() if device == "gpu" else theano.compile.mode.Mode("cvm", "fast_run").excluding("gpuarray")
    function = theano.function(inputs, outputs, mode=mode, updates=updates)
    left = set(op_types(function)) & set(GPU_TWINS)
    assert device == "cpu" or not left, "on the host are %s" % left
    return function


def run_layers(layers, images, device):
    """The outputs of single layers, each for images of its own, from one function."""
    with theano.change_flags(floatX="float32"):
        inputs = [lasagne().layers.InputLayer(array.shape).input_var for array in images]
        outputs = [layer.get_output_for(variable, deterministic=True) for layer, variable in zip(layers, inputs)]
        return compiled(inputs, outputs, device)(*images)


def test_convolutions():
    for device in DEVICES:
        yield check_convolutions, device


def check_convolutions(device):
    if device == "gpu":
        gpu_or_skip()
    layers, images, expected = [], [], []
    for shape, options in CONVOLUTIONS:
        for dimshuffle in (True, False):
            layer, array, out = convolution(shape, options, dimshuffle, device)
            layers.append(layer)
            images.append(array)
            expected.append(out)
    results = run_layers(layers, images, device)
    for layer, result, out, case in zip(layers, results, expected, [c for c in CONVOLUTIONS for _ in (0, 1)]):
        what = "%s, dimshuffle=%s, on %s" % (case, layer.dimshuffle, device)
        assert layer.output_shape == result.shape, "%s: %s, said %s" % (what, result.shape, layer.output_shape)
        assert_close(result, out, 200, what)


def convolution(shape, options, dimshuffle, device):
    """A Conv2DCCLayer, an input of it, and the output that it should have."""
    images = random(*shape)
    count, size = options["num_filters"], reference.as_pair(options["filter_size"])
    groups = options.get("num_groups", 1)
    filters = random(shape[0] // groups, size[0], size[1], count)
    pad = options.get("pad", 0)
    if pad == "same":
        pad = tuple((rows - 1) // 2 for rows in size)
    stride = options.get("stride", 1)
    flip = -1 if options.get("flip_filters") else 1
    (pad_y, pad_x), strides = reference.conv_geometry(pad, stride, size)
    rows, cols = ((shape[i + 1] + 2 * (pad_y, pad_x)[i] - size[i]) // strides[i] + 1 for i in (0, 1))
    out = reference.filter_acts(images, filters[:, ::flip, ::flip], (pad_y, pad_x), stride, groups)[:, :rows, :cols]
    arguments = dict(options)
    if options.get("b", 0) is not None:
        biases = random(count, rows, cols) if options.get("untie_biases") else random(count)
        out = out + biases.reshape(biases.shape + (1,) * (4 - biases.ndim))
        arguments["b"] = share(biases, device)
    if "nonlinearity" not in options:
        out = np.maximum(out, 0)
    order = to_bc01 if dimshuffle else np.asarray
    arguments["W"] = share(np.ascontiguousarray(order(filters)), device)
    images, out = np.ascontiguousarray(order(images)), order(out)
    return door().Conv2DCCLayer(images.shape, dimshuffle=dimshuffle, **arguments), images, out


def test_poolings():
    for device in DEVICES:
        yield check_poolings, device


def check_poolings(device):
    """Pooling, and the layers that shuffle, whose output is the input in the other order."""
    if device == "gpu":
        gpu_or_skip()
    layers, images, expected = [], [], []
    for shape, options in POOLINGS:
        array = random(*shape)
        ds, pad = reference.as_pair(options["pool_size"]), reference.as_pair(options.get("pad", 0))
        stride = reference.as_pair(options.get("stride", ds))
        outputs = 0
        if options.get("ignore_border"):
            outputs = tuple((shape[i + 1] + 2 * pad[i] - ds[i]) // stride[i] + 1 for i in (0, 1))
        out = reference.max_pool(array, ds, stride, tuple(-before for before in pad), outputs)
        for order, dimshuffle in ((to_bc01, True), (np.asarray, False)):
            images.append(np.ascontiguousarray(order(array)))
            layers.append(door().MaxPool2DCCLayer(images[-1].shape, dimshuffle=dimshuffle, **options))
            expected.append(order(out))
    c01b = random(2, 3, 4, 5)
    images += [np.ascontiguousarray(to_bc01(c01b)), c01b]
    layers += [door().bc01_to_c01b(images[-2].shape), door().c01b_to_bc01(images[-1].shape)]
    expected += [c01b, to_bc01(c01b)]
    for layer, result, out in zip(layers, run_layers(layers, images, device), expected):
        what = "%s of %s on %s" % (type(layer).__name__, layer.input_shape, device)
        assert layer.output_shape == result.shape, "%s: %s, said %s" % (what, result.shape, layer.output_shape)
        assert_identical(result, out, what)


def test_nin():
    for device in DEVICES:
        yield check_nin, device


def check_nin(device):
    """Tied, untied and no biases; images, and a matrix (C, N)."""
    if device == "gpu":
        gpu_or_skip()
    layers, images, expected = [], [], []
    for shape, options, biases_shape in [
        ((3, 5, 4, 6), dict(), (7,)),
        ((3, 5, 4, 6), dict(untie_biases=True, nonlinearity=None), (7, 5, 4)),
        ((4, 6), dict(b=None), None),
    ]:
        array, weights = random(*shape), random(7, shape[0])
        out = np.tensordot(weights.astype("float64"), array, 1)
        arguments = dict(options, W=share(weights, device))
        if biases_shape is not None:
            biases = random(*biases_shape)
            arguments["b"] = share(biases, device)
            out += biases.reshape(biases_shape + (1,) * (out.ndim - biases.ndim))
        layers.append(door().NINLayer_c01b(shape, 7, **arguments))
        images.append(array)
        expected.append(out if "nonlinearity" in options else np.maximum(out, 0))
    for layer, result, out in zip(layers, run_layers(layers, images, device), expected):
        assert layer.output_shape == result.shape
        assert_close(result, out, 10, "NINLayer_c01b of %s on %s" % (layer.input_shape, device))


# The net of the training tests: images in bc01, and the parameters of Lasagne's plain layers, in their order.
IMAGES = (6, 3, 10, 10)
CLASSES = 4
PARAMETERS = [(5, 3, 3, 3), (5,), (5, 4), (4,), (6, 4, 3, 3), (6,), (6 * 3 * 3, CLASSES), (CLASSES,)]


def plain_net(incoming, w):
    layers = lasagne().layers
    net = layers.Conv2DLayer(incoming, 5, 3, pad="same", W=w[0], b=w[1])
    net = layers.MaxPool2DLayer(net, 3, stride=2, ignore_border=False)
    net = layers.NINLayer(net, 4, W=w[2], b=w[3], nonlinearity=lasagne().nonlinearities.tanh)
    return layers.Conv2DLayer(net, 6, 3, stride=(2, 2), pad=1, W=w[4], b=w[5])


def cc_net(incoming, w):
    """The same net, half of it in bc01 with the filters as they are, half in c01b with filters that are not flipped."""
    net = door().Conv2DCCLayer(incoming, 5, 3, pad="same", W=w[0], b=w[1], flip_filters=True)
    net = door().MaxPool2DCCLayer(net, 3, stride=2)
    net = door().ShuffleBC01ToC01BLayer(net)
    net = door().NINLayer_c01b(net, 4, W=w[2], b=w[3], nonlinearity=lasagne().nonlinearities.tanh)
    net = door().Conv2DCCLayer(net, 6, 3, stride=(2, 2), pad=1, W=w[4], b=w[5], dimshuffle=False)
    return door().ShuffleC01BToBC01Layer(net)


def turn(arrays, turned, to_c01b):
    """Arrays for a net that has those at the indices `turned` in c01b, filters unflipped; or the way back."""
    arrays = [np.asarray(array) for array in arrays]
    for index in turned:
        array = arrays[index]
        if array.ndim == 2:
            arrays[index] = np.ascontiguousarray(array.T)
        elif to_c01b:
            arrays[index] = np.ascontiguousarray(array.transpose(1, 2, 3, 0)[:, ::-1, ::-1])
        else:
            arrays[index] = to_bc01(array)[:, :, ::-1, ::-1]
    return arrays


def train(make_net, values, images, labels, device, steps=6):
    """Losses, first gradients and last parameters of a net, with the parameters in the order of `plain_net`.

    The plain net computes in float64, as the reference.
    """
    turned = (2, 4) if make_net is cc_net else ()
    with theano.change_flags(floatX="float64" if make_net is plain_net else "float32"):
        dtype = theano.config.floatX
        parameters = [share(array.astype(dtype), device) for array in turn(values, turned, True)]
        layers = lasagne().layers
        incoming = layers.InputLayer((None,) + IMAGES[1:])
        net = make_net(incoming, parameters)
        net = layers.DenseLayer(
            net, CLASSES, W=parameters[6], b=parameters[7], nonlinearity=lasagne().nonlinearities.softmax
        )
        assert layers.get_all_params(net, trainable=True) == parameters
        assert layers.get_output_shape(net) == (None, CLASSES)
        target = T.ivector()
        output = layers.get_output(net)
        loss = lasagne().objectives.categorical_crossentropy(output, target).mean()
        gradients = T.grad(loss, parameters)
        step = compiled(
            [incoming.input_var, target],
            [loss] + [gradient.transfer("cpu") for gradient in gradients],
            device,
            updates=lasagne().updates.sgd(gradients, parameters, learning_rate=0.1),
        )
        results = [step(images.astype(dtype), labels) for _ in range(steps)]
    losses = np.array([result[0] for result in results])
    last = [parameter.get_value() for parameter in parameters]
    return step, losses, turn(results[0][1:], turned, False), turn(last, turned, False)


def test_training():
    for device in DEVICES:
        yield check_training, device


def check_training(device):
    """Loss, gradients and trained parameters are those of the net made of Lasagne's plain layers."""
    if device == "gpu":
        gpu_or_skip()
    values = [random(*shape) * (0.3 if len(shape) > 1 else 0.1) for shape in PARAMETERS]
    images, labels = random(*IMAGES), np.arange(IMAGES[0], dtype="int32") % CLASSES
    _, wanted_losses, wanted_gradients, wanted = train(plain_net, values, images, labels, "cpu")
    step, losses, gradients, trained = train(cc_net, values, images, labels, device)
    types = op_types(step)
    for op in (MaxPool, ImageActs, WeightActs):
        assert (GPU_TWINS[op] if device == "gpu" else op) in types, "no %s in the graph: %s" % (op.__name__, types)
    assert losses[-1] < 0.95 * losses[0], losses
    assert_close(losses.astype("float32"), wanted_losses, 5001, "losses on %s" % device)
    for index, (gradient, reference_gradient) in enumerate(zip(gradients, wanted_gradients)):
        assert np.linalg.norm(reference_gradient) > 0, index
        assert_close(gradient, reference_gradient, 5001, "gradient %d on %s" % (index, device))
    for index, (parameter, reference_parameter) in enumerate(zip(trained, wanted)):
        assert_close(parameter, reference_parameter, 5001, "trained parameter %d on %s" % (index, device))


IMPORTS = """
import lasagne.layers.cuda_convnet
from lasagne.layers.cuda_convnet import Conv2DCCLayer, MaxPool2DCCLayer, NINLayer_c01b
from lasagne.layers.cuda_convnet import ShuffleBC01ToC01BLayer, bc01_to_c01b
from lasagne.layers.cuda_convnet import ShuffleC01BToBC01Layer, c01b_to_bc01
from lasagne.layers import cuda_convnet
"""


def imported():
    """The names that IMPORTS gives, or why it fails."""
    names = {}
    try:
        exec(IMPORTS, names)
    # Theano's package of the old backend raises SkipTest where it is imported.
    except (ImportError, SkipTest) as error:
        return "%s: %s" % (type(error).__name__, error)
    return names


def test_imports_as_they_were_written():
    names = imported()
    assert isinstance(names, dict), names
    assert names["Conv2DCCLayer"] is door().Conv2DCCLayer is names["lasagne"].layers.cuda_convnet.Conv2DCCLayer
    assert names["bc01_to_c01b"] is names["ShuffleBC01ToC01BLayer"] is door().ShuffleBC01ToC01BLayer
    assert names["c01b_to_bc01"] is names["ShuffleC01BToBC01Layer"] is door().ShuffleC01BToBC01Layer
    assert issubclass(names["Conv2DCCLayer"], names["cuda_convnet"].CCLayer)
    door().uninstall()
    try:
        assert isinstance(imported(), str), "Lasagne's own module loads"
    finally:
        door().install()
    assert isinstance(imported(), dict), imported()


def test_arguments_in_the_old_order():
    order = {
        "Conv2DCCLayer": "incoming num_filters filter_size stride pad untie_biases W b nonlinearity dimshuffle "
        "flip_filters partial_sum",
        "MaxPool2DCCLayer": "incoming pool_size stride ignore_border dimshuffle",
        "NINLayer_c01b": "incoming num_units untie_biases W b nonlinearity",
    }
    for name, arguments in order.items():
        parameters = list(inspect.signature(getattr(door(), name)).parameters.values())
        assert [p.name for p in parameters][: len(arguments.split())] == arguments.split(), name
        assert parameters[-1].kind is inspect.Parameter.VAR_KEYWORD


def test_parameters_of_old_checkpoints():
    """The shapes, names, order and tags under which Lasagne's layers kept their parameters."""
    layers = lasagne().layers
    for dimshuffle, incoming, filters in (
        (True, (None, 3, 8, 9), (16, 3, 5, 5)),
        (False, (3, 8, 9, None), (3, 5, 5, 16)),
    ):
        for untied, biases in ((False, (16,)), (True, (16, 4, 5))):
            layer = door().Conv2DCCLayer(incoming, 16, 5, (1, 1), 0, untied, dimshuffle=dimshuffle, name="conv")
            assert [p.name for p in layer.get_params()] == ["conv.W", "conv.b"]
            assert layer.get_params(regularizable=True) == [layer.W]
            old = [random(*filters), random(*biases)]
            layers.set_all_param_values(layer, old)
            for value, kept in zip(old, layers.get_all_param_values(layer)):
                assert_identical(kept, value, "%s, untied %s" % (filters, untied))
            assert layer.output_shape == ((None, 16, 4, 5) if dimshuffle else (16, 4, 5, None))
    assert [p.get_value().shape for p in door().NINLayer_c01b((3, 8, 9, None), 7).get_params()] == [(7, 3), (7,)]
    # The range of GlorotUniform, sqrt(6 / (fan in + fan out)), is that of the filters' order.
    for dimshuffle, incoming in ((True, (None, 3, 8, 9)), (False, (3, 8, 9, None))):
        value = door().Conv2DCCLayer(incoming, 64, 5, dimshuffle=dimshuffle).W.get_value()
        limit = np.sqrt(6.0 / ((3 + 64) * 25))
        assert 0.95 * limit < abs(value).max() <= limit


def test_errors():
    conv, pool, nin = "Conv2DCCLayer", "MaxPool2DCCLayer", "NINLayer_c01b"
    images = (4, 6, 8, 8)
    for name, arguments, options, error, text in [
        (conv, (images, 0, 3), {}, ValueError, "num_filters is 0; it must be at least 1"),
        (conv, (images, 4, (3, 3, 3)), {}, TypeError, "filter_size is (3, 3, 3); it must be an int or a pair"),
        (conv, (images, 4, 3), {"stride": 0}, ValueError, "stride is 0; it must be at least 1"),
        (
            conv,
            (images, 4, 3),
            {"pad": "half"},
            ValueError,
            "pad is 'half'; it must be an int, a pair of ints, 'valid'",
        ),
        (conv, (images, 4, 3), {"pad": -1}, ValueError, "pad is -1; it must be at least 0"),
        (conv, (images, 4, 3), {"partial_sum": -1}, ValueError, "partial_sum is -1; it must be at least 0"),
        (
            conv,
            (images, 4, 3),
            {"num_groups": 4},
            ValueError,
            "num_groups is 4; it must divide num_filters, 4, and the",
        ),
        (conv, ((4, 6, 8), 4, 3), {}, ValueError, "incoming has the shape (4, 6, 8); it must have 4 dimensions (bc01)"),
        (conv, ((4, None, 8, 8), 4, 3), {}, ValueError, "W has the shape (4, None, 3, 3)"),
        (conv, ((4, 6, None, 8), 4, 3), {"untie_biases": True}, ValueError, "b has the shape (4, None, 6)"),
        (pool, (images, 2.5), {}, TypeError, "pool_size is 2.5; it must be an int or a pair"),
        (pool, (images, 3), {"pad": 1}, ValueError, "pad is 1; without ignore_border it must be 0"),
        (
            pool,
            (images, 2),
            {"pad": 2, "ignore_border": True},
            ValueError,
            "pad is 2; it must be less than pool_size, 2",
        ),
        (nin, (images, 0), {}, ValueError, "num_units is 0; it must be at least 1"),
        ("bc01_to_c01b", ((4, 6),), {}, ValueError, "it must have 4 dimensions (bc01)"),
        ("c01b_to_bc01", ((4, 6),), {}, ValueError, "it must have 4 dimensions (c01b)"),
    ]:
        try:
            getattr(door(), name)(*arguments, **options)
        except error as caught:
            assert text in str(caught) and getattr(door(), name).__name__ in str(caught), (text, str(caught))
        else:
            raise AssertionError("%s%r took %s" % (name, arguments, options))
