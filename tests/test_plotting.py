"""The pictures: their axes, and what happens at the edges of what they can be given."""

import io
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import xarray
from matplotlib.figure import Figure

from globopt_jax import homogeneous, local_minima, losses, path_sums, plotting
from globopt_jax.deep_linear import History
from globopt_jax.homogeneous import Certificate, rigorous
from globopt_jax.plotting import shared


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


def labels(ax):
    """The curves by their names in the legend."""
    return {line.get_label(): line for line in ax.lines}


def test_progress_draws_the_objective_and_the_best_proved_bound(ax):
    seconds, objective = np.arange(5.0), np.array([5.0, 4.0, 3.0, 3.0, 3.0])
    bound = np.array([np.nan, 1.0, 2.9, 2.5, 2.1])
    proved = np.array([False, False, False, True, True])
    assert plotting.progress(ax, seconds, objective, bound, proved) is ax
    lines = labels(ax)
    assert set(lines) == {"objective", "lower bound, proved"}
    np.testing.assert_allclose(lines["lower bound, proved"].get_ydata(), [-50 / 3, -50 / 3])
    np.testing.assert_allclose(lines["objective"].get_ydata()[-1], 0)
    assert ax.get_title() == "objective 3, at least 2.5 (proved)"
    assert ax.get_xlabel() == "time (s)"
    drawn(ax)


def test_progress_shows_the_end_and_not_the_start(ax):
    """Neither the fall from 50,000 nor the rise from 480 decides the axis: the last gap does."""
    objective = np.array([5e4, 840.02, 840.0, 840.0, 840.0])
    bound = np.array([np.nan, np.nan, 480.0, 839.0, 839.9])
    plotting.progress(ax, np.arange(5.0), objective, bound, np.arange(5) > 1)
    low, high = ax.get_ylim()
    gap = 100 * 0.1 / 840
    assert -10 * 1.3 * gap < low < -gap
    assert 100 * 0.02 / 840 < high < 3 * gap
    drawn(ax)


@pytest.mark.parametrize("end", [3.0, 0.0, -2.0])
@pytest.mark.parametrize("bound", [[np.nan] * 3, [-np.inf, np.nan, 0.0], [-5.0] * 3])
def test_progress_and_history_draw_whatever_was_proved(end, bound):
    seconds, objective, bound = np.arange(3.0), end + np.array([1.0, 0.0, 0.0]), np.minimum(bound, end)
    for draw in (plotting.progress, plotting.bound_history):
        ax = Figure().subplots()
        assert draw(ax, seconds, objective, bound, np.isfinite(bound)) is ax
        drawn(ax)
        assert ("proved" in ax.get_title()) == bool(ax.get_title())


def test_the_history_of_the_bound_never_falls(ax):
    bound = np.array([1.0, 3.0, 2.0, 3.5])
    plotting.bound_history(ax, np.arange(4.0), np.full(4, 4.0), bound, np.arange(4) != 0)
    np.testing.assert_allclose(labels(ax)["best lower bound"].get_ydata(), [75, 75, 87.5, 87.5])
    assert "no network is below 87.5 %" in ax.get_title()
    drawn(ax)


def test_a_gap_that_is_infinite_is_left_out_and_the_proved_one_never_rises(ax):
    relative = np.array([np.inf, 0.5, 0.02, 0.01, 0.03])
    plotting.gap(ax, np.arange(5.0), relative, np.arange(5) > 1, hindsight=np.array([0.9, 0.1, 0.01, 0.01, 0.01]))
    lines = labels(ax)
    assert set(lines) == {"objective above the final bound", "gap, estimated by a search", "gap, proved"}
    np.testing.assert_allclose(lines["gap, proved"].get_ydata(), [2, 1, 1, 1])
    assert lines["gap, estimated by a search"].get_linestyle() == "--"
    assert "at most 1" in ax.get_title()
    drawn(ax)


