"""What every study must do; a new one is taken in by being there."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
import re
import types

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer

import normwise.theory
from normwise.errors import MissingDataError, MissingExtraError
from normwise.reporting import picture, slider, style
from normwise.reporting.document import to_json
from normwise.studies.study import Measurement, Study, all_studies
from normwise.studies.verdict import Comparison, compare

STUDIES = all_studies()
_MEASURED: dict[str, Measurement] = {}


def _measured_without_theory(study: Study) -> Measurement:
    """Measure while every function of `normwise.theory` refuses to be called."""

    def refuse(*_args: object, **_options: object) -> None:
        raise AssertionError("measure called theory")

    with pytest.MonkeyPatch.context() as patch:
        for found in pkgutil.iter_modules(normwise.theory.__path__):
            module = importlib.import_module(f"normwise.theory.{found.name}")
            for name, value in vars(module).copy().items():
                if isinstance(value, types.FunctionType):
                    patch.setattr(module, name, refuse)
        return study.measure(0, "tiny", lambda _: None)


@pytest.fixture(params=STUDIES, ids=lambda study: study.name)
def study(request) -> Study:
    return request.param


@pytest.fixture
def measured(study) -> Measurement:
    """A study's smallest measurement, made once, read back as from a file."""
    if study.name not in _MEASURED:
        try:
            made = _measured_without_theory(study)
        except (MissingDataError, MissingExtraError) as error:
            pytest.skip(f"lacks optional data: {error}")
        _MEASURED[study.name] = Measurement.of(json.loads(to_json(made.to_dict())))
    return _MEASURED[study.name]


def test_theory_agrees_where_it_could_have_failed(study, measured):
    failed = [one.to_dict() for one in compare(study.predict(measured.given), measured) if not one.sound]
    assert failed == []


def test_a_wrong_prediction_is_rejected(study, measured):
    for one in compare(study.predict(measured.given), measured):
        wrong = dataclasses.replace(one.prediction, theory=one.prediction.other, rival=one.prediction.theory)
        assert not Comparison(one.quantity, wrong, one.measured).agrees, one.quantity


def test_every_figure_shows_intervals(study, measured):
    with style.look():
        figures = study.figures(measured)
    assert figures
    containers = [container for made in figures.values() for axes in made.axes for container in axes.containers]
    bars = [container for container in containers if isinstance(container, ErrorbarContainer)]
    assert bars
    assert all(bar.has_yerr or bar.has_xerr for bar in bars)
    for made in figures.values():
        lines = [line for axes in made.axes for line in axes.lines if line.get_marker() not in ("None", "", None)]
        drawn = [bar.lines[0] for axes in made.axes for bar in axes.containers if isinstance(bar, ErrorbarContainer)]
        caps = [cap for axes in made.axes for bar in axes.containers for cap in getattr(bar, "lines", ((), (), ()))[1]]
        assert {id(line) for line in lines} <= {id(line) for line in [*drawn, *caps]}, "points without intervals"


def test_nothing_of_a_figure_is_cut_off(study, measured):
    with style.look():
        figures = study.figures(measured)
    for name, made in figures.items():
        picture.svg(made)
        needed, (width, height) = made.get_tightbbox(), made.get_size_inches()
        assert needed.x0 >= -0.02, name
        assert needed.x1 <= width + 0.02, name
        assert needed.y0 >= -0.02, name
        assert needed.y1 <= height + 0.02, name


def test_sliders_are_finite_everywhere(study, measured):
    for one in study.sliders(measured):
        assert np.isfinite(one.table()).all()
        drawn = slider.document(one)
        assert len(drawn["frames"]) == len(one.positions)
        assert all(frame["told"] for frame in drawn["frames"])
        assert len({tuple(frame["paths"]) for frame in drawn["frames"]}) == len(one.positions), (
            "a position changes nothing"
        )


def test_what_is_seen_besides_has_its_numbers_from_the_measurement(study, measured):
    said = study.seen(measured)
    assert not re.search(r"\b(nan|inf|None)\b", said)
    doubled = {name: doubled_values(drawn) for name, drawn in measured.series.items()}
    if said:
        assert study.seen(dataclasses.replace(measured, series=doubled)) != said


def doubled_values(drawn):
    """Every number of a series twice as large."""
    if isinstance(drawn, dict):
        return {name: doubled_values(value) for name, value in drawn.items()}
    if isinstance(drawn, list):
        return [doubled_values(value) for value in drawn]
    return 2 * drawn if isinstance(drawn, float) else drawn


def test_a_page_has_something_to_say(study):
    for text in (study.title, study.claim, study.theory, study.setting):
        assert len(text) > 10
    for sentence in (study.outcome, study.advice):
        assert len(sentence) > 40
        assert sentence.endswith(".")
        assert sentence.count(". ") == 0, "one sentence"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_quick_runs_agree_at_three_seeds(study, seed):
    try:
        made = study.measure(seed, "quick", lambda _: None)
    except (MissingDataError, MissingExtraError) as error:
        pytest.skip(f"lacks optional data: {error}")
    assert [one.to_dict() for one in compare(study.predict(made.given), made) if not one.sound] == []
