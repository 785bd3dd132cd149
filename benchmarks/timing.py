"""Clocks, and the comparison of results, that the benchmarks share."""

import functools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

# Threads that slept wake up slowly.
WARM_SECONDS = 0.03


def relative_error(out, reference):
    """||out - reference|| / ||reference|| in float64, by threads: large layers have hundreds of megabytes."""

    def squares(i):
        exact = np.asarray(reference[i], dtype="float64")
        difference = out[i] - exact
        return np.vdot(difference, difference), np.vdot(exact, exact)

    assert out.shape == reference.shape, (out.shape, reference.shape)
    with ThreadPoolExecutor() as pool:
        of_difference, of_reference = np.sum(list(pool.map(squares, range(len(out)))), axis=0)
    return float(np.sqrt(of_difference / of_reference))


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
