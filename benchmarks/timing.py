"""Clocks, and the comparison of results, that the benchmarks share."""

import functools
import time

import numpy as np

# Threads that slept wake up slowly.
WARM_SECONDS = 0.03


def relative_error(out, reference):
    reference = reference.astype("float64")
    return float(np.linalg.norm(out - reference) / np.linalg.norm(reference))


def time_functions(functions, repeats):
    """{key: median milliseconds of one call on the GPU}, interleaved."""
    return interleave({key: repeat(function, elapsed_cuda) for key, function in functions.items()}, repeats)


def interleave(timers, repeats):
    """{key: median milliseconds} of `repeats` rounds, in each of which every timer is called once."""
    times = {key: [] for key in timers}
    for _ in range(repeats):
        for key, timer in timers.items():
            times[key].append(timer())
    return {key: float(np.median(values)) for key, values in times.items()}


def repeat(function, elapsed, least_ms=20.0):
    """A timer of one repeat of a Theano function: as many calls as swamp the clock. Warms up."""
    function.fn(n_calls=3)
    return functools.partial(elapsed, function, max(1, int(least_ms / max(elapsed(function, 3), 0.01))))


def elapsed_cuda(function, calls):
    """Milliseconds of one of `calls` calls. The events are on the default stream, which waits for gpuarray's."""
    from pycuda import driver

    function.fn()  # finds the caches as others left them
    begin, end = driver.Event(), driver.Event()
    begin.record()
    function.fn(n_calls=calls)
    end.record()
    end.synchronize()
    return begin.time_till(end) / calls


def elapsed_cpu(function, calls):
    """Milliseconds of one of `calls` calls, after so many that all threads are awake and all pages mapped."""
    warm = time.perf_counter() + WARM_SECONDS
    while time.perf_counter() < warm:
        function.fn()
    begin = time.perf_counter()
    function.fn(n_calls=calls)
    return 1e3 * (time.perf_counter() - begin) / calls