def test_a_gap_of_zero_stands_at_the_lower_edge(ax):
    plotting.gap(ax, np.arange(3.0), np.array([1e-13, 0.01, 0.0]), np.array([False, True, True]))
    drawn(ax)
    low, high = ax.get_ylim()
    assert 0 < low < labels(ax)["gap, proved"].get_ydata()[-1] < 1 < high
    for nothing in (np.array([np.nan]), np.array([np.inf])):
        other = Figure().subplots()
        plotting.gap(other, np.arange(1.0), nothing, np.array([False]))
        assert other.get_title() == "gap: none proved"
        drawn(other)


def test_an_estimate_far_below_what_is_proved_is_named_in_words(ax):
    plotting.gap(ax, np.arange(2.0), np.array([1e-15, 0.01]), np.array([False, True]))
    assert "estimate at the end: 1e-13 %" in drawn(ax)
    assert ax.get_ylim()[0] > 1e-6, "the axis belongs to the proved gap"


@pytest.mark.parametrize("sizes", [[3.0, 0.0, 1.0], [0.0], [2.0]])
def test_subnetworks_are_sorted_and_zeros_counted(ax, sizes):
    plotting.subnetworks(ax, np.array(sizes))
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == sorted((s for s in sizes if s > 0), reverse=True)
    assert ("zero" in ax.get_title()) == (0.0 in sizes)
    assert ("half" in ax.get_title()) == (len(heights) > 1)
    drawn(ax)


# -- the polar -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def solved():
    """A certified network in the plane, the easiest place to see a polar."""
    x = np.linspace(-1, 1, 30)[:, None]
    X, Y = np.hstack([x, np.ones_like(x)]), np.sin(4 * x)
    problem = homogeneous.Problem(homogeneous.relu_neuron(), homogeneous.sum_of_powers(), losses.squared, 0.5)
    start = problem.phi.init(jax.random.key(0), r=4, dx=2, dy=1)
    found = homogeneous.minimize(problem, start, X, Y, key=jax.random.key(1), effort="quick")
    return problem, start, found, X, Y


def curve_of(problem, params, X, Y, **options):
    """The curve, where there has to be one."""
    curve = plotting.polar_curve(problem, params, X, Y, **options)
    assert curve is not None
    return curve


def test_at_a_global_minimum_the_polar_meets_lam_at_the_neurons_and_nowhere_exceeds_it(ax, solved):
    problem, _, found, X, Y = solved
    curve = curve_of(problem, found.params, X, Y)
    assert curve.whole
    np.testing.assert_allclose(curve.neuron_value, 1, atol=1e-6)
    assert curve.value.max() <= float(found.certificate.polar_upper) / 0.5
    # The grid comes close to the maxima, at which the neurons sit.
    assert curve.value.max() > 1 - 1e-3
    assert plotting.polar(ax, curve, found.certificate) is ax
    drawn(ax)
    assert "no neuron exceeds lam" in ax.get_title()
    assert {"polar", "lam", "neurons"} <= set(labels(ax))


def test_away_from_it_the_polar_says_that_a_neuron_helps(ax, solved):
    problem, start, _, X, Y = solved
    graded = homogeneous.certify(problem, start, X, Y, effort="quick")
    curve = curve_of(problem, start, X, Y)
    # In the plane both the bound and the search are exact, and the grid is fine.
    assert curve.value.max() == pytest.approx(float(graded.polar_upper) / 0.5, rel=1e-3)
    plotting.polar(ax, curve, graded)
    drawn(ax)
    assert "lowers the objective" in ax.get_title()


