"""Outside of a program, a second call of the same shapes compiles nothing."""

import jax
import pytest

from globopt_jax import function_space, path_sums, wide
from tests.contracts import compiled

CALLS = {
    "descent_direction": lambda W, X, Y: function_space.descent_direction(function_space.layers_of(W), X, Y),
    "inequality": lambda W, X, Y: function_space.inequality(function_space.layers_of(W), X, Y),
    "path_activity": lambda W, X, _: path_sums.path_activity(W, X),
    "total_variance": lambda W, X, _: path_sums.total_variance(W, X, 0.5),
    "monte_carlo": lambda W, X, _: path_sums.monte_carlo(W, X, 0.5, jax.random.key(0)),
    "loss_bounds": lambda W, X, Y: wide.loss_bounds([(w, None) for w in W], X, Y),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_second_call_compiles_nothing(name, rng):
    arrays = [rng.normal(size=s) for s in ((3, 4), (4, 2))], rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    _ = CALLS[name](*arrays)
    programs = compiled()
    _ = CALLS[name](*arrays)
    assert not programs
    _ = CALLS[name](arrays[0], arrays[1][:4], arrays[2][:4])
    assert programs  # the counter counts
