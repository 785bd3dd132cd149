"""The doors of 2014: what they install, that they can be closed, and how a script is run through them."""

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import warnings
from unittest import SkipTest, mock

import convnet_ops
import numpy as np
import theano
import theano.tensor as T
from theano.compile.sharedvalue import SharedVariable
from theano.gpuarray.type import GpuArrayType
from theano.tensor.signal.pool import pool_2d

from tests.comparison import assert_identical
from tests.processors import GPU_CONTEXT, gpu_or_skip
from tests.test_opt import op_types

TIMEOUT = 200  # seconds for a script in a process of its own

# Lines of old code: what these import is what convnet_ops has under that name; the others have modules of their own.
OPS_IMPORTS = """
from pylearn2.sandbox.cuda_convnet.base_acts import BaseActs
from pylearn2.sandbox.cuda_convnet.filter_acts import FilterActs
from pylearn2.sandbox.cuda_convnet.filter_acts import FilterActs, ImageActs
from pylearn2.sandbox.cuda_convnet.img_acts import ImageActs
from pylearn2.sandbox.cuda_convnet.weight_acts import WeightActs
from pylearn2.sandbox.cuda_convnet.pool import MaxPool, MaxPoolRop, MaxPoolGrad, AvgPool
from pylearn2.sandbox.cuda_convnet.response_norm import CrossMapNorm, CrossMapNormUndo
from pylearn2.sandbox.cuda_convnet.stochastic_pool import StochasticMaxPool, WeightedMaxPool
from pylearn2.sandbox.cuda_convnet.stochastic_pool import stochastic_max_pool_c01b, weighted_max_pool_c01b
from pylearn2.sandbox.cuda_convnet.probabilistic_max_pooling import ProbMaxPool, prob_max_pool_c01b
from theano.sandbox.cuda.basic_ops import gpu_contiguous
from theano.sandbox.cuda import gpu_contiguous
"""

OTHER_IMPORTS = """
import pylearn2.sandbox.cuda_convnet
from pylearn2.sandbox.cuda_convnet import check_cuda, filter_acts
from pylearn2.sandbox.cuda_convnet.base_acts import UnimplementedError
from pylearn2.sandbox.cuda_convnet.convnet_compile import convnet_available
from pylearn2.sandbox.cuda_convnet.pool import max_pool_c01b
import theano.sandbox.cuda
import theano.sandbox.cuda as cuda_ndarray
from theano.sandbox import cuda
from theano.sandbox.cuda import CudaNdarrayType, CudaNdarray, gpu_from_host, host_from_gpu, cuda_available, cuda_enabled
from theano.sandbox.cuda.basic_ops import as_cuda_ndarray_variable, gpu_from_host, host_from_gpu, HostFromGpu
from theano.sandbox.cuda.type import CudaNdarrayType
from theano.sandbox.cuda.var import CudaNdarraySharedVariable, float32_shared_constructor
from theano.sandbox.cuda import float32_shared_constructor, use
import theano.tensor.signal.downsample
from theano.tensor.signal import downsample
from theano.tensor.nnet import conv
from theano.tensor.nnet.conv import conv2d, ConvOp
from theano.tensor.signal.downsample import max_pool_2d, max_pool_2d_same_size, DownsampleFactorMax
"""


def door():
    return importlib.import_module("convnet_ops.compat.pylearn2")


def old_cuda():
    return importlib.import_module("theano.sandbox.cuda")


def setup_module():
    door().install()


def teardown_module():
    door().uninstall()


def host(function):
    """Run `function` as where Theano has no default GPU."""
    with mock.patch("convnet_ops.compat.cuda.default_context", return_value=None):
        return function()


def test_old_imports():
    for line in OPS_IMPORTS.strip().splitlines() + OTHER_IMPORTS.strip().splitlines():
        yield check_import, line


def check_import(line):
    names = {}
    exec(line, names)
    del names["__builtins__"]
    assert names
    if line in OPS_IMPORTS.splitlines():
        for name, value in names.items():
            own = getattr(convnet_ops, name, None) or convnet_ops.base_acts.BaseActs
            assert value is own and value.__name__ == name, (name, value)