def test_the_curve_is_the_best_over_output_weights(solved):
    """Against the definition: <-G, phi(w)> with the output weights along the gradient, at theta = 1."""
    _, _, _, X, _ = solved
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(20, 4)), rng.normal(size=(20, 3))
    problem = homogeneous.Problem(homogeneous.neuron("leaky_relu"), homogeneous.sum_of_powers(), losses.squared, 2.0)
    params = problem.phi.init(jax.random.key(3), r=3, dx=4, dy=3)
    curve = curve_of(problem, params, X, Y, points=9)
    assert not curve.whole
    residual = Y - np.asarray(homogeneous.predict(problem, params, X))
    largest = int(np.argmax(jax.vmap(problem.theta)(params)))
    w = np.asarray(params[0])[largest]
    a = X @ w / np.linalg.norm(w)
    slopes = problem.phi.slopes
    by_hand = np.linalg.norm(residual.T @ np.where(a > 0, slopes[1] * a, slopes[0] * a)) / 2.0
    assert curve.neuron_angle[0] == pytest.approx(0, abs=1e-9)
    assert curve.neuron_value[0] == pytest.approx(by_hand, rel=1e-12)
    assert curve.value[4] == pytest.approx(by_hand, rel=1e-12), "the fifth of nine angles is 0"
    assert len(curve.neuron_angle) == 2
    assert curve.neuron_angle[1] > 0


def test_there_is_no_curve_where_none_is_defined():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(10, 3)), rng.normal(size=(10, 2))
    neuron, l2, l1 = homogeneous.relu_neuron(), homogeneous.sum_of_powers(), homogeneous.sum_of_powers(norms="l1")
    deep = homogeneous.deep_subnetwork("relu", layers=3)

    def curve(phi, theta, params, X=X):
        problem = homogeneous.Problem(phi, theta, losses.squared, 1.0)
        return plotting.polar_curve(problem, params, X, Y)

    def weights(phi, r, dx=3):
        return phi.init(jax.random.key(0), r=r, dx=dx, dy=2)

    assert curve(neuron, l2, weights(neuron, 2)) is not None
    assert curve(deep, l2, weights(deep, 2)) is None
    assert curve(neuron, l1, weights(neuron, 2)) is None
    assert curve(neuron, l2, weights(neuron, 1)) is None, "one neuron spans no circle"
    assert curve(neuron, l2, jax.tree.map(np.zeros_like, weights(neuron, 2))) is None
    assert curve(neuron, l2, weights(neuron, 2, dx=1), X[:, :1]) is None
    # In the plane the circle is there without neurons.
    nothing = jax.tree.map(np.zeros_like, weights(neuron, 2, dx=2))
    plane = homogeneous.Problem(neuron, l2, losses.squared, 1.0)
    assert curve_of(plane, nothing, X[:, :2], Y).neuron_value.shape == (0,)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (grade(10.0, 9.0), "no neuron exceeds lam by more than 20 % (proved)"),
        (grade(10.0, 10.0), "no neuron exceeds lam by more than 20 % (proved)"),
        (grade(10.0, 0.0, polar=(5.0, np.inf), proved=False), "a neuron with polar 5 lam lowers the objective"),
        (grade(10.0, 0.0, polar=(1.0, np.inf), proved=False), "a search found no neuron above lam"),
        (grade(0.0, 0.0, polar=(0.0, 0.0)), "no neuron exceeds lam by more than 0 % (proved)"),
    ],
)
def test_the_polar_says_its_finding(ax, found, words):
    angle = np.linspace(-180, 180, 5)
    curve = plotting.PolarCurve(angle, 0.5 + 0 * angle, np.zeros(1), np.full(1, 0.5), np.asarray(False))
    assert plotting.polar(ax, curve, found) is ax
    drawn(ax)
    assert ax.get_title() == words
    assert ("proved ceiling: none" in labels(ax)) == bool(np.isinf(found.polar_upper))


# -- deep linear networks and tangent spaces -------------------------------------------------------------


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
    assert ax.get_title() == "the loss goes from 5 to 1"
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
    assert ax.get_title() == "the loss ends 0 % above J"


# -- sweeps ----------------------------------------------------------------------------------------------


def landscape(depths, widths, *, seeds=2, scale=100.0):
    """J that falls with the width and the depth; training lowers it by a tenth."""
    d, w, _ = np.meshgrid(depths, widths, np.arange(seeds), indexing="ij")
    J = scale / (d + w)
    places = {"depth": list(depths), "width": list(widths), "seed": range(seeds), "stage": ["initial", "trained"]}
    return xarray.Dataset({"J": (tuple(places), np.stack([J, 0.9 * J], axis=-1))}, places)


