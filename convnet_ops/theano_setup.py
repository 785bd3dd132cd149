"""What has to be right before Theano is imported.

Theano 1.0.5 asks NumPy for its BLAS at import time and fails on NumPy 1.22 and later, which dropped the entry it looks
for. `prepare` gives it a BLAS to link with, unless the user named one. It also keeps OpenMP's idle threads from
spinning, unless the user chose: OpenBLAS has threads of its own, and found its cores taken (a matrix product of LeNet
ran six times slower right after one of our ops).
"""

import configparser
import os
import shutil
import subprocess
import sys
import warnings

SUPPORTED_PYTHON = ((3, 8), (3, 11))
SUPPORTED_NUMPY = ((1, 22), (1, 23))


def prepare():
    """Check the versions and import Theano with a `blas.ldflags` that works.

    Does nothing to Theano when it was imported before, or when `blas.ldflags` stands in THEANO_FLAGS or in a
    .theanorc. THEANO_FLAGS is left as it was found; OMP_WAIT_POLICY stays set to PASSIVE where neither it nor
    GOMP_SPINCOUNT was set before.

    Raises
    ------
    ImportError
        The Python or NumPy is not one that Theano 1.0.5 runs on, or setuptools is too new to have pkg_resources.
    """
    check_versions(sys.version_info[:2], _numpy_version())
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "theano" in sys.modules:
        return
    if blas_is_configured(os.environ):
        _import_theano()
        return
    flags = os.environ.get("THEANO_FLAGS")
    os.environ["THEANO_FLAGS"] = ",".join(filter(None, [flags, "blas.ldflags=" + default_blas_ldflags()]))
    try:
        _import_theano()
    finally:
        if flags is None:
            del os.environ["THEANO_FLAGS"]
        else:
            os.environ["THEANO_FLAGS"] = flags


def check_versions(python, numpy):
    """Raise ImportError, in one sentence, unless this Python and this NumPy (pairs of ints) are supported."""
    for name, found, (low, high) in (("Python", python, SUPPORTED_PYTHON), ("NumPy", numpy, SUPPORTED_NUMPY)):
        if not low <= found <= high:
            raise ImportError(
                "convnet_ops runs on %s %d.%d to %d.%d, as Theano 1.0.5 does; this is %s %d.%d."
                % ((name,) + low + high + (name,) + found)
            )


def blas_is_configured(environ):
    """Whether the user chose `blas.ldflags`, in THEANO_FLAGS or in a .theanorc, as Theano looks for them."""
    names = [flag.split("=", 1)[0].strip() for flag in environ.get("THEANO_FLAGS", "").split(",") if "=" in flag]
    if "blas.ldflags" in names:
        return True
    parser = configparser.RawConfigParser()
    files = environ.get("THEANORC", os.path.join("~", ".theanorc")).split(os.pathsep)
    if "THEANORC" not in environ and sys.platform == "win32":
        files.append(os.path.join("~", ".theanorc.txt"))
    parser.read([os.path.expanduser(name) for name in files])
    return parser.has_option("blas", "ldflags")


def default_blas_ldflags():
    """`-lopenblas` if the compiler finds OpenBLAS to link with, else nothing: then Theano uses its own, slower code."""
    compiler = shutil.which("g++") or shutil.which("gcc")
    if compiler is None:
        return ""
    # The compiler answers with a full path when it finds the library, and with the bare name when it does not.
    name = "libopenblas.so"
    answer = subprocess.run(
        [compiler, "-print-file-name=" + name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    return "-lopenblas" if answer.stdout.decode().strip() not in ("", name) else ""


def _numpy_version():
    import numpy

    return tuple(int(part) for part in numpy.__version__.split(".")[:2])


def _import_theano():
    try:
        import pkg_resources  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "convnet_ops needs the pkg_resources module for Theano 1.0.5: install 'setuptools<81'."
        ) from error
    with warnings.catch_warnings():
        # Our own flag, which Theano gets to know when base_acts.py is imported.
        warnings.filterwarnings("ignore", "Theano does not recognise this flag: convnet_ops")
        import theano  # noqa: F401
