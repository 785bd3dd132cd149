"""What surrounds the net in lenet.py: options and device before, Ctrl-C during, pictures after.

Theano reads its settings when it is imported, so nothing here imports it.
"""

import argparse
import configparser
import importlib
import os
import shlex
import signal
import subprocess
import sys

import numpy as np

WRONG_DIGITS_DRAWN = 60
DIGITS_IN_A_ROW = 10


class UsageError(Exception):
    """The run cannot start; the message is one line that says why."""


# ---- numbers on the command line


def positive_int(text):
    """Parse an integer of at least 1."""
    return _number(text, int, "an integer of at least 1", lambda value: value >= 1)


def positive_float(text):
    """Parse a finite number above 0."""
    return _number(text, float, "a number above 0", lambda value: 0 < value < float("inf"))


def seed_int(text):
    """Parse a seed that NumPy takes."""
    return _number(text, int, "an integer from 0 to 4294967295", lambda value: 0 <= value < 2**32)


def _number(text, kind, wanted, is_valid):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not is_valid(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value


# ---- device


def theano_setting(name):
    """Find what the user set `name` to in THEANO_FLAGS or a .theanorc, as Theano does itself.

    Returns
    -------
    tuple of str or None
        The value and the place; (None, None) if the user set nothing.
    """
    flags = shlex.shlex(os.environ.get("THEANO_FLAGS", ""), posix=True)
    flags.whitespace, flags.whitespace_split = ",", True
    pairs = [flag.strip().partition("=") for flag in flags]
    values = [value for key, _, value in pairs if key == name]
    if values:
        return values[-1], "THEANO_FLAGS"
    files = os.environ.get("THEANORC", "~/.theanorc").split(os.pathsep)
    settings = configparser.RawConfigParser()
    settings.read([os.path.expanduser(file) for file in files])
    section, _, option = name.rpartition(".")
    section = section or "global"
    if settings.has_option(section, option):
        return settings.get(section, option), ".theanorc"
    return None, None


def gpu_problem(device):
    """Try to open a GPU in a process of its own; say in one line why it fails, None if it works."""
    # not in this process: a context opened here would stay next to Theano's
    code = f"import pygpu; pygpu.init({device!r})"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", code],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            timeout=120,
        )
    except subprocess.TimeoutExpired:
        return "opening the GPU took more than 120 seconds"
    if probe.returncode == 0:
        return None
    lines = probe.stderr.strip().splitlines()
    return lines[-1] if lines else f"the attempt ended with status {probe.returncode}"


def choose_device(wanted):
    """Decide the device and set THEANO_FLAGS for it; call this before Theano is imported.

    Parameters
    ----------
    wanted : {'cpu', 'cuda', 'auto'}

    Returns
    -------
    tuple of str
        The device as Theano names it, and why it was chosen.

    Raises
    ------
    UsageError
        A GPU is asked for and cannot be opened.
    """
    set_to, place = theano_setting("device")
    if wanted == "auto" and set_to:
        device, reason = set_to, f"set in {place}"
    elif wanted == "cuda" and set_to and set_to.startswith("cuda"):
        device, reason = set_to, f"--device cuda, number set in {place}"
    else:
        device, reason = wanted, f"--device {wanted}"
    if device == "auto":
        problem = gpu_problem("cuda")
        device = "cpu" if problem else "cuda"
        reason = f"no GPU: {problem}" if problem else "a GPU can be opened"
    elif device.startswith("cuda"):
        problem = gpu_problem(device)
        if problem:
            raise UsageError(f"device {device} ({reason}) cannot be used: {problem}")
    elif device != "cpu":
        raise UsageError(f"device {device} ({reason}): known are cpu, cuda, cuda0, cuda1 ...")
    flags = [os.environ.get("THEANO_FLAGS", ""), f"device={device}", "floatX=float32"]
    if device != "cpu" and theano_setting("dnn.enabled")[0] is None:
        flags.append("dnn.enabled=False")  # Theano 1.0.5's cuDNN ops do not compile with cuDNN 9
    # of two settings of one name Theano takes the later
    os.environ["THEANO_FLAGS"] = ",".join(flag for flag in flags if flag)
    return device, reason


