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


def run_tuned(path, op, *arrays):
    """The op's outputs, and what it printed of its choice."""
    text = io.StringIO()
    with environment(CONVNET_OPS_AUTOTUNE="1", CONVNET_OPS_AUTOTUNE_FILE=path, CONVNET_OPS_PRINT_CONFIG="1"):
        with contextlib.redirect_stderr(text):
            outputs = Processor("gpu").run(op, *arrays)
    return outputs, text.getvalue()


def test_answers_are_kept_and_right():
    for op_class in (FilterActs, ImageActs, WeightActs):
        yield check_answers, op_class


def check_answers(op_class):
    gpu_or_skip()
    rng = np.random.RandomState()
    images, filters, hid = (
        rng.standard_normal(shape).astype("float32") for shape in ((32, 6, 6, 4), (32, 3, 3, 8), (8, 4, 4, 4))
    )
    size, taps = np.array([6, 6]), np.array([3, 3])
    arrays, wanted = {
        FilterActs: ((images, filters), lambda: reference.filter_acts(images, filters)),
        ImageActs: ((hid, filters, size), lambda: reference.img_acts(hid, filters, (6, 6))),
        WeightActs: ((images, hid, taps), lambda: reference.weight_acts(images, hid, (3, 3))),
    }[op_class]
    wanted = wanted()
    family = GPU_TWINS[op_class].kernel_families[0]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "answers.txt")
        outputs, _ = run_tuned(path, op_class(), *arrays)
        assert_close(outputs[0], wanted, 300, "tuned %s" % op_class.__name__)
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
        # One answer, though the op ran twice.
        assert len(lines) == 1, lines
        key, row, _ = lines[0].split()
        assert key.startswith(family.name + ":") and row in [row.name for row in family.rows], lines

        # A file with another answer is followed; what no table holds is asked anew.
        others = [r.name for r in family.rows if r.name.startswith("fma") and r.name.endswith("n4")]
        other = next(name for name in others if name != row)
        followed = os.path.join(folder, "followed.txt")
        with open(followed, "w", encoding="utf-8") as file:
            file.write("%s %s 1\n" % (key, other))
        outputs, printed = run_tuned(followed, op_class(), *arrays)
        assert "row %s," % other in printed, printed
        assert_close(outputs[0], wanted, 300, "%s by an answer from a file" % op_class.__name__)
        stale = os.path.join(folder, "stale.txt")
        with open(stale, "w", encoding="utf-8") as file:
            file.write("%s no_such_row 1\n" % key)
        run_tuned(stale, op_class(), *arrays)
        with open(stale, encoding="utf-8") as file:
            assert len(file.read().splitlines()) == 2


def test_a_file_that_cannot_be_written_is_an_error():
    gpu_or_skip()
    arrays = [np.ones(shape, "float32") for shape in ((3, 5, 5, 4), (3, 2, 2, 4))]
    try:
        run_tuned(os.path.join(os.sep, "no", "such", "folder", "answers.txt"), FilterActs(), *arrays)
    except RuntimeError as error:
        assert "CONVNET_OPS_AUTOTUNE_FILE" in str(error), error
    else:
        raise AssertionError("no error")
