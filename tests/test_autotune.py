"""CONVNET_OPS_AUTOTUNE: rows chosen by time, and the file that keeps the answers."""

import contextlib
import io
import os
import tempfile

import numpy as np
from convnet_ops import FilterActs, ImageActs, WeightActs, reference
from convnet_ops.opt import GPU_TWINS

from tests.comparison import assert_close
from tests.processors import Processor, gpu_or_skip


@contextlib.contextmanager
def environment(**values):
    previous = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def run_tuned(path, op, *arrays, variant=""):
    """The op's outputs, and what it printed of its choice."""
    text = io.StringIO()
    with environment(CONVNET_OPS_AUTOTUNE="1", CONVNET_OPS_AUTOTUNE_FILE=path, CONVNET_OPS_PRINT_CONFIG="1"):
        with contextlib.redirect_stderr(text):
            outputs = Processor("gpu", variant).run(op, *arrays)
    return outputs, text.getvalue()


def case(op_class, stride):
    """The arrays of a small convolution, and what the op makes of them."""
    rng = np.random.RandomState()
    images, filters = (rng.standard_normal(shape).astype("float32") for shape in ((32, 7, 7, 4), (32, 3, 3, 8)))
    outputs = (7 - 3) // stride + 1
    hid = rng.standard_normal((8, outputs, outputs, 4)).astype("float32")
    size, taps = np.array([7, 7]), np.array([3, 3])
    if op_class is FilterActs:
        return (images, filters), reference.filter_acts(images, filters, stride=stride)
    if op_class is ImageActs:
        return (hid, filters, size), reference.img_acts(hid, filters, (7, 7), stride=stride)
    return (images, hid, taps), reference.weight_acts(images, hid, (3, 3), stride=stride)


def lines_of(path):
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


def write(path, *lines):
    with open(path, "w", encoding="utf-8") as file:
        file.write("".join(line + "\n" for line in lines))


def test_answers_are_kept_and_right():
    for op_class in (FilterActs, ImageActs, WeightActs):
        yield check_rows, op_class
        yield check_tiles, op_class


def check_rows(op_class):
    gpu_or_skip()
    op = op_class(stride=2)
    arrays, wanted = case(op_class, 2)
    family = GPU_TWINS[op_class].kernel_families[0]

    def run_rows(path):
        return run_tuned(path, op, *arrays, variant="tiles=none")

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "answers.txt")
        outputs, _ = run_rows(path)
        assert_close(outputs[0], wanted, 300, "tuned %s" % op_class.__name__)
        # One answer to each question, though the op ran twice. ImageActs first asks whether by columns or not.
        lines = lines_of(path)
        ways = [line.split()[0] for line in lines if line.startswith("ways_")]
        assert len(ways) == (op_class is ImageActs) and len(lines) == 1 + 2 * len(ways), lines
        key, row, _ = next(line for line in lines if line.startswith(family.name + ":")).split()
        assert row in [row.name for row in family.rows], lines

        # A file with another answer is followed; what no table holds is asked anew.
        others = [r.name for r in family.rows if r.name.startswith("fma") and r.name.endswith("n4")]
        other = next(name for name in others if name != row)
        followed = os.path.join(folder, "followed.txt")
        correlation = [way + " correlation 1" for way in ways]
        write(followed, "%s %s 1" % (key, other), *correlation)
        outputs, printed = run_rows(followed)
        assert "row %s," % other in printed, printed
        assert_close(outputs[0], wanted, 300, "%s by an answer from a file" % op_class.__name__)
        stale = os.path.join(folder, "stale.txt")
        write(stale, "%s no_such_row 1" % key, *correlation)
        run_rows(stale)
        assert len(lines_of(stale)) == 2 + len(ways)

        for way in ways:
            by_columns = os.path.join(folder, "columns.txt")
            write(by_columns, way + " columns 1")
            outputs, printed = run_rows(by_columns)
            assert "img_acts_columns: " in printed, printed
            assert_close(outputs[0], wanted, 300, "by columns")


def check_tiles(op_class):
    gpu_or_skip()
    op = op_class()
    arrays, wanted = case(op_class, 1)
    family = GPU_TWINS[op_class].kernel_families[0]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "answers.txt")
        run_tuned(path, op, *arrays)
        # ImageActs asks of tiles beside the one of its two direct ways that was faster: that answer stays.
        others = [line for line in lines_of(path) if not line.startswith("tiles_")]
        answers = [line.split() for line in lines_of(path) if line.startswith("tiles_" + family.name)]
        assert len(answers) == 1, lines_of(path)
        for name in ("none", "winograd_2x2_3x3", "winograd_4x4_3x3", "fft_16x16"):
            followed = os.path.join(folder, name)
            write(followed, "%s %s 1" % (answers[0][0], name), *others)
            outputs, printed = run_tuned(followed, op, *arrays)
            assert (": tiles " in printed) == (name != "none"), printed
            assert name == "none" or "row %s," % name in printed, printed
            assert_close(outputs[0], wanted, 300, "%s by tiles %s" % (op_class.__name__, name))


def test_halves_are_tried_and_have_answers_of_their_own():
    for op_class in (FilterActs, ImageActs, WeightActs):
        yield check_halves, op_class


def check_halves(op_class):
    gpu_or_skip()
    arrays, wanted = case(op_class, 2)
    name = GPU_TWINS[op_class].kernel_families[0].name
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "answers.txt")

        def run_half(path):
            outputs, printed = run_tuned(path, op_class(stride=2, precision="float16"), *arrays, variant="tiles=none")
            assert_close(outputs[0], wanted, 300, "tuned %s" % op_class.__name__, "float16")
            return printed

        run_half(path)
        keys = [line.split()[0] for line in lines_of(path)]
        (halves,) = [key for key in keys if key.startswith("halves_%s_f16:" % name)]
        # Both ways were timed, each with its rows.
        assert any(key.startswith(name + "_f16:") for key in keys), keys
        assert any(key.startswith(name + ":") for key in keys), keys
        for answer in ("halves", "direct"):
            followed = os.path.join(folder, answer)
            write(followed, "%s %s 1" % (halves, answer))
            printed = run_half(followed)
            assert (name + "_f16: " in printed) == (answer == "halves"), printed
        # 'tf32' asks nothing of the kind.
        tf32 = os.path.join(folder, "tf32.txt")
        _, printed = run_tuned(tf32, op_class(stride=2, precision="tf32"), *arrays, variant="tiles=none")
        assert "_f16" not in printed and not any("f16" in line for line in lines_of(tf32)), printed


def test_a_file_that_cannot_be_written_is_an_error():
    gpu_or_skip()
    arrays = [np.ones(shape, "float32") for shape in ((3, 5, 5, 4), (3, 2, 2, 4))]
    try:
        run_tuned(os.path.join(os.sep, "no", "such", "folder", "answers.txt"), FilterActs(), *arrays)
    except RuntimeError as error:
        assert "CONVNET_OPS_AUTOTUNE_FILE" in str(error), error
    else:
        raise AssertionError("no error")
