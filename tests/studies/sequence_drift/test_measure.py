"""Without the optional data of speech the rest is measured, judged and drawn, and what to install is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from normwise.reporting import picture, style
from normwise.reporting.document import to_json
from normwise.studies.sequence_drift import STUDY
from normwise.studies.study import Measurement
from normwise.studies.verdict import compare

_FILE = "aeon/datasets/data/JapaneseVowels/JapaneseVowels_TRAIN.ts"


@pytest.fixture
def without_speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measurement:
    """The smallest measurement where no folder of packages has the data, read back as from a file."""
    monkeypatch.setenv("NORMWISE_DATA", str(tmp_path))
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if not (Path(folder) / _FILE).is_file()])
    return Measurement.of(json.loads(to_json(STUDY.measure(0, "tiny", lambda _: None).to_dict())))


def test_made_sequences_are_measured_without_speech(without_speech):
    (reason,) = without_speech.missing
    assert "aeon" in reason
    assert "NORMWISE_DATA" in reason
    compared = compare(STUDY.predict(without_speech.given), without_speech)
    assert len(compared) == 8
    assert [one.to_dict() for one in compared if not one.sound] == []
    assert not [one.quantity for one in compared if "speech" in one.quantity]


def test_only_made_sequences_are_shown_without_speech(without_speech):
    with style.look():
        drawn = {name: picture.svg(figure) for name, figure in STUDY.figures(without_speech).items()}
    assert drawn.keys() == {"bias", "noise"}
    assert not [name for name, picture in drawn.items() if "speech" in picture]
    assert STUDY.seen(without_speech) == ""
    assert STUDY.sliders(without_speech)
