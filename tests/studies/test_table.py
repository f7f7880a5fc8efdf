"""What was found, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from studies.coins import coin

from normwise.studies.book import write_book
from normwise.studies.estimate import Estimate
from normwise.studies.markdown import studies_page
from normwise.studies.run import run_studies
from normwise.studies.study import Prediction
from normwise.studies.table import reasons, rows
from normwise.studies.verdict import Comparison


def row(prediction: Prediction, measured: Estimate, idealised: Estimate | None = None):
    return rows([Comparison("q", prediction, measured, idealised)])[0]


@pytest.mark.parametrize(
    ("theory", "measured", "said"),
    [
        (1.0, Estimate(1.01234, 0.02), ("1.000", "1.012 [0.973, 1.052]", "+0.6")),
        (0.0, Estimate(0.5, 2.0), ("0", "0.5 [-3.4, 4.4]", "+0.2")),
        (0.18123, Estimate(0.18123, 0.0), ("0.1812", "0.1812", "")),
        (0.0, Estimate(0.0, 0.0), ("0", "0", "")),
        (0.0, Estimate(3.5527e-15, 0.0), ("0", "3.55e-15", "")),
        (368640.0, Estimate(368640.0, 0.0), ("368640", "368640", "")),
        (4.0, Estimate(3.998, 0.0), ("4.000", "3.998", "")),
        (12.0, Estimate(12.4, 0.3), ("12", "12.40 [11.81, 12.99]", "+1.3")),
    ],
)
def test_a_value_has_the_digits_its_error_allows(theory, measured, said):
    one = row(Prediction(theory, rival=99.0), measured)
    assert (one.theory, one.measured, one.off) == said


def test_a_row_says_what_was_claimed_and_what_theory_must_be_told_apart_from():
    one = row(Prediction(1.0, 2.0), Estimate(1.0, 0.01), Estimate(2.0, 0.01))
    assert (one.claim, one.rival, one.idealised) == ("2", "2", "2.000 [1.980, 2.020]")
    assert (one.verdict, one.level) == ("holds only under idealisation", "idealised")
    alone = row(Prediction(1.0, rival=2.0), Estimate(1.5, 0.3))
    assert (alone.claim, alone.verdict, alone.doubt) == ("", "theory agrees", "too rough to tell")
    assert row(Prediction(1.0, rival=2.0), Estimate(1.5, 0.01)).doubt == "disagrees"
    assert row(Prediction(1.0, 1.0, rival=2.0), Estimate(1.0, 0.3)).verdict == "undecided"


def test_each_reason_is_told_once_by_its_number():
    given = [("width", 0.1), ("", 0.0), ("batch", 0.1), ("width", 0.2)]
    comparisons = [
        Comparison(f"q{i}", Prediction(1.0, rival=2.0, finite_size=size, reason=why), Estimate(1.0, 0.01))
        for i, (why, size) in enumerate(given)
    ]
    assert reasons(comparisons) == {"1": "width", "2": "batch"}
    assert [one.finite_size for one in rows(comparisons)] == ["0.1 (1)", "", "0.1 (2)", "0.2 (1)"]


def test_identities_are_not_counted_among_what_holds(tmp_path):
    exact = replace(coin(), predict=lambda given: {"heads": Prediction(0.5, 0.5, rival=0.8, identity=True)})
    run_studies([exact], tmp_path, size="tiny")
    text = studies_page(tmp_path, [exact], "images")
    assert "Identity: 1. Theory agrees with every measurement of the table." in text
    assert "| identity |" in text
    page = write_book(tmp_path, [exact]).read_text(encoding="utf-8")
    assert "identity: 1</span>" in page
    assert "holds: 1" not in page
