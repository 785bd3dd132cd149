"""What the ops do not take: an exception names op, argument, value and what is valid; then they go on."""

import numpy as np
import theano
import theano.tensor as T
from convnet_ops import (
    AvgPool,
    AvgPoolGrad,
    FilterActs,
    ImageActs,
    MaxPool,
    MaxPoolGrad,
    MaxPoolRop,
    StochasticMaxPool,
    StochasticMaxPoolGrad,
    WeightActs,
    WeightedMaxPool,
    WeightedMaxPoolGrad,
)
from convnet_ops.stochastic_pool import StochasticMaxPoolRop

from tests.processors import DEVICES, GPU_CONTEXT, compiled, gpu_or_skip, to_gpu


def raises(error, words, call, *arguments, **options):
    """`call` raises exactly `error`, with all of `words` in its first line."""
    try:
        call(*arguments, **options)
    except error as found:
        # Theano adds notes on the node after the first line.
        message = str(found).split("\n")[0]
        assert type(found) is error, type(found)
        for word in words:
            assert word in message, "%r is not in %r" % (word, message)
    else:
        raise AssertionError("no %s" % error.__name__)


def test_arguments():
    for error, words, make in [
        (ValueError, ["FilterActs: pad is -1", "at least 0"], lambda: FilterActs(pad=-1)),
        (ValueError, ["ImageActs: pad is 'same'", "'valid', 'full' or 'half'"], lambda: ImageActs(pad="same")),
        (TypeError, ["FilterActs: pad is 1.5", "int or a pair of ints"], lambda: FilterActs(pad=1.5)),
        (TypeError, ["FilterActs: stride is (1, 2, 3)"], lambda: FilterActs(stride=(1, 2, 3))),
        (TypeError, ["FilterActs: stride is True"], lambda: FilterActs(stride=True)),
        (ValueError, ["WeightActs: stride is (1, 0)", "at least 1"], lambda: WeightActs(stride=(1, 0))),
        (ValueError, ["FilterActs: groups is 0", "at least 1"], lambda: FilterActs(groups=0)),
        (TypeError, ["FilterActs: groups is 2.0", "an int"], lambda: FilterActs(groups=2.0)),
        (ValueError, ["groups is 2 and numGroups is 3"], lambda: FilterActs(groups=2, numGroups=3)),
        (ValueError, ["WeightActs: partial_sum is 0", "at least 1"], lambda: WeightActs(partial_sum=0)),
        (
            ValueError,
            ["FilterActs: precision is 'half'", "'float32' or 'tf32' or 'float16'"],
            lambda: FilterActs(precision="half"),
        ),
        (ValueError, ["MaxPool: ds is 0", "at least 1"], lambda: MaxPool(0, 1)),
        (ValueError, ["MaxPool: stride is (2, 0)", "at least 1"], lambda: MaxPool(2, (2, 0))),
        (ValueError, ["MaxPool: outputs is -1", "at least 0"], lambda: MaxPool(2, 2, 0, -1)),
        (ValueError, ["MaxPoolGrad: start is -2", "greater than -ds"], lambda: MaxPoolGrad(2, 2, -2)),
        (TypeError, ["MaxPool: start is None"], lambda: MaxPool(2, 2, None)),
    ]:
        yield raises, error, words, make


def test_types():
    x, d = T.ftensor4("x"), T.dtensor4("d")
    for words, call in [
        (["FilterActs: images is float16", "float32"], lambda: FilterActs()(T.tensor4(dtype="float16"), x)),
        (["FilterActs: images is int64"], lambda: FilterActs()(T.ltensor4(), x)),
        (["FilterActs: filters is float64", "must be float32, as images is"], lambda: FilterActs()(x, d)),
        (["FilterActs: filters has 3 dimensions", "must have 4"], lambda: FilterActs()(x, T.ftensor3())),
        (["ImageActs: hid_acts has 2 dimensions"], lambda: ImageActs()(T.fmatrix(), x)),
        (["ImageActs: output_shape is", "two integers"], lambda: ImageActs()(x, x, (3.0, 4.0))),
        (["WeightActs: output_shape is 3", "two integers"], lambda: WeightActs()(x, x, 3)),
        (["WeightActs: hid_grads is float64"], lambda: WeightActs()(x, d, (3, 3))),
        (["MaxPool: images is complex64"], lambda: MaxPool(2, 2)(T.ctensor4())),
        (["MaxPoolGrad: gz is float64"], lambda: MaxPoolGrad(2, 2)(x, x, d)),
        (["MaxPoolRop: eval_point has 1 dimensions"], lambda: MaxPoolRop(2, 2)(x, T.fvector())),
    ]:
        yield raises, TypeError, words, call
    yield raises, ValueError, ["ImageActs: output_shape is None", "stride (2, 2)"], lambda: ImageActs(stride=2)(x, x)


