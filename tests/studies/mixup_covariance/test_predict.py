"""Predictions from what is given: eps, the number of digits, and the scatter of a running variance."""

from __future__ import annotations

import numpy as np
import pytest

from normwise.studies.mixup_covariance.predict import CONVOLUTIONAL, INFLATED, RECALIBRATED, SECOND, TOP, predict

GIVEN = {
    "covariance": np.eye(3).tolist(),
    "mean": [2.0, 0.0, 0.0],
    "share of the mean image": 0.5,
    "eps over the variance": [[0.0, 0.1], [0.2, 0.3]],
    "digits": 11,
    "batch": 5,
    "batches": 10,
}


def test_eps_is_averaged_after_it_was_added():
    predicted = predict(GIVEN)
    eps = np.array([0.0, 0.1, 0.2, 0.3])
    assert predicted[RECALIBRATED].theory == pytest.approx(np.mean(1 / (1.1 + eps)))
    assert predicted[RECALIBRATED].finite_size == 0
    assert predicted[INFLATED].theory == pytest.approx(np.mean(1 / (2 / 3 + eps)))
    assert predicted[INFLATED].finite_size == pytest.approx(predicted[INFLATED].theory * 0.05)  # 2/(5 - 1) over 10


def test_what_does_not_vary_is_not_mixed():
    predicted = predict(GIVEN)
    assert predicted[TOP].theory == pytest.approx((2 / 3 + 4) / (1 + 4))  # along the mean, whose square is 4
    assert predicted[SECOND].theory == pytest.approx(2 / 3)
    assert predicted[CONVOLUTIONAL].theory == pytest.approx(0.5 * 2 / 3 + 0.5)
