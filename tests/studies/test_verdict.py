"""What a measurement says about a theory and a claim."""

from __future__ import annotations

import pytest

from normwise.errors import NormwiseError
from normwise.studies.estimate import Estimate
from normwise.studies.study import Measurement, Prediction
from normwise.studies.verdict import Comparison, Verdict, compare


def compared(measured: float, error: float, *, idealised: float | None = None, **prediction: float) -> Comparison:
    reason = {"reason": "width"} if prediction.get("finite_size") else {}
    ideal = None if idealised is None else Estimate(idealised, error)
    return Comparison("q", Prediction(**prediction, **reason), Estimate(measured, error), ideal)


@pytest.mark.parametrize(
    ("measured", "finite_size", "agrees"),
    [(1.29, 0.0, True), (1.31, 0.0, False), (0.69, 0.0, False), (1.49, 0.2, True), (1.51, 0.2, False)],
)
def test_theory_agrees_within_three_errors_and_the_finite_size_term(measured, finite_size, agrees):
    assert compared(measured, 0.1, theory=1.0, claim=9.0, finite_size=finite_size).agrees is agrees


@pytest.mark.parametrize(
    ("error", "finite_size", "rival", "resolved"),
    [
        (0.199, 0.0, None, True),
        (0.201, 0.0, None, False),
        (0.1, 0.2, None, True),
        (0.1, 0.21, None, False),
        (0.2, 0.0, 1.5, False),
    ],
)
def test_the_rival_lies_five_errors_away(error, finite_size, rival, resolved):
    one = compared(1.0, error, theory=1.0, claim=2.0, rival=rival, finite_size=finite_size)
    assert one.resolved is resolved
    assert one.sound is resolved


def test_a_measurement_with_which_the_rival_agrees_as_well_decides_nothing():
    between = compared(0.5, 0.2, theory=0.0, rival=1.0)  # three errors reach from one to the other
    assert (between.agrees, between.resolved, between.verdict) == (True, False, Verdict.UNDECIDED)
    claimed = compared(0.5, 0.11, theory=0.0, claim=1.0, finite_size=0.2)
    assert (claimed.agrees, claimed.resolved, claimed.verdict) == (True, False, Verdict.UNDECIDED)


def test_few_replicates_widen_the_tolerance_and_must_still_tell_theories_apart():
    prediction = Prediction(1.0, 2.0)
    few, many = (Comparison("q", prediction, Estimate(1.5, 0.1, replicates)) for replicates in (3, 1000))
    assert (few.agrees, few.resolved) == (True, False)  # 19.2 errors, worth a known one of .64
    assert (many.agrees, many.resolved) == (False, True)


@pytest.mark.parametrize(
    ("measured", "idealised", "verdict"),
    [
        (2.0, None, Verdict.HOLDS),
        (1.0, 2.0, Verdict.IDEALISED),
        (5.0, 2.0, Verdict.IDEALISED),
        (1.0, 1.0, Verdict.FAILS),
        (1.0, None, Verdict.FAILS),
    ],
)
def test_the_verdict_on_a_claim(measured, idealised, verdict):
    assert compared(measured, 0.01, theory=1.0, claim=2.0, idealised=idealised).verdict is verdict


@pytest.mark.parametrize(
    ("error", "prediction"),
    [
        (0.21, {"theory": 2.0, "claim": 2.0, "rival": 1.0}),  # agrees, and would with much that lies nearer the rival
        (0.4, {"theory": 1.0, "claim": 2.0}),  # claim and theory both agree
        (0.01, {"theory": 2.0, "claim": 2.0, "rival": 1.0, "finite_size": 0.3}),
        (0.21, {"theory": 1.0, "rival": 2.0}),
    ],
)
def test_a_measurement_too_rough_to_tell_decides_nothing(error, prediction):
    measured = 1.5 if error == 0.4 else prediction["theory"]
    assert compared(measured, error, **prediction).verdict is Verdict.UNDECIDED
    sharp = {**prediction, "finite_size": 0.0}
    assert compared(prediction.get("claim", 1.0), 0.01, **sharp).verdict is Verdict.HOLDS


def test_a_rough_idealisation_does_not_save_a_claim():
    prediction = Prediction(1.0, claim=2.0)
    rough, sharp = (Comparison("q", prediction, Estimate(1.0, 0.01), Estimate(1.9, e)) for e in (0.21, 0.05))
    assert (rough.verdict, sharp.verdict) == (Verdict.UNDECIDED, Verdict.IDEALISED)


def test_how_far_off_a_measurement_is_counts_its_errors():
    assert compared(1.2, 0.1, theory=1.0, rival=2.0).errors_off == pytest.approx(2.0)
    assert compared(0.9, 0.1, theory=1.0, rival=2.0).errors_off == pytest.approx(-1.0)
    assert compared(1.0, 0.0, theory=1.0, rival=2.0).errors_off is None


def test_without_a_claim_the_theory_is_judged():
    assert compared(1.0, 0.01, theory=1.0, rival=2.0).verdict is Verdict.HOLDS
    assert compared(2.0, 0.01, theory=1.0, rival=2.0).verdict is Verdict.FAILS


def test_an_identity_is_one_only_while_the_measurement_says_so():
    exact = Prediction(0.0, claim=0.0, rival=1.0, identity=True)
    assert Comparison("q", exact, Estimate(0.0, 0.0)).identity
    assert not Comparison("q", exact, Estimate(0.5, 0.0)).identity
    assert not compared(0.0, 0.0, theory=0.0, claim=0.0, rival=1.0).identity


def test_the_claim_has_a_finite_size_term_of_its_own_where_it_is_idealised():
    values = {"theory": 1.0, "claim": 100.0, "idealised": 95.0, "finite_size": 0.1}
    assert compared(1.0, 0.01, **values).verdict is Verdict.FAILS
    assert compared(1.0, 0.01, claim_finite_size=10.0, **values).verdict is Verdict.IDEALISED


def test_predictions_and_measurements_name_the_same_quantities():
    predictions, one = {"a": Prediction(1.0, 2.0)}, Estimate(1.0, 0.1)
    assert [c.quantity for c in compare(predictions, Measurement({"a": one}))] == ["a"]
    for wrong in (
        Measurement({"b": one}),
        Measurement({"a": one, "b": one}),
        Measurement({"a": one}, idealised={"b": one}),
    ):
        with pytest.raises(NormwiseError, match=r"\['a', 'b'\]|\['b'\]"):
            compare(predictions, wrong)
