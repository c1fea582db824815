"""The machinery of the claims, tried with made-up ones, and the rules that the papers' modules keep."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import claims, deep_linear, function_space, homogeneous, path_sums, rigorous, wide
from globopt_jax.claims import registry, yun_sra_jadbabaie2018


def pythagoras(key: jax.Array) -> claims.Outcome:
    """For the legs of a right angle, and then of another angle."""
    a, b = jax.random.normal(key, (2,))
    hypotenuse = jnp.hypot(a, b)
    return claims.outcome(
        residual=jnp.abs(a**2 + b**2 - hypotenuse**2),
        tolerance=8 * jnp.finfo(a.dtype).eps * hypotenuse**2,
        control=jnp.abs(a**2 + b**2 - (a + b) ** 2),
    )


def made_up(key: str, check=pythagoras) -> claims.Claim:
    """A claim of a paper that does not exist."""
    return claims.Claim(key=key, statement="`a^2 + b^2 = c^2`.", paper="Pythagoras", equation="I.47", check=check)


CLAIMS = (made_up("P1 Thm 1"), made_up("P1 Thm 10"), made_up("P2 Lemma 1"))


def test_a_true_claim_holds_and_its_control_fails(dtype):
    (verdict,) = claims.verify(0, claims=CLAIMS[:1])
    assert verdict.claim is CLAIMS[0]
    assert verdict.outcome.holds
    assert verdict.outcome.residual.dtype == dtype
    assert verdict.outcome.control is not None
    assert verdict.outcome.control > verdict.outcome.tolerance
    assert verdict.seconds > 0


@pytest.mark.parametrize(
    ("residual", "control", "holds"),
    [
        (0.5, None, True),
        (1.0, None, True),
        (1.5, None, False),
        (np.nan, None, False),
        (0.5, 2.0, True),
        (0.5, 1.0, False),
        (0.5, np.nan, False),
        (1.5, 2.0, False),
    ],
)
def test_an_outcome_holds_if_the_instance_does_and_the_control_does_not(residual, control, holds):
    assert bool(claims.outcome(residual, 1.0, control).holds) == holds


def test_a_nan_of_the_library_is_no_small_error(monkeypatch):
    """Python's max leaves out a NaN that is not the first."""
    assert np.isnan(registry.largest(0.0, np.nan, 1.0))
    assert registry.largest(-1.0, 2) == 2
    real = deep_linear.global_minimum
    monkeypatch.setattr(deep_linear, "global_minimum", lambda *a: real(*a)._replace(value=jnp.asarray(jnp.nan)))
    assert not yun_sra_jadbabaie2018.closed_form(jax.random.key(0)).holds


def test_the_assumption_of_nguyen_and_hein_is_tried_part_by_part(monkeypatch):
    """An `assumption` that lets one of three failures pass is caught."""
    real = wide.assumption
    for passes in ("relu", "huber"):

        def wrong(*arguments, passes=passes):
            found = real(*arguments)
            return (
                found._replace(activation_code=np.asarray(0), loss_code=np.asarray(0)) if passes in arguments else found
            )

        (claim,) = (c for c in claims.all_claims() if c.key == "NH17 Assumption 3.2")
        assert claim.check(jax.random.key(0)).holds
        monkeypatch.setattr(wide, "assumption", wrong)
        assert not claim.check(jax.random.key(0)).holds
        monkeypatch.undo()


def test_a_check_can_be_vmapped_over_keys():
    found = jax.jit(jax.vmap(pythagoras))(jax.random.split(jax.random.key(0), 5))
    assert found.holds.shape == (5,)
    assert found.holds.all()


def test_instances_are_worse_together_and_vmapped_where_they_can_be():
    alone = [claims.verify(0, claims=[dataclasses.replace(CLAIMS[0], traceable=t)], instances=7) for t in (False, True)]
    (one,), (other,) = alone
    assert (one.instances, one.failed) == (other.instances, other.failed) == (7, 0)
    first = next(claims.verify(0, claims=CLAIMS[:1]))
    controls = [float(np.asarray(v.outcome.control)) / float(v.outcome.tolerance) for v in (one, other, first)]
    np.testing.assert_allclose(controls[0], controls[1], rtol=1e-12)
    assert controls[0] <= controls[2] * (1 + 1e-12)
    assert one.outcome.residual / one.outcome.tolerance >= first.outcome.residual / first.outcome.tolerance

    def sometimes(key):
        return claims.outcome(jax.random.uniform(key), 0.5, 1.0)

    (verdict,) = claims.verify(0, claims=[made_up("A 1", sometimes)], instances=40)
    assert 5 < verdict.failed < 35
    assert not verdict.outcome.holds
    nan = made_up("A 1", lambda key: claims.outcome(jnp.where(jax.random.uniform(key) < 0.5, jnp.nan, 0.0), 0.5))
    (verdict,) = claims.verify(0, claims=[nan], instances=10)
    assert np.isnan(verdict.outcome.residual)
    assert not verdict.outcome.holds