def maps(found, size=(8, 3)):
    """The two heat maps."""
    return plotting.landscape(plotting.figure(size).subplots(1, 2), found)


def test_two_heat_maps_share_a_scale_and_say_the_finding():
    left, right = maps(landscape([1, 2, 3], [2, 4, 8, 16]))
    (first,), (second,) = left.images, right.images
    before, after = (np.asarray(image.get_array(), float) for image in (first, second))
    np.testing.assert_allclose(before, [[100 / (d + w) for w in (2, 4, 8, 16)] for d in (1, 2, 3)])
    np.testing.assert_allclose(after, 0.9 * before)
    assert first.get_clim() == second.get_clim() == (0, pytest.approx(100 / 3))
    assert first.origin == "lower", "depth grows upwards"
    assert [label.get_text() for label in left.get_xticklabels()] == ["2", "4", "8", "16"]
    assert [label.get_text() for label in right.get_yticklabels()] == ["1", "2", "3"]
    assert (left.get_title(), right.get_title()) == ("initial", "trained")
    assert drawn(left).split()[:4] == ["33.3", "20.0", "11.1", "5.9"]
    assert {text.get_color() for text in left.texts} == {"white", "black"}
    title = left.figure.get_suptitle()
    assert " ".join(title.split()) == (
        "J falls from width to width in 9 of 9 cases before training and in 9 of 9 after it, from depth to depth in 8 "
        "of 8 cases before training and in 8 of 8 after it; training lowers J in 12 of 12 cases"
    )
    box = left.figure._suptitle.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= left.figure.bbox.width


@pytest.mark.parametrize(("widths", "written"), [(range(1, 9), True), (range(1, 60), False)])
def test_numbers_are_written_where_there_is_room(widths, written):
    left, _ = maps(landscape([1, 2], widths))
    assert bool(drawn(left)) == written


def test_every_number_stays_in_its_cell():
    left, right = maps(landscape(range(1, 7), [2, 4, 8, 16, 32, 64, 128], scale=9e3), (13, 4.3))
    _ = drawn(left)
    for ax in (left, right):
        assert len(ax.texts) == 42
        width, height = ax.get_window_extent().width / 7, ax.get_window_extent().height / 6
        for text in ax.texts:
            box = text.get_window_extent()
            assert box.width < width
            assert box.height < height


def test_cells_without_a_value_are_gray():
    found = landscape([1], [2, 4], seeds=1, scale=1e-5)
    found.J[0, 1, 0, 1] = np.nan
    left, right = maps(found)
    assert "none" in drawn(right)
    assert "3.3e-06" in drawn(left)
    values = right.images[0].get_array()
    assert values is not None
    assert np.ma.getmaskarray(values).tolist() == [[False, True]]
    nothing = found.where(False)
    assert drawn(maps(nothing)[0]) == "none none"
    assert maps(nothing)[0].figure.get_suptitle() == "J"


def test_what_is_no_landscape_is_refused():
    found = landscape([1, 2], [2, 4])
    with pytest.raises(ValueError, match=r"Received: lam too; choose a value with found.sel\(lam=...\)"):
        _ = maps(found.expand_dims(lam=2))
    with pytest.raises(ValueError, match="axes: Expected: two Axes. Received: 3"):
        _ = plotting.landscape(plotting.figure((8, 3)).subplots(1, 3), found)
    with pytest.raises(ValueError, match="axes: Expected: two Axes. Received: 1"):
        _ = plotting.landscape(plotting.figure((8, 3)).subplots(), found)
    with pytest.raises(ValueError, match="Expected: a dataset with J"):
        _ = maps(found.drop_vars("J"))


# -- figures ---------------------------------------------------------------------------------------------


