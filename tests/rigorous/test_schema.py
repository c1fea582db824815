"""A certificate's pieces before any arithmetic: shapes, dtypes, ranges and domains, each with a sentence."""

import numpy as np
import pytest

from globopt_jax import rigorous

NONE = rigorous.empty_multipliers()
NAN_CUTS = rigorous.Multipliers(np.ones(4), np.ones((4, 1)), np.zeros((4, 0)), np.full((1, 1), np.nan))
X, Y = np.eye(4), np.ones((4, 4))
ZERO = [np.zeros((1, 4)), np.zeros((1, 4))]
PROBLEM = {
    "bound": "product",
    "loss": "squared",
    "lam": 1.0,
    "layers": 2,
    "slopes": [1.0, 1.0],
    "theta": "sum_of_powers",
    "norms": ["l2", "l2"],
    "sizes": [4, 4],
}


def checked(problem=None, weights=ZERO, V=Y * 0, multipliers=NONE, X=X, Y=Y, objective=8.0, bound=0.0):
    """The verdict on pieces of which most are honest."""
    claims = {"objective": objective, "lower_bound": bound}
    return rigorous.check_certificate({**PROBLEM, **(problem or {})}, weights, V, multipliers, X, Y, claims)


def test_honest_pieces_hold():
    """The optimum of 1/2 ||W - 1||^2 + nuclear norm over (4, 4) is 3.5, and so much is proved with V = -1/4."""
    verdict = checked(V=-Y / 4 * (1 - 1e-9), bound=3.49)
    assert verdict.holds, verdict.reason
    assert 3.49 < verdict.lower_bound < 3.5
    assert verdict.reason.startswith("Proved: the objective 8 is at most 4.50001 ")  # rounded up, never down


@pytest.mark.parametrize("V", [np.full((1, 1), -0.999), np.full((4, 1), -0.999), np.full((1, 4), -0.999), -np.ones(4)])
def test_no_dual_point_broadcasts(V):
    """A dual point of another shape than Y would count each of its entries more than once."""
    verdict = checked(V=V, bound=7.99)
    assert not verdict.holds
    assert "The dual point: Expected: shape (4, 4)" in verdict.reason


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("stacked subnetworks", {"weights": [ZERO[0], np.zeros((2, 4))]}),
        ("other numbers of layers or of entries", {"weights": [ZERO[0], np.zeros((4, 1))]}),
        ("stacked subnetworks", {"weights": [ZERO[0], np.zeros((1, 1))], "problem": {"sizes": [4, 1]}}),
        (
            "stacked subnetworks",
            {"weights": [*ZERO, ZERO[0]], "problem": {"layers": 3, "norms": ["l2"] * 3, "sizes": [4] * 3}},
        ),
        ("stacked subnetworks", {"weights": [np.zeros((1, 2, 2)), np.zeros((1, 4))], "problem": {"sizes": [4, 4]}}),
        ("stacked subnetworks", {"weights": [np.zeros((0, 4)), np.zeros((0, 4))]}),
        ("lam: Expected: a finite number > 0", {"problem": {"lam": -1.0}}),
        ("lam: Expected", {"problem": {"lam": float("nan")}}),
        ("lam: Expected", {"problem": {"lam": "1"}}),
        ("lam: Expected", {"problem": {"lam": True}}),
        ("layers: Expected", {"problem": {"layers": 2.0}}),
        ("slopes: Expected", {"problem": {"slopes": [1.0]}}),
        ("slopes: Expected", {"problem": {"slopes": [1.0, float("inf")]}}),
        ("norms: Expected", {"problem": {"norms": ["l2", "l3"]}}),
        ("sizes: Expected", {"problem": {"sizes": 4}}),
        ("that cannot be checked", {"problem": {"theta": "none"}}),
        ("that cannot be checked", {"problem": {"bound": "magic"}}),
        ("loss: Expected", {"problem": {"loss": "huber:-1"}}),
        ("loss: Expected", {"problem": {"loss": "huber:nan"}}),
        ("loss: Expected", {"problem": {"loss": "squared:2"}}),
        ("loss: Expected", {"problem": {"loss": 3}}),
        ("the dual point: Expected: floating-point", {"V": 1j * Y}),
        ("the dual point: Expected: floating-point", {"V": np.full((4, 4), "1")}),
        ("X: Expected: floating-point", {"X": np.eye(4, dtype=int)}),
        ("Y: Expected: finite", {"Y": np.where(np.eye(4) == 1, np.inf, Y)}),
        ("X, Y: Expected: shapes", {"X": np.eye(3)}),
        ("X, Y: Expected: shapes", {"Y": np.ones(4)}),
        ("Y: Expected: every entry -1 or 1", {"problem": {"loss": "logistic"}, "Y": np.full((4, 4), 0.5)}),
        ("rows of the probability simplex", {"problem": {"loss": "softmax_cross_entropy"}, "Y": -Y}),
        ("The multipliers: Expected", {"multipliers": NONE._replace(mu=np.ones(3))}),
        ("The multipliers: Expected", {"multipliers": rigorous.Multipliers(*[np.ones((4, 1))] * 4)}),
        ("the dual point: Expected: finite", {"V": Y * np.nan}),
        ("N: Expected: finite", {"multipliers": NAN_CUTS}),
        ("mu: Expected: floating-point", {"multipliers": NAN_CUTS._replace(mu=1j * np.ones(4))}),
        ("Vz: Expected: floating-point", {"multipliers": NAN_CUTS._replace(Vz=np.full((4, 1), "1"))}),
    ],
)
def test_pieces_that_are_not_what_they_should_be_are_refused(reason, change):
    """Nothing is computed from them, and the sentence says which piece it is."""
    verdict = checked(**change)
    assert not verdict.holds
    assert reason in verdict.reason