def require(module, purpose):
    """Import `module` or raise a `UsageError` that says what it is for."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{purpose} needs the Python package {module}: {error}") from error


# ---- Ctrl-C


class InterruptGuard:
    """Within it the first Ctrl-C only sets `interrupted`, so no update is left half done.

    The second raises KeyboardInterrupt as usual. A process that was started to ignore Ctrl-C, as
    a shell script starts a background job, goes on ignoring it.
    """

    interrupted = False

    def __enter__(self):
        self._before = signal.getsignal(signal.SIGINT)
        if self._before != signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_):
        signal.signal(signal.SIGINT, self._before)

    def _note(self, *_):
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True


# ---- pictures


def draw_pictures(output, history, test, read):
    """Write learning-curve.png, filters.png and wrong-digits.png.

    Parameters
    ----------
    output : Path
        An existing folder.
    history : lenet.History
    test : mnist.Set
    read : ndarray of int, shape (N,)
        What the best parameters take the test digits for.
    """
    draw_learning_curve(history).savefig(output / "learning-curve.png")
    draw_filters(history.best["filters1"]).savefig(output / "filters.png")
    draw_wrong_digits(test, read).savefig(output / "wrong-digits.png")


def _figure(width, height):
    """Make a figure that needs no display and leaves the user's pyplot alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120)
    FigureCanvasAgg(figure)
    return figure


def draw_learning_curve(history):
    """Draw the cost above and the two errors below, over the epochs."""
    from matplotlib.ticker import MaxNLocator

    figure = _figure(7, 6)
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(history.epochs, history.costs, "o-", markersize=3, color="tab:gray")
    above.set_yscale("log")
    above.set_ylabel("training cost\n(mean over the digits, nats)")
    above.set_title("LeNet: cost and errors after each epoch")
    for errors, label, colour in (
        (history.validation_errors, "validation", "tab:blue"),
        (history.test_errors, "test", "tab:orange"),
    ):
        below.plot(history.epochs, errors, "o-", markersize=3, color=colour, label=label)
    best = int(np.argmin(history.validation_errors))
    below.plot(
        history.epochs[best],
        history.validation_errors[best],
        "o",
        markersize=10,
        fillstyle="none",
        color="black",
        label="best validation error: parameters kept",
    )
    below.set_xlabel("epochs (passes over the training digits)")
    below.set_ylabel("digits read wrongly (%)")
    below.set_ylim(bottom=0)
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.legend()
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    return figure


def draw_filters(filters):
    """Draw the filters (F, 1, R, S) of the first layer, all on one scale of grey."""
    columns = min(8, len(filters))
    rows = -(-len(filters) // columns)
    figure = _figure(1 + 0.8 * columns, 1 + 0.9 * rows)
    limit = float(np.abs(filters).max())
    all_axes = figure.subplots(rows, columns, squeeze=False)
    for number, axes in enumerate(all_axes.flat):
        axes.axis("off")
        if number < len(filters):
            image = axes.imshow(filters[number, 0], cmap="gray", vmin=-limit, vmax=limit)
            axes.set_title(str(number), fontsize=7, pad=2)
    rows_columns = " x ".join(map(str, filters.shape[2:]))
    figure.suptitle(f"The {len(filters)} filters of the first layer, {rows_columns} pixels each")
    figure.colorbar(image, ax=all_axes, label="weight", fraction=0.05, pad=0.03)
    return figure


def draw_wrong_digits(test, read):
    """Draw the digits read wrongly, each with its true label and what it was taken for."""
    wrong = np.flatnonzero(read != test.labels)
    drawn = wrong[:WRONG_DIGITS_DRAWN]
    count = f"{len(wrong)} of {len(test.labels)} test digits read wrongly"
    if not len(wrong):
        figure = _figure(6, 1.5)
        figure.text(0.5, 0.5, f"None of the {len(test.labels)} test digits was read wrongly", ha="center", va="center")
        return figure
    if len(drawn) < len(wrong):
        count += f" (the first {len(drawn)} are shown)"
    columns = DIGITS_IN_A_ROW if len(drawn) > DIGITS_IN_A_ROW else max(4, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = _figure(1.1 * columns, 0.7 + 1.4 * rows)
    for number, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if number < len(drawn):
            digit = drawn[number]
            axes.imshow(test.images[digit, 0], cmap="gray_r", vmin=0, vmax=1)
            axes.set_title(f"true {test.labels[digit]}\nread {read[digit]}", fontsize=9)
    figure.suptitle(count)
    figure.tight_layout()
    return figure
