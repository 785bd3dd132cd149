"""What theano.sandbox.cuda offered, in terms of Theano's GPU backend of today (gpuarray), and of the host.

On the GPU means: in Theano's default context, that of device=cuda or init_gpu_device=cuda. Where there is none, what
used to move to the GPU stays a host variable, which the ops of this library take as well.
"""

import warnings

import numpy as np
import theano
import theano.gpuarray
import theano.tensor as T
from theano.compile import shared_constructor as register_constructor
from theano.gpuarray.basic_ops import HostFromGpu, as_gpuarray_variable
from theano.gpuarray.type import (
    ContextNotDefined,
    GpuArraySharedVariable,
    GpuArrayType,
    get_context,
    gpuarray_shared_constructor,
)
from theano.tensor.sharedvar import tensor_constructor

try:
    import pygpu
except ImportError:
    pygpu = None


def default_context():
    """Theano's default GPU context, or None."""
    try:
        return get_context(None)
    except ContextNotDefined:
        return None


def cuda_available():
    """Whether there is a GPU that Theano could use, whatever its flags say."""
    if default_context() is not None:
        return True
    if pygpu is None:
        return False
    try:
        return pygpu.gpuarray.count_devices("cuda", 0) > 0
    except pygpu.gpuarray.GpuArrayException:  # no driver
        return False


def cuda_enabled():
    """Whether Theano computes on a GPU by default: device=cuda, or a call of `use`."""
    return default_context() is not None and gpuarray_shared_constructor in theano.shared.constructors


def _need_context(name):
    context = default_context()
    if context is None:
        raise RuntimeError(
            "%s: Theano has no default GPU: its flag device is %r; device=cuda opens one" % (name, theano.config.device)
        )
    return context


class _Float32Type(type):
    def __instancecheck__(cls, thing):
        return isinstance(thing, GpuArrayType) and thing.dtype == "float32"


class CudaNdarrayType(metaclass=_Float32Type):
    """The old name of GpuArrayType of float32: calling it makes one, and isinstance() is true for all of them.

    Parameters
    ----------
    broadcastable : sequence of bool
    name : str, optional

    Raises
    ------
    RuntimeError
        Theano has no default GPU.
    """

    def __new__(cls, broadcastable, name=None):
        _need_context("CudaNdarrayType")
        return GpuArrayType("float32", broadcastable, context_name=None, name=name)


class _Float32Array(type):
    def __instancecheck__(cls, thing):
        return pygpu is not None and isinstance(thing, pygpu.gpuarray.GpuArray) and thing.dtype == "float32"


class CudaNdarray(metaclass=_Float32Array):
    """The old name of pygpu's array of float32: calling it copies an array to the GPU.

    Parameters
    ----------
    value : array

    Raises
    ------
    RuntimeError
        Theano has no default GPU.
    """

    def __new__(cls, value):
        context = _need_context("CudaNdarray")
        return pygpu.gpuarray.array(np.asarray(value), dtype="float32", copy=True, order="C", context=context)


class CudaNdarraySharedVariable(GpuArraySharedVariable):
    """A shared variable of float32 on the GPU; its class has the old name, for code that looks for 'Cuda' in it."""


def gpu_from_host(x):
    """`x` on the GPU, or, where Theano has no default GPU, on the host.

    Parameters
    ----------
    x : variable or array
        One that is on a GPU already, in any context, is returned as it is.

    Returns
    -------
    variable
    """
    if isinstance(getattr(x, "type", None), GpuArrayType):
        return x
    if default_context() is None:
        return T.as_tensor_variable(x)
    return as_gpuarray_variable(x, None)


as_cuda_ndarray_variable = gpu_from_host


def host_from_gpu(x):
    """`x` on the host: a transfer from the GPU, or `x` itself if it is there."""
    if isinstance(getattr(x, "type", None), GpuArrayType):
        return HostFromGpu()(x)
    return T.as_tensor_variable(x)


def float32_shared_constructor(value, name=None, strict=False, allow_downcast=None, borrow=False, broadcastable=None):
    """A shared variable of float32 on the GPU, or, where Theano has no default GPU, on the host.

    Parameters
    ----------
    value : array of float32
        On the host or on the GPU.
    name, strict, allow_downcast, borrow, broadcastable
        Those of theano.shared.

    Returns
    -------
    CudaNdarraySharedVariable, or TensorSharedVariable on the host

    Raises
    ------
    TypeError
        `value` is no array, or not of float32.
    """
    if not isinstance(value, np.ndarray) and not isinstance(value, CudaNdarray):
        raise TypeError("float32_shared_constructor: value is a %s; it must be an array of float32" % type(value))
    if value.dtype != "float32":
        raise TypeError("float32_shared_constructor: value is %s; it must be float32" % value.dtype)
    options = {"name": name, "strict": strict, "allow_downcast": allow_downcast}
    context = default_context()
    if context is None:
        return tensor_constructor(value, borrow=borrow, broadcastable=broadcastable, **options)
    variable_type = GpuArrayType("float32", broadcastable or (False,) * value.ndim, context_name=None)
    array = pygpu.gpuarray.array(value, copy=not borrow, context=context)
    return CudaNdarraySharedVariable(type=variable_type, value=array, **options)


def shared_constructor(value, **options):
    """The same as one of the constructors of theano.shared, for arrays that Theano itself would put on the GPU.

    A TypeError passes the value on to the other constructors.
    """
    if not cuda_enabled() or "target" in options or getattr(value, "ndim", 0) == 0:
        raise TypeError("shared_constructor: not an array that goes to the default GPU")
    return float32_shared_constructor(value, **options)


def install_constructor():
    """Make theano.shared try `shared_constructor` first."""
    uninstall_constructor()
    register_constructor(shared_constructor)


def uninstall_constructor():
    """Undo install_constructor."""
    if shared_constructor in theano.shared.constructors:
        register_constructor(shared_constructor, remove=True)


def use(device, force=False, default_to_move_computation_to_gpu=True, move_shared_float32_to_gpu=True):
    """Open a GPU and compute on it by default, as theano.gpuarray.use does.

    Parameters
    ----------
    device : str
        'gpu', 'gpu0', 'gpu1' ..., or today's 'cuda', 'cuda0' ...; 'cpu' leaves everything as it is.
    force, default_to_move_computation_to_gpu, move_shared_float32_to_gpu
        Those of theano.gpuarray.use, where the last is move_shared_to_gpu.

    Raises
    ------
    ValueError
        Another device.
    RuntimeError
        pygpu is not installed, or the GPU cannot be opened.
    """
    if device == "cpu":
        return
    if not device.startswith(("gpu", "cuda")):
        raise ValueError("use: device is %r; it must be 'cpu', 'gpu', 'gpu0' ..., 'cuda', 'cuda0' ..." % (device,))
    if pygpu is None:
        raise RuntimeError("use: device is %r, and pygpu, which Theano needs for it, is not installed" % device)
    device = device.replace("gpu", "cuda")
    context = default_context()
    if context is not None:
        if device not in ("cuda", getattr(context, "dev", device)):
            warnings.warn("use: %s is asked for, but Theano uses %s already" % (device, context.dev), stacklevel=2)
        device = ""  # only the defaults are set
    constructors = list(theano.shared.constructors)
    theano.gpuarray.use(
        device,
        force=force and bool(device),
        default_to_move_computation_to_gpu=default_to_move_computation_to_gpu,
        move_shared_to_gpu=move_shared_float32_to_gpu and gpuarray_shared_constructor not in constructors,
    )
    if shared_constructor in constructors:
        install_constructor()