def test_what_is_not_there_is_an_import_error():
    """Old code has alternatives for these."""
    for line in (
        "from theano.sandbox.cuda import dnn",
        "import theano.sandbox.cuda.dnn",
        "from theano.sandbox.cuda import GpuOp",
        "from theano.sandbox.cuda import cuda_ndarray",
        "import pylearn2.datasets",
    ):
        try:
            exec(line, {})
        except ImportError:
            continue
        raise AssertionError(line)


def test_closed_doors_leave_nothing():
    constructors = list(theano.shared.constructors)
    kept = old_cuda().gpu_contiguous
    door().uninstall()
    try:
        assert not [name for name in sys.modules if name.split(".")[0] == "pylearn2" or ".sandbox.cuda" in name]
        assert not hasattr(theano.sandbox, "cuda") and not hasattr(T.signal, "downsample")
        assert T.nnet.conv is sys.modules["theano.tensor.nnet.conv"] and T.nnet.conv.__file__
        assert len(theano.shared.constructors) == len(constructors) - 1
        for line, error in (
            ("import pylearn2", ImportError),
            ("import theano.sandbox.cuda", SkipTest),  # Theano's own answer
            ("from theano.tensor.signal import downsample", ImportError),
        ):
            try:
                exec(line, {})
            except error:
                continue
            raise AssertionError("%s: no %s" % (line, error.__name__))
        assert kept is convnet_ops.gpu_contiguous
    finally:
        door().install()
    assert theano.shared.constructors == constructors
    check_import("from theano.sandbox import cuda")
    door().install()  # twice is once
    assert theano.shared.constructors == constructors


def test_a_pylearn2_that_is_installed_stays():
    with pylearn2_folder("VALUE = 'the real one'\n") as folder:
        messages = install_and_collect()
        assert len(messages) == 1 and folder in messages[0] and "from convnet_ops instead" in messages[0], messages
        real = importlib.import_module("pylearn2")
        assert real.VALUE == "the real one"
        # In use it is the same one.
        assert len(install_and_collect()) == 1 and importlib.import_module("pylearn2") is real
        assert_raises(ImportError, exec, "from pylearn2.sandbox.cuda_convnet.filter_acts import FilterActs", {})
        check_import("from theano.sandbox.cuda.basic_ops import gpu_contiguous")
        door().uninstall()
        assert sys.modules["pylearn2"] is real


def test_a_folder_of_that_name_is_no_pylearn2():
    """A checkout of pylearn2 beside the script: the package is one folder deeper."""
    with pylearn2_folder(None):
        assert install_and_collect() == []
        check_import("from pylearn2.sandbox.cuda_convnet.filter_acts import FilterActs")


@contextlib.contextmanager
def pylearn2_folder(text):
    """A folder on sys.path with pylearn2/__init__.py of that text, or without that file; the door is closed."""
    door().uninstall()
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, "pylearn2"))
        if text is not None:
            with open(os.path.join(folder, "pylearn2", "__init__.py"), "w") as module:
                module.write(text)
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            yield folder
        finally:
            sys.path.remove(folder)
            door().uninstall()
            sys.modules.pop("pylearn2", None)
            door().install()


def install_and_collect():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        door().install()
    return [str(warning.message) for warning in caught]


def assert_raises(error, function, *arguments):
    try:
        function(*arguments)
    except error as raised:
        return str(raised)
    raise AssertionError("no %s" % error.__name__)


def test_without_a_gpu_everything_is_on_the_host():
    host(check_host)


def check_host():
    cuda = old_cuda()
    x = T.ftensor4("x")
    value = np.ones((2, 3), "float32")
    assert theano.sandbox.cuda is cuda and T.signal.downsample is sys.modules["theano.tensor.signal.downsample"]
    assert not cuda.cuda_enabled and not cuda.basic_ops.cuda_enabled
    assert cuda.gpu_from_host(x) is x and cuda.host_from_gpu(x) is x and cuda.as_cuda_ndarray_variable(x) is x
    assert cuda.as_cuda_ndarray_variable(value).type == T.TensorType("float32", (False, False))
    assert not isinstance(x.type, cuda.CudaNdarrayType) and not isinstance(value, cuda.CudaNdarray)
    shared = cuda.float32_shared_constructor(value, name="w", borrow=True)
    assert shared.type == T.TensorType("float32", (False, False)) and shared.name == "w"
    assert shared.get_value(borrow=True) is value
    assert "float64" in assert_raises(TypeError, cuda.float32_shared_constructor, np.ones(2))
    assert "list" in assert_raises(TypeError, cuda.float32_shared_constructor, [1.0])
    for function, argument in ((cuda.CudaNdarrayType, (False,)), (cuda.CudaNdarray, value)):
        assert "device=cuda opens one" in assert_raises(RuntimeError, function, argument)
    assert cuda.use("cpu") is None
    assert "'tpu'" in assert_raises(ValueError, cuda.use, "tpu")
    assert "Cuda" not in str(type(theano.shared(value)))