def bad_shapes():
    def ones(*shape):
        return np.ones(shape, "float32")

    size = np.array([6, 6])
    return [
        (FilterActs(), [ones(3, 6, 6, 2), ones(4, 3, 3, 2)], ["FilterActs: filters has 4 channels; it must have 3"]),
        (
            FilterActs(groups=2),
            [ones(3, 6, 6, 2), ones(3, 3, 3, 2)],
            ["groups is 2; it must divide the 3 channels of images"],
        ),
        (
            FilterActs(groups=2),
            [ones(4, 6, 6, 2), ones(2, 3, 3, 3)],
            ["groups is 2; it must divide the 3 filters of filters"],
        ),
        (
            FilterActs(),
            [ones(3, 6, 2, 2), ones(3, 3, 3, 2)],
            ["filters of 3 x 3 do not fit into images of 6 x 2 with pad (0, 0)"],
        ),
        (
            FilterActs(),
            [ones(3, 6, 6, 0), ones(3, 3, 3, 2)],
            ["images has shape (3, 6, 6, 0); every size must be at least 1"],
        ),
        (FilterActs(), [ones(0, 6, 6, 2), ones(0, 3, 3, 2)], ["images has shape (0, 6, 6, 2)"]),
        (FilterActs(), [ones(3, 6, 6, 2), ones(3, 3, 3, 0)], ["filters has shape (3, 3, 3, 0)"]),
        (
            ImageActs(),
            [ones(2, 4, 4, 2), ones(3, 3, 3, 5), size],
            ["ImageActs: hid_acts has 2 channels; it must have 5"],
        ),
        (ImageActs(), [ones(2, 4, 4, 2), ones(3, 3, 3, 2), np.array([7, 6])], ["hid_acts is 4 x 4;", "make it 5 x 4"]),
        (
            ImageActs(),
            [ones(2, 4, 4, 2), ones(3, 3, 3, 2), np.array([6])],
            ["output_shape has 1 elements; it must have 2"],
        ),
        (ImageActs(), [ones(2, 4, 4, 2), ones(3, 3, 3, 2), np.array([6, 0])], ["output_shape is (6, 0); both sizes"]),
        (
            ImageActs(groups=3),
            [ones(2, 4, 4, 2), ones(3, 3, 3, 2), size],
            ["groups is 3; it must divide the 2 filters"],
        ),
        (
            WeightActs(),
            [ones(3, 6, 6, 2), ones(2, 4, 4, 3), np.array([3, 3])],
            ["hid_grads has 3 images; it must have 2"],
        ),
        (
            WeightActs(),
            [ones(3, 6, 6, 2), ones(2, 4, 5, 2), np.array([3, 3])],
            ["hid_grads is 4 x 5;", "make it 4 x 4"],
        ),
        (WeightActs(), [ones(3, 6, 6, 2), ones(2, 4, 4, 2), np.array([7, 7])], ["filters of 7 x 7 do not fit"]),
        (
            WeightActs(partial_sum=3),
            [ones(3, 6, 6, 2), ones(2, 4, 4, 2), np.array([3, 3])],
            ["partial_sum is 3; it must divide the area of the output, 4 x 4 = 16: one of [1, 2, 4, 8, 16]"],
        ),
        (MaxPool(5, 1), [ones(2, 4, 6, 2)], ["MaxPool: ds is 5, larger than the 4 rows of the images"]),
        (MaxPool((2, 5), 1), [ones(2, 4, 4, 2)], ["MaxPool: ds is 5, larger than the 4 columns of the images"]),
        (MaxPool(2, 1, 4), [ones(2, 4, 4, 2)], ["MaxPool: start is 4; it must be less than the 4 rows"]),
        (MaxPool(3, 1, 3), [ones(2, 4, 4, 2)], ["MaxPool: start is 3;", "give no output from there"]),
        (MaxPool(2, 2, 0, 3), [ones(2, 4, 4, 2)], ["MaxPool: outputs is 3;", "at most 2 windows touch the 4 rows"]),
        (MaxPool(2, 2), [ones(2, 4, 0, 2)], ["MaxPool: images has shape (2, 4, 0, 2)"]),
        (
            MaxPoolGrad(2, 2),
            [ones(2, 4, 4, 2), ones(2, 2, 2, 2), ones(2, 2, 1, 2)],
            ["gz has shape (2, 2, 1, 2); it must be (2, 2, 2, 2)"],
        ),
        (MaxPoolGrad(2, 2), [ones(2, 4, 4, 2), ones(2, 1, 2, 2), ones(2, 2, 2, 2)], ["maxout has shape (2, 1, 2, 2)"]),
        (MaxPoolRop(2, 2), [ones(2, 4, 4, 2), ones(2, 4, 5, 2)], ["eval_point has shape (2, 4, 5, 2)"]),
        (AvgPool(5, 1), [ones(2, 4, 6, 2)], ["AvgPool: ds is 5, larger than the 4 rows of the images"]),
        (
            AvgPoolGrad(2, 2),
            [ones(2, 2, 1, 2), np.array([4, 4])],
            ["AvgPoolGrad: gz has shape (2, 2, 1, 2); it must be (2, 2, 2, 2)"],
        ),
        (
            AvgPoolGrad(2, 2),
            [ones(2, 2, 2, 2), np.array([4, 4, 4])],
            ["AvgPoolGrad: output_shape has 3 elements; it must have 2"],
        ),
        (
            StochasticMaxPool(2, 2, 4),
            [ones(2, 4, 4, 2), np.array(0)],
            ["StochasticMaxPool: start is 4; it must be less than the 4 rows"],
        ),
        (
            StochasticMaxPoolGrad(2, 2),
            [ones(2, 2, 1, 2).astype("int32"), ones(2, 2, 2, 2), np.array([4, 4])],
            ["StochasticMaxPoolGrad: positions has shape (2, 2, 1, 2); it must be (2, 2, 2, 2)"],
        ),
        (
            StochasticMaxPoolRop(2, 2),
            [ones(2, 4, 4, 2), ones(2, 2, 1, 2).astype("int32")],
            ["StochasticMaxPoolRop: positions has shape (2, 2, 1, 2); it must be (2, 2, 2, 2)"],
        ),
        (WeightedMaxPool(2, 2), [ones(2, 0, 4, 2)], ["WeightedMaxPool: images has shape (2, 0, 4, 2)"]),
        (
            WeightedMaxPoolGrad(2, 2),
            [ones(2, 4, 4, 2), ones(2, 2, 2, 2), ones(2, 2, 1, 2), ones(2, 2, 2, 2)],
            ["WeightedMaxPoolGrad: sums has shape (2, 2, 1, 2); it must be (2, 2, 2, 2)"],
        ),
    ]


