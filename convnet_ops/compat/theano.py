"""Modules of 2014 that Theano 1.0.5 lacks or refuses. Importing this module installs them.

theano.sandbox.cuda with basic_ops, type and var (cuda.py), theano.tensor.signal.downsample (downsample.py), and
theano.tensor.nnet.conv, which gives way to one that compiles for the GPU (conv.py). No class of Theano's is changed.
"""

from convnet_ops.compat import conv, cuda, downsample, modules
from convnet_ops.layout import gpu_contiguous
from theano.gpuarray.basic_ops import HostFromGpu


def _dynamic(name):
    # Computed when read: `use` opens a GPU later than the import.
    if name in ("cuda_available", "cuda_enabled"):
        return getattr(cuda, name)()
    raise AttributeError("theano.sandbox.cuda, as convnet_ops.compat offers it, has no %r" % name)


def _names_of(source, *names):
    return {name: getattr(source, name) for name in names}


_TYPES = _names_of(cuda, "CudaNdarrayType")
_VARIABLES = dict(_names_of(cuda, "CudaNdarraySharedVariable", "float32_shared_constructor"), **_TYPES)
_BASIC_OPS = dict(
    _names_of(cuda, "gpu_from_host", "host_from_gpu", "as_cuda_ndarray_variable", "CudaNdarrayType"),
    gpu_contiguous=gpu_contiguous,
    HostFromGpu=HostFromGpu,
    # Old code reads cuda_enabled and cuda_available here too.
    __getattr__=_dynamic,
)

MODULES = {
    "theano.sandbox.cuda": dict(
        _names_of(cuda, "CudaNdarray", "shared_constructor", "use"), **dict(_BASIC_OPS, **_VARIABLES)
    ),
    "theano.sandbox.cuda.basic_ops": _BASIC_OPS,
    "theano.sandbox.cuda.type": _TYPES,
    "theano.sandbox.cuda.var": _VARIABLES,
    "theano.tensor.nnet.conv": conv.names(),
    "theano.tensor.signal.downsample": _names_of(downsample, *downsample.__all__),
}


def install():
    """Put the modules of `MODULES` into sys.modules; while they are there, theano.shared makes float32 arrays on the
    default GPU of the class CudaNdarraySharedVariable."""
    modules.install(MODULES)
    cuda.install_constructor()


def uninstall():
    """Undo `install`. What was imported from the modules keeps working."""
    cuda.uninstall_constructor()
    modules.uninstall(MODULES)


install()
