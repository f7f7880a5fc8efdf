"""Predictions and measurements; how studies are found."""

from __future__ import annotations

from itertools import groupby

import pytest
from studies.coins import coin

from normwise.errors import NormwiseError, UsageError
from normwise.studies.estimate import Estimate, series
from normwise.studies.study import (
    Heading,
    Measurement,
    Prediction,
    all_studies,
    find_study,
    tracked,
)


@pytest.mark.parametrize(
    "values",
    [
        {"theory": 1.0},
        {"theory": 1.0, "claim": 1.0},
        {"theory": 1.0, "claim": 2.0, "rival": 1.0},
        {"theory": 1.0, "claim": 2.0, "finite_size": 0.1},
        {"theory": 1.0, "claim": 2.0, "finite_size": -0.1, "reason": "width"},
        {"theory": 1.0, "claim": 2.0, "reason": "width"},
        {"theory": 1.0, "claim": 2.0, "finite_size": 0.1, "reason": "Width."},
    ],
)
def test_a_prediction_that_nothing_could_contradict_is_refused(values):
    with pytest.raises(NormwiseError):
        Prediction(**values)


def test_a_measurement_read_from_plain_data_is_the_same():
    one = Measurement(
        {"a": Estimate(1.0, 0.1)}, {"width": 3}, {"s": series([1], [[1.0]] * 3)}, {"a": Estimate(2.0, 0.2)}
    )
    assert Measurement.of(one.to_dict()) == one


def test_parts_of_the_source_are_not_torn_apart():
    parts = [part for part, _ in groupby(Heading, key=lambda heading: heading.value[0])]
    assert len(parts) == len(set(parts))


def test_every_study_is_found_once():
    names = [study.name for study in all_studies()]
    assert {"residual-growth", "small-batch"} <= set(names)
    assert len(names) == len(set(names))


def test_a_study_is_one_file_and_takes_its_place_in_the_source(tmp_path, monkeypatch):
    import normwise.studies

    places = {
        "a_last": "Heading.PRIVACY",
        "z_first": "Heading.RESIDUAL, order=-2",
        "y_second": "Heading.RESIDUAL, order=-1",
    }
    for name, place in places.items():
        source = f"from normwise.studies.study import Heading\nSTUDY = coin({name!r}, heading={place})\n"
        (tmp_path / f"{name}.py").write_text(f"from studies.coins import coin\n{source}")
    monkeypatch.setattr(normwise.studies, "__path__", [*normwise.studies.__path__, str(tmp_path)])
    names = [study.name for study in all_studies()]
    assert names[:2] == ["z_first", "y_second"]
    assert names.index("a_last") > names.index("small-batch")
    assert find_study("a_last").heading is Heading.PRIVACY


def test_an_unknown_study_names_all():
    with pytest.raises(UsageError) as caught:
        find_study("coin")
    assert all(repr(study.name) in str(caught.value) for study in all_studies())


def test_progress_goes_from_nothing_to_all():
    said: list[float] = []
    assert list(tracked("abcd", said.append)) == list("abcd")
    assert said == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert coin().measure(0, "tiny", said.append).estimates["heads"].value == pytest.approx(0.5, abs=0.05)