def test_an_instance_depends_on_the_seed_and_the_key_alone():
    def residuals(seed, select=None):
        return {v.claim.key: float(np.asarray(v.outcome.control)) for v in claims.verify(seed, select, CLAIMS)}

    everything = residuals(3)
    assert len(set(everything.values())) == 3
    assert residuals(3, "P2") == {"P2 Lemma 1": everything["P2 Lemma 1"]}
    assert residuals(4) != everything


@pytest.mark.parametrize(
    ("select", "keys"),
    [
        (None, ["P1 Thm 1", "P1 Thm 10", "P2 Lemma 1"]),
        ("p1", ["P1 Thm 1", "P1 Thm 10"]),
        ("P1 Thm 1", ["P1 Thm 1"]),
        (["P2", "P1  thm 10", "P2 Lemma 1"], ["P1 Thm 10", "P2 Lemma 1"]),
    ],
)
def test_claims_are_selected_by_whole_words(select, keys):
    assert [verdict.claim.key for verdict in claims.verify(0, select, CLAIMS)] == keys


def test_a_selection_that_matches_nothing_is_refused_at_once():
    with pytest.raises(ValueError, match="--list` shows all 3. Received: 'P1 Tm 1'. Did you mean P1 Thm 1 or"):
        claims.verify(0, ["P1", "P1 Tm 1"], CLAIMS)


def test_one_statement_of_two_papers_is_tried_once():
    calls = []

    def check(key):
        calls.append(key)
        return claims.outcome(jnp.zeros(()), jnp.ones(()), None)

    first, same, other = made_up("A 1", check), made_up("B 1", check), made_up("B 2", check)
    given = [first, dataclasses.replace(same, family="A 1"), other]
    verdicts = list(claims.verify(0, claims=given, instances=2))
    assert len(calls) == 4  # two for A 1 and B 1, and two for B 2
    assert [bool(v.outcome.holds) for v in verdicts] == [True] * 3


def test_verdicts_come_one_at_a_time():
    calls = []

    def check(key):
        calls.append(key)
        return claims.outcome(0.0, 1.0)

    verdicts = claims.verify(0, claims=[made_up("A 1", check), made_up("A 2", check)])
    assert len(calls) == 0
    assert next(verdicts).claim.key == "A 1"
    assert len(calls) == 1


def test_an_error_inside_a_check_names_the_claim():
    def check(key):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as error:
        list(claims.verify(7, claims=[made_up("A 1", check)]))
    assert error.value.__notes__ == ["while checking A 1 with seed 7"]


def test_every_claim_of_the_papers_is_complete():
    for claim in claims.all_claims():
        for field in dataclasses.fields(claims.Claim):
            assert getattr(claim, field.name) or field.name in ("traceable", "family"), (
                f"{claim.key} has no {field.name}"
            )
        assert len(claim.key.split()) >= 2, claim.key
        assert claim.statement.endswith("."), claim.key


def test_every_statement_has_a_claim_and_every_claim_a_statement():
    """The lists of statements are kept by hand, beside the papers; a key starts with the number of its statement."""
    keys, numbers = [claim.key.split() for claim in claims.all_claims()], [s.split() for s in claims.statements()]

    def belongs(key, number):
        return [word.rstrip(",") for word in key[: len(number)]] == number

    assert [" ".join(n) for n in numbers if not any(belongs(k, n) for k in keys)] == []
    assert [" ".join(k) for k in keys if not any(belongs(k, n) for n in numbers)] == []
    assert len(numbers) == len({tuple(n) for n in numbers}) >= 50
    assert {n[0] for n in numbers} == {"HV17", "K18", "KHK19", "NH17", "YSJ18"}