def test_a_description_that_lacks_something_is_refused():
    """Each key is needed; and a description that is none, is none."""
    for key in PROBLEM:
        rest = {k: v for k, v in PROBLEM.items() if k != key}
        claims = {"objective": 8.0, "lower_bound": 0.0}
        verdict = rigorous.check_certificate(rest, ZERO, 0 * Y, NONE, X, Y, claims)
        assert not verdict.holds
        assert "lacks some of" in verdict.reason


def test_a_bound_that_is_not_finite_proves_nothing():
    """Rows that sum to 1.000002 at this lam: neither the dual point nor 0 is feasible, whatever is claimed."""
    targets = np.tile([0.5, 0.500002], (4, 1))
    weights = [np.zeros((1, 4)), np.zeros((1, 2))]
    change = {"loss": "softmax_cross_entropy", "sizes": [4, 2], "lam": 1e-9}
    for bound in (1e9, 0.0, -1e9, -np.inf):
        verdict = checked(change, weights, 0 * targets, Y=targets, objective=4 * np.log(2), bound=bound)
        assert not verdict.holds
        assert "No lower bound is proved" in verdict.reason


def test_claims_are_held_against_what_is_proved_without_a_tolerance():
    """Weights of an enormous objective make no room for the bound; one last digit too much is too much."""
    far = [np.full((1, 4), 2e4), np.full((1, 4), 2e4)]
    value, _ = rigorous.objective(PROBLEM, far, X, Y)
    assert value > 1e17
    assert not checked(weights=far, objective=value, bound=450_898.0).holds
    assert checked(weights=far, objective=value, bound=0.0).holds
    V = -Y / 4 * (1 - 1e-9)
    proved = checked(V=V).lower_bound
    assert checked(V=V, bound=proved).holds
    assert not checked(V=V, bound=float(np.nextafter(proved, 9))).holds


def test_slopes_and_weights_beyond_the_range_end_in_a_sentence():
    """What overflows is no proof, and no traceback."""
    for change in ({"slopes": [1e200, 1e200]}, {"slopes": [1e308, -1e308]}, {"lam": 1e308}):
        verdict = checked(change, [np.full((1, 4), 1e200)] * 2, V=-Y / 4, bound=1.0)
        assert not verdict.holds
        assert "not finite" in verdict.reason


def test_nothing_to_fit_needs_no_multipliers():
    """A perfect fit under the relaxation: the dual point is zero, multipliers are empty, the trivial bound holds."""
    rng = np.random.default_rng(0)
    inputs, A = rng.normal(size=(30, 3)), rng.normal(size=(3, 2))
    problem = {**PROBLEM, "bound": "relaxation", "slopes": [0.0, 1.0], "sizes": [3, 2], "lam": 0.01}
    weights = [A.T, np.eye(2)]
    value, _ = rigorous.objective(problem, weights, inputs, np.maximum(inputs @ A, 0))
    for V in (np.zeros((30, 2)), np.zeros((0, 0))):
        verdict = rigorous.check_certificate(
            problem, weights, V, NONE, inputs, np.maximum(inputs @ A, 0), {"objective": value, "lower_bound": 0.0}
        )
        assert verdict.holds, verdict.reason
