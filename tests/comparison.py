"""One comparison for all tests: ||out - ref|| / ||ref|| against a tolerance, and a report that helps to find faults."""

import numpy as np


def tolerance(dtype, terms, precision="float32", size=1000):
    """The error allowed for `size` sums of `terms` products, as a share of their norm."""
    if precision in ("tf32", "float16"):
        # Two operands are each off by up to 0.7 of a unit in the eleventh bit. Few sums may all come out small: 8 are
        # off by over 1e-3 in one draw of 600, by over 2e-3 in one of 200,000.
        return 1e-3 if size >= 16 else 2e-3
    if dtype == "float64":
        return 1e-13
    return 2e-6 if terms <= 5000 else 5e-6


def assert_close(out, reference, terms, what, precision="float32", slack=1):
    """Fail unless `out` has the shape of `reference`, no NaN, and an error within `slack` times `tolerance`."""
    assert out.shape == reference.shape, "%s: shape %s, reference %s" % (what, out.shape, reference.shape)
    limit = slack * tolerance(out.dtype.name, terms, precision, out.size)
    difference = np.abs(out.astype("float64") - reference)
    scale = np.linalg.norm(reference)
    error = np.linalg.norm(difference) / scale if scale > 0 else np.linalg.norm(difference)
    # NaN compares false with everything: only a number within the limit passes.
    if error <= limit:
        return
    allowed = limit * np.sqrt(scale**2 / max(1, reference.size))
    wrong = ~(difference <= 4 * allowed)
    worst = np.unravel_index(np.argmax(np.where(np.isnan(difference), np.inf, difference)), difference.shape)
    raise AssertionError(
        "%s: shape %s, %s: error %.3g is %.3g times the tolerance; "
        "%d of %d values are off, the worst at %s: %r, reference %r"
        % (what, out.shape, out.dtype, error, error / limit, wrong.sum(), out.size, worst, out[worst], reference[worst])
    )


def slack_of(processor, out):
    """`slack` for results of a processor that may force tiles.

    Winograd's 4 x 4 have errors of 0.9e-6 to 1.6e-6, of few values more or less by chance: of 32 by 0.4e-6.
    """
    return 1.5 if processor.variant.startswith("tiles=winograd_4x4_3x3") and out.size < 1000 else 1


def assert_identical(out, reference, what):
    """Fail unless both hold the same values, NaN at the same places."""
    assert out.shape == reference.shape, "%s: shape %s, reference %s" % (what, out.shape, reference.shape)
    np.testing.assert_array_equal(out, reference.astype(out.dtype), err_msg=what)
