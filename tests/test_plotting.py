"""The pictures: their axes, and what happens at the edges of what they can be given."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from globopt_jax import local_minima, plotting
from globopt_jax.deep_linear import History
from globopt_jax.homogeneous import Certificate, rigorous


def grade(objective, lower, *, polar=(1.0, 1.2), lam=1.0, proved=True):
    """A certificate with given numbers."""
    numbers = {name: np.asarray(0.0) for name in Certificate._fields if "multipliers" not in name}
    numbers |= {
        "objective": np.asarray(objective),
        "lower_bound": np.asarray(lower),
        "polar_lower": np.asarray(polar[0] * lam),
        "polar_upper": np.asarray(polar[1] * lam),
        "lam": np.asarray(lam),
        "rigorous": np.asarray(proved),
    }
    none = rigorous.empty_multipliers()
    return Certificate(**numbers, multipliers=none, polar_multipliers=none)


@pytest.fixture
def ax():
    return Figure(layout="constrained").subplots()


def drawn(ax):
    """Render, so that whatever is wrong comes out."""
    ax.figure.savefig(io.BytesIO(), format="png")
    return " ".join(text.get_text() for text in ax.texts)


def test_progress_draws_what_is_proved_apart_from_what_is_estimated(ax):
    seconds, objective = np.arange(5.0), np.array([5.0, 4.0, 3.0, 3.0, 3.0])
    bound = np.array([np.nan, 1.0, 2.9, 2.0, 2.5])
    proved = np.array([False, False, False, True, True])
    assert plotting.progress(ax, seconds, objective, bound, proved) is ax
    lines = {line.get_label(): line for line in ax.lines}
    assert set(lines) == {"objective", "lower bound, proved", "lower bound, estimate"}
    np.testing.assert_array_equal(lines["lower bound, proved"].get_ydata(), [2.0, 2.5])
    assert lines["lower bound, estimate"].get_linestyle() == "--"
    assert ax.get_xlabel() == "time (s)"
    assert ax.get_yscale() == "linear"
    drawn(ax)


def test_progress_over_decades_is_logarithmic_unless_it_crosses_zero(ax):
    plotting.progress(ax, np.arange(2.0), np.array([1e4, 1.0]), np.full(2, np.nan), np.zeros(2, bool))
    assert ax.get_yscale() == "log"
    other = Figure().subplots()
    plotting.progress(other, np.arange(2.0), np.array([1e4, 1.0]), np.array([-1.0, 0.0]), np.ones(2, bool))
    assert other.get_yscale() == "linear"
    drawn(other)


def test_a_gap_of_zero_or_infinity_is_left_out(ax):
    plotting.gap(ax, np.arange(4.0), np.array([np.inf, 0.5, 0.0, 0.01]), np.array([False, False, True, True]))
    assert {line.get_label() for line in ax.lines} == {"estimate of a search", "proved"}
    drawn(ax)
    plotting.gap(Figure().subplots(), np.arange(1.0), np.array([np.nan]), np.array([False]))


@pytest.mark.parametrize("sizes", [[3.0, 0.0, 1.0], [0.0], [2.0]])
def test_subnetworks_are_sorted_and_zeros_counted(ax, sizes):
    plotting.subnetworks(ax, np.array(sizes))
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == sorted((s for s in sizes if s > 0), reverse=True)
    assert ("zero" in ax.get_title()) == (0.0 in sizes)
    drawn(ax)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (grade(10.0, 9.0), "gap: at most 10 %"),
        (grade(10.0, 10.0, polar=(1.0, 1.0)), "gap: at most 0 %"),
        (grade(10.0, 0.0, polar=(5.0, np.inf), proved=False), "no bound known"),
        (grade(0.0, 0.0, polar=(0.0, 0.0)), "lower bound 0"),
        (grade(1e-9, -1e-9), "gap"),
    ],
)
def test_the_certificate_says_its_numbers(ax, found, words):
    assert plotting.certificate(ax, found) is ax
    assert words in drawn(ax)
    assert ("trivial" in drawn(ax)) == (not found.rigorous)


def test_green_and_orange_meet_at_the_lower_bound(ax):
    plotting.certificate(ax, grade(10.0, 9.0))
    proved, gap = ax.patches[:2]
    assert proved.get_width() == pytest.approx(0.9)
    assert gap.get_x() == pytest.approx(0.9)
    assert gap.get_x() + gap.get_width() == pytest.approx(1.0)
    assert to_hex(proved.get_facecolor()).upper() == plotting.GREEN


def seen(gaps, bounds):
    """What a monitor saw."""
    n = len(gaps)
    gaps, bounds = np.asarray(gaps, float), np.asarray(bounds, float)
    rows = np.ones((n, 2))
    return History(np.arange(n), 1 + gaps, gaps, bounds, gaps, np.zeros(n), np.ones(n), rows, rows)


def test_the_loss_of_a_linear_network_stands_among_critical_points(ax):
    assert plotting.staircase(ax, seen([4, 2, 0], [5, 3, 1e-9]), np.array([5.0, 3.0, 1.0])) is ax
    _ = drawn(ax)
    assert len(ax.lines) == 4
    np.testing.assert_array_equal(ax.lines[-1].get_ydata(), [5, 3, 1])


@pytest.mark.parametrize("bounds", [[5, 3, 1e-9], [np.inf, 3, 1e-9], [np.inf] * 3])
@pytest.mark.parametrize("gaps", [[4, 2, 0], [0, 0, 0], [4, 2, -1e-16]])
def test_what_is_proved_of_a_linear_network(ax, gaps, bounds):
    assert plotting.certified_gap(ax, seen(gaps, bounds)) is ax
    _ = drawn(ax)
    assert ax.get_yscale() == "log"
    assert len(ax.lines) == 2


def test_singular_values_grow_to_their_goals(ax):
    assert plotting.growth(ax, seen([4, 2, 0], [5, 3, 1]), np.array([2.0, 1.0])) is ax
    _ = drawn(ax)
    assert len(ax.lines) == 4


def test_shares_are_a_map_with_a_row_a_layer(ax):
    found = local_minima.decompose([np.eye(3), np.ones((3, 2)), np.ones((2, 1))], np.eye(3), np.ones((3, 1)))
    assert plotting.unit_shares(ax, found) is ax
    text = drawn(ax)
    (image,) = ax.images
    assert image.get_array().shape == (3, 3)
    assert np.ma.getmaskarray(np.ma.masked_invalid(image.get_array()))[1].tolist() == [False, False, True]
    assert "100 %" in text, "all is explained, by the first layer"
    dead = local_minima.decompose([np.zeros((3, 2)), np.zeros((2, 1))], np.eye(3), np.zeros((3, 1)))
    assert plotting.unit_shares(Figure().subplots(), dead) is not None


def test_the_tangent_gap_lies_between_loss_and_value(ax):
    assert plotting.tangent_trace(ax, np.array([0, 1, 2]), np.array([2.0, 1, 1]), np.array([9.0, 3, 1])) is ax
    _ = drawn(ax)
    assert [line.get_label() for line in ax.lines] == ["loss", "J: the loss of local minima like this point"]
    assert ax.get_yscale() == "log"