def test_on_the_gpu():
    gpu_or_skip()
    cuda = old_cuda()
    value = np.ones((2, 3), "float32")
    x = T.fmatrix("x")
    assert cuda.cuda_available and cuda.cuda_enabled
    for on_gpu in (cuda.gpu_from_host(x), cuda.as_cuda_ndarray_variable(value), cuda.float32_shared_constructor(value)):
        assert isinstance(on_gpu.type, cuda.CudaNdarrayType) and on_gpu.type.context_name is None, on_gpu.type
        assert cuda.gpu_from_host(on_gpu) is on_gpu
        assert cuda.host_from_gpu(on_gpu).type.dtype == "float32"
        assert isinstance(cuda.host_from_gpu(on_gpu).type, T.TensorType)
        assert_identical(np.array(cuda.host_from_gpu(on_gpu).eval({x: value} if on_gpu.owner else {})), value, "there")
    elsewhere = GpuArrayType("float32", (False,) * 2, context_name=GPU_CONTEXT)()
    assert cuda.gpu_from_host(elsewhere) is elsewhere
    assert not isinstance(GpuArrayType("float64", (False,)), cuda.CudaNdarrayType)
    assert cuda.CudaNdarrayType((False, True)) == GpuArrayType("float32", (False, True))
    array = cuda.CudaNdarray(value)
    assert isinstance(array, cuda.CudaNdarray) and not isinstance(value, cuda.CudaNdarray)
    assert_identical(np.array(array), value, "CudaNdarray")


def test_shared_variables_on_the_gpu_are_called_cuda():
    gpu_or_skip()
    value = np.arange(6, dtype="float32").reshape(2, 3)
    shared = theano.shared(value, name="w", broadcastable=(False, False))
    assert isinstance(shared, SharedVariable) and "Cuda" in str(type(shared)) and shared.name == "w"
    # Only what Theano would put there, and only where it would.
    for other, options in ((value.astype("float64"), {}), (np.float32(1), {}), (value, {"target": "cpu"})):
        assert "Cuda" not in str(type(theano.shared(other, **options))), (other.dtype, options)
    step = theano.function([], [(shared**2).sum()], updates=[(shared, shared * 2)])
    assert float(step()[0]) == 55
    assert_identical(shared.get_value(), 2 * value, "after an update")