def test_shapes():
    for device in DEVICES:
        for op, arrays, words in bad_shapes():
            yield check_shapes, op, arrays, words, device


def check_shapes(op, arrays, words, device):
    if device == "gpu":
        gpu_or_skip()
    function, on_gpu = compiled(op, device, arrays)
    raises(ValueError, words, function, *[to_gpu(a) if on_gpu and a.ndim == 4 else a for a in arrays])


def test_the_gpu_goes_on_after_errors():
    gpu_or_skip()
    for op, arrays, words in bad_shapes():
        check_shapes(op, arrays, words, "gpu")
    function, _ = compiled(FilterActs(), "gpu", [np.ones((1, 1, 1, 1), "float32")] * 2)
    (out,) = function(to_gpu(np.ones((3, 2, 2, 4), "float32")), to_gpu(np.ones((3, 2, 2, 4), "float32")))
    assert (np.array(out) == 12).all()


def test_no_memory_on_the_host():
    x, w = T.ftensor4s("x", "w")
    function, _ = compiled(FilterActs(pad=2**22), "cpu", [np.ones((1, 1, 1, 1), "float32")] * 2)
    one = np.ones((1, 1, 1, 1), "float32")
    raises(MemoryError, ["FilterActs: no memory for an output of 1 x 8388609 x 8388609 x 1"], function, one, one)


def test_no_memory_on_the_gpu():
    gpu_or_skip()
    # 32001 squared outputs of 4 bytes: 4 GB. 64 of them are more than any GPU holds.
    x, w = (theano.gpuarray.GpuArrayType("float32", (False,) * 4, context_name=GPU_CONTEXT)() for _ in range(2))
    large, small = (
        theano.function([x, w], FilterActs(pad=pad)(x, w).transfer(GPU_CONTEXT), name="pad %d" % pad)
        for pad in (16000, 1)
    )
    one = to_gpu(np.ones((1, 1, 1, 1), "float32"))
    outputs = []
    try:
        for _ in range(64):
            outputs.append(large(one, one))
    except MemoryError as error:
        assert "FilterActs: no GPU memory for its output of 4096256004 bytes" in str(error), error
    else:
        raise AssertionError("64 outputs of 4 GB fitted")
    finally:
        del outputs[:]
    # The GPU goes on, with no memory lost.
    assert np.array(small(one, one)).sum() == 1


def test_index_limit_of_the_gpu():
    gpu_or_skip()
    one = np.ones((1, 1, 1, 1), "float32")
    function, _ = compiled(FilterActs(pad=23170), "gpu", [one, one])
    raises(
        ValueError,
        ["FilterActs: output of shape (1, 46341, 46341, 1) has 2**31 or more elements"],
        function,
        to_gpu(one),
        to_gpu(one),
    )


def test_unknown_row():
    gpu_or_skip()
    import os

    one = np.ones((1, 1, 1, 1), "float32")
    function, _ = compiled(FilterActs(), "gpu", [one, one])
    os.environ["CONVNET_OPS_VARIANT"] = "filter_acts=fastest"
    try:
        raises(
            ValueError,
            ["CONVNET_OPS_VARIANT: filter_acts has no row named 'fastest'"],
            function,
            to_gpu(one),
            to_gpu(one),
        )
    finally:
        del os.environ["CONVNET_OPS_VARIANT"]
