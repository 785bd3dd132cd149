"""What the tests of examples/lenet.py and examples/mnist.py share: made-up digits, their files, runs of the example.

The made-up digits are small and easy: a few dozen minibatches teach them.
"""

import atexit
import contextlib
import gzip
import importlib
import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import lenet
import mnist
import numpy as np

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TIMEOUT = 300  # seconds for one run of the example; compiling takes most of them

# of all files of these tests
folder = Path(tempfile.mkdtemp(prefix="test_lenet_"))
atexit.register(shutil.rmtree, folder, ignore_errors=True)


def made_up_pairs(counts, seed=1):
    """(x, y) pairs of digits that are easy to learn: class k is a bar at a height of its own."""
    rng = np.random.RandomState(seed)
    pairs = []
    for count in counts:
        y = rng.randint(0, 10, count)
        x = 0.3 * rng.rand(count, 28, 28)
        for image, label in zip(x, y):
            image[2 + 2 * label : 5 + 2 * label, 4:24] += 0.6
        pairs.append((x.reshape(count, 784).astype(np.float32), y.astype(np.int64)))
    return tuple(pairs)


class Python2Pickler(pickle._Pickler):
    """Writes bytes and str as Python 2 wrote its str: opcodes STRING and (SHORT_)BINSTRING."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_python2_str(self, thing):
        content = thing if isinstance(thing, bytes) else thing.encode("latin1")
        if not self.bin:
            self.write(b"S" + repr(content)[1:].encode("ascii") + b"\n")
        elif len(content) < 256:
            self.write(b"U" + bytes([len(content)]) + content)
        else:
            self.write(b"T" + struct.pack("<i", len(content)) + content)
        self.memoize(thing)

    dispatch[bytes] = save_python2_str
    dispatch[str] = save_python2_str


def python2_pickle(thing, protocol):
    stream = io.BytesIO()
    Python2Pickler(stream, protocol).dump(thing)
    return stream.getvalue()


def write_gzip(name, content):
    path = folder / name
    path.write_bytes(gzip.compress(content, 1))
    return path


def idx(values):
    values = np.asarray(values, np.uint8)
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()


IDX_TRAIN, IDX_TEST = 10030, 20


def idx_arrays():
    """MNIST's four arrays; each image is told by its first pixels."""
    arrays = {}
    for name, count in (("train", IDX_TRAIN), ("t10k", IDX_TEST)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 0, 0], images[:, 0, 1] = np.arange(count) // 256, np.arange(count) % 256
        arrays[f"{name}-images-idx3-ubyte"] = images
        arrays[f"{name}-labels-idx1-ubyte"] = np.arange(count) % 10
    return arrays


def write_idx(name, dotted=False, gzipped=False, **changed):
    """Write an IDX folder; `changed` gives other bytes, or None, for train_images and so on."""
    path = folder / name
    path.mkdir()
    for file, array in idx_arrays().items():
        content = idx(array)
        content = gzip.compress(content, 1) if gzipped else content
        content = changed.get("_".join(file.split("-")[:2]), content)
        if dotted:
            file = file.replace("-idx", ".idx")
        if content is not None:
            (path / (file + ".gz" if gzipped else file)).write_bytes(content)
    return path


def error_of(path):
    """The message of the DataError that loading `path` raises; it must be one line."""
    try:
        mnist.load(path)
    except mnist.DataError as error:
        assert "\n" not in str(error), str(error)
        return str(error)
    raise AssertionError(f"{path} was loaded")


def assert_png(path):
    """The file is a PNG of some size that shows more than one colour."""
    from matplotlib.image import imread

    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n", path
    picture = imread(str(path))
    assert min(picture.shape[:2]) > 100, (path, picture.shape)
    assert len(np.unique(picture[..., :3])) > 10, path


def command(*options):
    return [sys.executable, str(EXAMPLES / "lenet.py")] + [str(option) for option in options]


def call_main(*options):
    """Run the example in this process up to its first error; give status and standard error."""
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        try:
            status = lenet.main([str(option) for option in options])
        except SystemExit as stop:  # argparse's way
            status = stop.code
    return status, stderr.getvalue()


def needs(package):
    """Skip the test where an optional package is missing, and only then."""

    def decorate(test):
        try:
            importlib.import_module(package)
        except ImportError as error:
            return unittest.skip(f"needs the optional package {package}: {error}")(test)
        return test

    return decorate


def example_environment(**changes):
    """The environment for a run of the example: that of the tests, without what they told Theano of a GPU."""
    flags = [flag for flag in os.environ.get("THEANO_FLAGS", "").split(",") if not flag.startswith("device=")]
    kept = {name: value for name, value in os.environ.items() if name != "THEANO_GPU_IS_ALREADY_ACTIVE"}
    return dict(kept, THEANO_FLAGS=",".join(flags), **changes)


def run_example(*options, **environment):
    """Run the example to its end in a process of its own."""
    return subprocess.run(
        command(*options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=TIMEOUT,
        env=example_environment(**environment),
    )


# made-up digits as the tutorial's file, and loaded
pickle_path = write_gzip("mnist.pkl.gz", python2_pickle(made_up_pairs((400, 130, 120)), 2))
made_up = mnist.load(pickle_path)