def test_a_key_is_given_once(monkeypatch):
    from globopt_jax.claims import registry

    class Paper:
        CLAIMS = (made_up("A 1"), made_up("A 1"))

    monkeypatch.setattr(registry.pkgutil, "iter_modules", lambda _: [(None, "a_paper", False)])
    monkeypatch.setattr(registry.importlib, "import_module", lambda _: Paper)
    with pytest.raises(ValueError, match="the same key twice: A 1"):
        claims.all_claims()


#: Claims whose instance needs no training and little compiling, tried in every run; the others take longer. Those that
#: are array functions are at least traced in every run.
AT_ONCE = (
    "HV17 Def degree",
    "HV17 Thm 2 reduction",
    "HV17 Prop 1",
    "HV17 Prop 1 card",
    "HV17 Sec 6",
    "HV17 Prop 2 lower",
)
AT_ONCE += tuple(f"YSJ18 {name}" for name in ("Lemma 3.2", "Prop 3.1", "Prop 3.4", "Prop 3.6", "Prop 3.7"))
AT_ONCE += ("KHK19 Lemma 1", "KHK19 Thm 1", "KHK19 Thm 1, shares", "KHK19 Def 2", "KHK19 Lemma 3", "KHK19 Lemma 6")
AT_ONCE += ("K18 (A.2)", "K18 (2.8)", "K18 Thm 2.6", "K18 Def 3.3", "NH17 Assumption 3.2", "NH17 Thm 3.8 fit")


@pytest.mark.parametrize("claim", [c for c in claims.all_claims() if c.traceable], ids=lambda claim: claim.key)
def test_a_traceable_claim_is_an_array_function(claim):
    found = jax.eval_shape(jax.vmap(claim.check), jax.random.split(jax.random.key(0), 3))
    assert found.holds.shape == (3,)


def assert_it_holds(claim):
    (verdict,) = claims.verify(0, claims=[claim])
    assert bool(verdict.outcome.holds), verdict


@pytest.mark.parametrize("claim", [c for c in claims.all_claims() if c.key in AT_ONCE], ids=lambda claim: claim.key)
def test_a_claim_holds_and_its_control_fails(claim):
    assert_it_holds(claim)


@pytest.mark.slow
@pytest.mark.parametrize("claim", [c for c in claims.all_claims() if c.key not in AT_ONCE], ids=lambda claim: claim.key)
def test_a_claim_about_training_holds_and_its_control_fails(claim):
    assert_it_holds(claim)


def scaled(function, **factors):
    """Return a function with some fields of its result multiplied."""

    def wrong(*args, **kwargs):
        found = function(*args, **kwargs)
        return found._replace(**{name: factor * getattr(found, name) for name, factor in factors.items()})

    return wrong


def stretched(function):
    return lambda *args, **kwargs: 1.001 * function(*args, **kwargs)


def inverted(function):
    return lambda *args, **kwargs: [m if l else 1 - m for l, m in enumerate(function(*args, **kwargs))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name", "mutation", "keys"),
    [
        (wide, "loss_bounds", partial(scaled, product=0.999), ["NH17 Thm 3.4", "NH17 Thm 3.8"]),
        (wide, "loss_bounds", partial(scaled, kernel=np.inf), ["NH17 Thm 3.4", "NH17 Thm 3.8"]),
        (path_sums, "unit_masks", inverted, ["K18 (2.8)"]),
        (function_space, "inequality", partial(scaled, left=0.999), ["YSJ18 Thm 4.1", "YSJ18 Thm 4.2"]),
        (function_space, "inequality", partial(scaled, right=1.05), ["YSJ18 Thm 4.1", "YSJ18 Thm 4.2"]),
        (rigorous, "polar_bound", stretched, ["K18 (A.2)"]),
        (homogeneous, "omega", partial(scaled, upper=0.5), ["K18 Def 3.3"]),
        (homogeneous, "objective", stretched, ["HV17 (6)-(8)"]),
        (deep_linear, "residual_gap", partial(scaled, bound=0.0), ["YSJ18 Cor 2.3"]),
    ],
)
def test_claims_notice_a_wrong_library(module, name, mutation, keys, monkeypatch):
    jax.clear_caches()
    monkeypatch.setattr(module, name, mutation(getattr(module, name)))
    chosen = [claim for claim in claims.all_claims() if claim.key in keys]
    assert [verdict.failed for verdict in claims.verify(0, claims=chosen)] == [1] * len(keys)
    jax.clear_caches()
