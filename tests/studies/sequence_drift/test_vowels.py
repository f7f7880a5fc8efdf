"""Utterances are read whole or refused."""

from __future__ import annotations

import pytest

from normwise.errors import DataError, MissingDataError
from normwise.studies.sequence_drift.vowels import CHANNELS, LONGEST, SPEAKERS, read_utterances, vowels


def line(steps, label, start=0):
    return ":".join([*(",".join(str(start + c + t / 8) for t in range(steps)) for c in range(CHANNELS)), str(label)])


def written(folder, *lines):
    path = folder / "few.ts"
    path.write_text("\n".join(["#A comment: with a colon", "@dimensions 12", "@data", *lines]), encoding="utf-8")
    return path


def test_a_file_is_read_channel_by_channel(tmp_path):
    read = read_utterances(written(tmp_path, line(3, 9), line(LONGEST, 1, start=5)))
    assert read.lengths.tolist() == [3, LONGEST]
    assert read.labels.tolist() == [8, 0]
    assert read.values.shape == (2, CHANNELS, LONGEST)
    assert read.values[0, 4, :4].tolist() == [4.0, 4.125, 4.25, 0.0]
    assert read.values[1, 11, -1] == 5 + 11 + 28 / 8


@pytest.mark.parametrize(
    "wrong",
    [
        line(3, 10),
        line(3, 0),
        line(3, "a"),
        line(LONGEST + 1, 1),
        line(3, 1).split(":", 1)[1],
        line(3, 1).replace("0.125", "?", 1),
        line(3, 1).replace("0.125,", "", 1),
    ],
)
def test_a_spoilt_line_is_named(tmp_path, wrong):
    with pytest.raises(DataError, match=r"line 5.*few\.ts"):
        read_utterances(written(tmp_path, line(3, 1), wrong))


def test_a_file_without_data_is_refused(tmp_path):
    with pytest.raises(DataError, match="no line"):
        read_utterances(written(tmp_path))


def test_the_data_set_is_all_there():
    try:
        train, held = vowels()
    except MissingDataError as error:
        pytest.skip(str(error))
    assert (len(train), len(held)) == (270, 370)
    assert train.labels.bincount().tolist() == [30] * SPEAKERS
    assert (int(train.lengths.min()), int(held.lengths.max())) == (7, LONGEST)
    assert train.values[0, 0, 0] == pytest.approx(1.860936)