def test_conv2d_is_the_newer_one():
    conv = importlib.import_module("theano.tensor.nnet.conv")
    assert conv is T.nnet.conv and conv.ConvOp is T.nnet.ConvOp
    x, w = T.ftensor4s("x", "w")
    shapes = {"image_shape": (2, 3, 7, None), "filter_shape": (4, 3, 2, 3)}
    out = conv.conv2d(x, w, border_mode="full", subsample=[2, 1], unroll_kern=2, version=3, **shapes)
    expected = T.nnet.conv2d(x, w, (2, 3, 7, None), (4, 3, 2, 3), "full", (2, 1))
    assert out.owner.op == expected.owner.op, (out.owner.op, expected.owner.op)
    assert [variable.name for variable in out.owner.inputs] == ["x", "w"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = conv.conv2d(x, w, (2, 3, 7, 7), (4, 3, 2, 3), kshp_logical=(2, 3))
    assert isinstance(out.owner.op, conv.ConvOp)


def test_downsample_is_pool_2d():
    downsample = importlib.import_module("theano.tensor.signal.downsample")
    value = np.random.standard_normal((2, 3, 7, 6)).astype("float32")
    x, cube = T.ftensor4("x"), T.ftensor3("cube")
    average = {"mode": "average_exc_pad"}
    outs = [
        downsample.max_pool_2d(x, (2, 3)),
        downsample.max_pool_2d(x, (3, 3), True, (2, 1), (1, 1)),
        downsample.max_pool_2d(x, ds=(2, 2), st=(1, 2), **average),
        downsample.DownsampleFactorMax((2, 2), ignore_border=True)(x),
        downsample.max_pool_2d(cube, (2, 2)),
        downsample.max_pool_2d_same_size(x, (2, 2)),
    ]
    expected = [
        pool_2d(x, (2, 3), ignore_border=False),
        pool_2d(x, (3, 3), ignore_border=True, stride=(2, 1), pad=(1, 1)),
        pool_2d(x, (2, 2), ignore_border=False, stride=(1, 2), **average),
        pool_2d(x, (2, 2), ignore_border=True),
        pool_2d(cube, (2, 2), ignore_border=False),
    ]
    function = theano.function([x, cube], outs + expected, mode=theano.Mode("cvm", "fast_run").excluding("gpuarray"))
    results = function(value, value[0])
    for one, other in zip(results[:5], results[6:]):
        assert_identical(one, other, "downsample")
    for row, shape in ((0, (2, 3, 4, 2)), (3, (2, 3, 3, 3))):
        assert results[row].shape == shape
    assert downsample.DownsampleFactorMax.out_shape((2, 3, 7, 6), (2, 3)) == [2, 3, 4, 2]
    # Of each 2 x 2 only the maximum is left.
    kept = results[5][:, :, :6].reshape(2, 3, 3, 2, 3, 2) != 0
    assert (kept.sum(axis=(3, 5)) == 1).all()


def test_max_pool_c01b_has_pylearn2s_arguments():
    max_pool_c01b = importlib.import_module("pylearn2.sandbox.cuda_convnet.pool").max_pool_c01b
    x = T.ftensor4("x")
    for out in (max_pool_c01b(x, (3, 3), (2, 2), (9, 9), -1), max_pool_c01b(x, (3, 3), (2, 2), start=-1)):
        assert out.owner.op == convnet_ops.MaxPool(3, 2, start=-1), out.owner.op


def test_the_ops_are_available():
    convnet_compile = importlib.import_module("pylearn2.sandbox.cuda_convnet.convnet_compile")
    assert convnet_compile.convnet_available() is True
    with theano.change_flags(cxx=""):
        assert convnet_compile.convnet_available() is False
    # With device=cpu, or with a GPU that was opened: either way they run.
    importlib.import_module("pylearn2.sandbox.cuda_convnet").check_cuda("a layer")


def run_script(text, *arguments, device="cpu", folder=None, through=("-m", "convnet_ops.compat")):
    """What a script prints at last, in JSON; it is run through the doors with a device of Theano."""
    with tempfile.TemporaryDirectory() as own:
        path = os.path.join(folder or own, "script.py")
        with open(path, "w") as script:
            script.write(textwrap.dedent(text))
        flags = [os.environ.get("THEANO_FLAGS", ""), "dnn.enabled=False", "device=" + device, "floatX=float32"]
        kept = {name: value for name, value in os.environ.items() if name != "THEANO_GPU_IS_ALREADY_ACTIVE"}
        answer = subprocess.run(
            [sys.executable, *through, path, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT,
            env=dict(
                kept,
                THEANO_FLAGS=",".join(filter(None, flags)),
                PYTHONPATH=os.pathsep.join(place for place in sys.path if place),
            ),
        )
    assert answer.returncode == 0, answer.stderr.decode()
    return json.loads(answer.stdout.decode().splitlines()[-1]), path


def test_a_script_is_run_as_python_runs_it():
    """Its arguments, options too, its folder on sys.path in place of the current one, its name; and the doors."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "beside.py"), "w") as module:
            module.write("from pylearn2.sandbox.cuda_convnet.pool import MaxPool\n")
        result, path = run_script(
            """
            import json, os, sys
            import beside
            import convnet_ops
            print(json.dumps([
                sys.argv, sys.path[0], __name__, os.path.basename(__file__), sys.modules["__main__"].sys is sys,
                beside.MaxPool is convnet_ops.MaxPool,
            ]))
            """,
            "--help",
            "-n",
            "5",
            folder=folder,
        )
        real = os.path.realpath(folder)
        assert result == [[path, "--help", "-n", "5"], real, "__main__", "script.py", True, True], result


def test_import_of_convnet_ops_opens_no_door():
    text = """
        import json, sys
        import convnet_ops
        print(json.dumps([name for name in sys.modules if "compat" in name and "convnet_ops" in name]))
    """
    assert run_script(text, through=())[0] == []


def test_check_cuda_fails_without_the_gpu_that_was_asked_for():
    """There is no GPU of that number anywhere; Theano goes on without one."""
    result, _ = run_script(
        """
        import json
        from pylearn2.sandbox.cuda_convnet import check_cuda
        from theano.sandbox import cuda
        errors = []
        for check_enabled in (True, False):
            try:
                check_cuda("A layer", check_enabled=check_enabled)
                errors.append("")
            except RuntimeError as error:
                errors.append(str(error))
        print(json.dumps([errors, bool(cuda.cuda_available), cuda.cuda_enabled]))
        """,
        device="cuda77",
    )
    (strict, lenient), available, enabled = result
    assert strict.startswith("A layer: Theano's flag device is 'cuda77'"), strict
    assert lenient == ("" if available else strict), lenient
    assert not enabled


def test_use_opens_the_gpu():
    """device=cpu, and the script asks for the GPU itself; one step of a net moves there without another word."""
    gpu_or_skip()
    result, _ = run_script(
        """
        import json, warnings
        import theano.sandbox.cuda
        before = theano.sandbox.cuda.cuda_available, theano.sandbox.cuda.cuda_enabled
        theano.sandbox.cuda.use("gpu0")
        import numpy, theano.tensor as T
        from pylearn2.sandbox.cuda_convnet.filter_acts import FilterActs
        w = theano.shared(numpy.ones((1, 2, 2, 4), "float32"))
        x = T.ftensor4()
        f = theano.function([x], FilterActs()(x, w))
        out = numpy.array(f(numpy.ones((1, 3, 3, 4), "float32")))
        names = [type(node.op).__name__ for node in f.maker.fgraph.apply_nodes]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            theano.sandbox.cuda.use("gpu1")
        print(json.dumps([
            before, theano.sandbox.cuda.cuda_enabled, type(w).__name__, "GpuFilterActs" in names, out.tolist(),
            [str(warning.message) for warning in caught],
        ]))
        """
    )
    before, enabled, name, lifted, out, messages = result
    assert before == [True, False] and enabled and lifted, result
    assert name == "CudaNdarraySharedVariable", name
    assert out == np.full((4, 2, 2, 4), 4.0).tolist()
    assert messages == ["use: cuda1 is asked for, but Theano uses cuda0 already"], messages


def test_errors_of_the_command():
    from convnet_ops.compat.__main__ import main

    for arguments, status, words in (
        (["/no/such/script.py"], 2, "SCRIPT is '/no/such/script.py'; there is no such file"),
        ([os.curdir], 2, "there is no such file"),
        ([], 2, "SCRIPT"),
        (["--help"], 0, "usage: python -m convnet_ops.compat"),
        (["--unknown"], 2, "SCRIPT"),
    ):
        text = io.StringIO()
        with contextlib.redirect_stderr(text), contextlib.redirect_stdout(text):
            try:
                main(arguments)
            except SystemExit as stop:
                assert stop.code == status, (arguments, stop.code)
            else:
                raise AssertionError(arguments)
        assert words in text.getvalue(), text.getvalue()


def test_gpu_from_host_moves_the_ops():
    """Old code's own transfers at the ends of a net are those of the compiled function."""
    gpu_or_skip()
    cuda = old_cuda()
    x, w = T.ftensor4s("x", "w")
    on_gpu = cuda.gpu_from_host(x), cuda.gpu_contiguous(cuda.gpu_from_host(w))
    out = cuda.host_from_gpu(convnet_ops.FilterActs()(*on_gpu))
    types = [kind.__name__ for kind in op_types(theano.function([x, w], out))]
    assert types.count("GpuFilterActs") == 1 and types.count("GpuFromHost") == 2, types
    assert types.count("CacheableHostFromGpu") == 1, types
