"""Schedules are pure functions of the update number: Algorithm 1, eq. 1 and their properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_rnnprune.pruning import CubicSchedule, OneShotSchedule, RampSchedule


def algorithm_1(n, theta, phi, start, ramp, freq):
    """The threshold exactly as arXiv 1704.05119 prints it, for an update where masks change."""
    if n < ramp:
        return theta * (n - start + 1) / freq
    return (theta * (ramp - start + 1) + phi * (n - ramp + 1)) / freq


def test_ramp_follows_algorithm_1():
    schedule = RampSchedule(
        start=100, ramp=500, end=1000, freq=100, start_slope=0.01, ramp_slope=0.02
    )
    mask_updates = [n for n in range(1200) if schedule.is_mask_update(n)]
    assert mask_updates == [200, 300, 400, 500, 600, 700, 800, 900]  # both ends strict
    for n in mask_updates:
        assert schedule.threshold(n) == pytest.approx(algorithm_1(n, 0.01, 0.02, 100, 500, 100))
    assert schedule.threshold(100) == 0.0
    assert schedule.threshold(299) == schedule.threshold(200)
    assert schedule.threshold(5000) == schedule.threshold(900)


def test_eq_1_by_hand():
    schedule = RampSchedule.from_quantile(
        q=0.5, start=1000, ramp=5000, end=10000, freq=100, ramp_factor=2
    )
    assert schedule.start_slope == pytest.approx(2 * 0.5 * 100 / (2 * 4000 + 3 * 5000))
    assert schedule.ramp_slope == pytest.approx(2 * schedule.start_slope)


windows = st.tuples(
    st.integers(0, 500), st.integers(1, 500), st.integers(1, 2000), st.integers(1, 50)
).map(lambda w: (w[0], w[0] + w[1], w[0] + w[1] + w[2] + w[3], w[3]))


@given(windows, st.floats(1e-4, 10), st.floats(1, 4))
def test_ramp_never_falls(window, q, factor):
    start, ramp, end, freq = window
    schedule = RampSchedule.from_quantile(q, start, ramp, end, freq, factor)
    thresholds = [schedule.threshold(n) for n in range(end + 2 * freq)]
    assert all(a <= b for a, b in zip(thresholds, thresholds[1:], strict=False))
    assert thresholds[start] == 0.0
    assert thresholds[-1] > 0.0


@given(windows, st.floats(1e-4, 10))
def test_ramp_reaches_q_within_one_mask_update(window, q):
    start, ramp, end, freq = window
    schedule = RampSchedule.from_quantile(q, start, ramp, end, freq, ramp_factor=1.5)
    # Two updates' worth more: Algorithm 1 adds one update before the ramp and one after it.
    step = schedule.ramp_slope * (freq + 2) / freq
    assert q - step <= schedule.threshold(end) <= q + step


def test_ramp_factor_2_overshoots_as_derived():
    a, b = 4 * 1000, 5 * 1000  # 20 epochs of 1000 updates: start 1, ramp 5, end 10
    schedule = RampSchedule.from_quantile(1.0, 1000, 1000 + a, 1000 + a + b, 1, ramp_factor=2)
    expected = (2 * a + 4 * b) / (2 * a + 3 * b)
    assert expected == pytest.approx(1.217, abs=1e-3)
    assert schedule.threshold(10**6) == pytest.approx(expected, rel=1e-3)


@given(windows, st.floats(0, 0.99), st.floats(0, 0.99))
def test_cubic_rises_from_initial_to_final(window, a, b):
    start, _, end, freq = window
    initial, final = min(a, b), max(a, b)
    schedule = CubicSchedule(start, end, freq, final, initial)
    targets = [schedule.sparsity(n) for n in range(end + 1)]
    assert targets[start] == initial
    assert targets[-1] == final
    assert all(x <= y + 1e-12 for x, y in zip(targets, targets[1:], strict=False))


def test_cubic_by_hand():
    schedule = CubicSchedule(start=0, end=401, freq=100, final=0.8)
    assert [schedule.sparsity(n) for n in (0, 100, 200, 300, 400)] == pytest.approx(
        [0, 0.8 * (1 - 0.75**3), 0.8 * (1 - 0.5**3), 0.8 * (1 - 0.25**3), 0.8]
    )


def test_one_shot_prunes_once():
    schedule = OneShotSchedule(update=7, final=0.9)
    assert [n for n in range(20) if schedule.is_mask_update(n)] == [7]
    assert (schedule.sparsity(6), schedule.sparsity(7), schedule.sparsity(99)) == (0.0, 0.9, 0.9)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RampSchedule(-1, 5, 10, 1, 0.1, 0.1), "0 <= start <= ramp <= end, got start=-1"),
        (lambda: RampSchedule(5, 3, 10, 1, 0.1, 0.1), "start <= ramp <= end"),
        (lambda: RampSchedule(0, 20, 10, 1, 0.1, 0.1), "start <= ramp <= end"),
        (lambda: RampSchedule(10, 10, 10, 1, 0.1, 0.1), "0 <= start < end"),
        (lambda: RampSchedule(0, 5, 10, 0, 0.1, 0.1), "freq >= 1, got 0"),
        (lambda: RampSchedule(0, 5, 10, 1, 0.0, 0.1), "start_slope > 0, got 0"),
        (lambda: RampSchedule(0, 5, 10, 1, 0.1, -1), "ramp_slope > 0, got -1"),
        (lambda: RampSchedule(1, 5, 10, 100, 0.1, 0.1), "a mask update between start=1 and end=10"),
        (lambda: RampSchedule.from_quantile(0.0, 0, 5, 10), "q > 0, got 0.0; `rnnprune calibrate`"),
        (lambda: RampSchedule.from_quantile(float("nan"), 0, 5, 10), "q > 0, got nan"),
        (lambda: RampSchedule.from_quantile(1.0, 5, 5, 5), "0 <= start < end"),
        (lambda: RampSchedule.from_quantile(1.0, 0, 5, 10, 1, 0), "ramp_factor > 0, got 0"),
        (lambda: CubicSchedule(10, 10, 1, 0.9), "0 <= start < end"),
        (lambda: CubicSchedule(1, 50, 100, 0.9), "lower freq or widen the window"),
        (lambda: CubicSchedule(0, 10, 1, 1.0), r"final in \[0, 1\), got 1.0"),
        (lambda: CubicSchedule(0, 10, 1, 0.5, -0.1), r"initial in \[0, 1\), got -0.1"),
        (lambda: CubicSchedule(0, 10, 1, 0.5, 0.6), "masks only shrink"),
        (lambda: OneShotSchedule(-1, 0.9), "update >= 0, got -1"),
        (lambda: OneShotSchedule(1, 1.5), r"final in \[0, 1\), got 1.5"),
    ],
)
def test_bad_schedules_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