def test_a_figure_shows_itself_whatever_backend_there_is():
    code = (
        "from globopt_jax import plotting\n"
        "import sys\n"
        "assert 'matplotlib' not in sys.modules\n"
        "figure = plotting.figure((2, 2))\n"
        "figure.subplots().plot([0, 1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "print(figure._repr_png_()[:4], plotting.png(figure)[:4])\n"
    )
    environment = os.environ | {"MPLBACKEND": "module://nowhere"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "b'\\x89PNG' b'\\x89PNG'\n", done.stderr


def test_drawing_a_file_leaves_the_figure_as_it_was():
    figure = Figure()
    before = figure.canvas
    first = plotting.png(figure)
    assert figure.canvas is before
    assert plotting.png(figure) == first


@pytest.mark.parametrize(("fraction", "words"), [(0.0, "0 %"), (0.00012301, "0.013 %"), (1.0, "100 %")])
def test_percentages_are_upper_bounds(fraction, words):
    assert shared.percent(fraction) == words


def test_the_unit_ball_holds_all_single_subnetworks(ax):
    """The border is the polygon of the polar's half planes; the ball of linear neurons touches it everywhere."""
    X = np.array([[1.0, 0.0], [0.5, 0.9]])
    problem = homogeneous.Problem("linear", "product_of_norms", "squared", 1.0)
    params = problem.phi.init(jax.random.key(0), r=40, dx=2, dy=1)
    assert plotting.unit_ball(ax, problem, X, params, directions=90) is ax
    _ = drawn(ax)
    border = ax.lines[0].get_xydata()
    atoms = np.asarray(ax.collections[-1].get_offsets())
    assert atoms.shape == (40, 2)
    # Omega is ||X^-1 Z||: 1 at atoms, and between 1 and 1 / cos(half the angle between two lines) at corners.
    np.testing.assert_allclose(np.linalg.norm(np.linalg.solve(X, atoms.T), axis=0), 1)
    sizes = np.linalg.norm(np.linalg.solve(X, border.T), axis=0)
    assert np.all(sizes >= 1 - 1e-9)
    assert np.all(sizes <= 1.01)


def test_a_unit_ball_needs_a_plane_and_a_bound(ax):
    problem = homogeneous.Problem("relu", "product_of_norms", "squared", 1.0)
    for dx, dy in ((2, 2), (3, 1)):  # four outputs; a relaxation as the bound
        params = problem.phi.init(jax.random.key(0), r=4, dx=dx, dy=dy)
        with pytest.raises(ValueError, match="problem: Expected: outputs of two numbers, and a polar bound without"):
            plotting.unit_ball(ax, problem, np.ones((2, dx)), params)


def test_bounds_of_a_loss_lie_above_it(ax):
    bounds = {"product": np.array([np.inf, 9.0, 1.0]), "kernel": np.array([4.0, 3.0, 0.5])}
    assert plotting.loss_bounds(ax, np.arange(3), np.array([2.0, 1.0, 0.0]), bounds) is ax
    _ = drawn(ax)
    curves = labels(ax)
    assert list(curves) == ["bound: product", "bound: kernel", "loss"]
    assert np.isnan(curves["bound: product"].get_ydata()[0])
    assert np.isnan(curves["loss"].get_ydata()[2])
    other = Figure().subplots()
    plotting.loss_bounds(other, np.arange(1), np.array([2.0]), {"kernel": np.array([np.inf])})
    assert other.get_title().endswith("proves nothing")


def test_active_paths_have_a_column_a_layer_and_a_point_a_sample(ax):
    kernels = [np.random.default_rng(k).normal(size=s) for k, s in enumerate([(3, 4), (4, 5), (5, 2)])]
    found = path_sums.path_activity(kernels, np.random.default_rng(9).normal(size=(12, 3)))
    assert plotting.active_paths(ax, found) is ax
    _ = drawn(ax)
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights, found.layers)
    points = next(c for c in ax.collections if len(c.get_offsets()) == 12)
    np.testing.assert_allclose(np.asarray(points.get_offsets())[:, 1], np.sort(found.by_sample))
    single = path_sums.path_activity(kernels, np.ones((1, 3)))
    assert plotting.active_paths(Figure().subplots(), single) is not None
