"""Every example document, rendered from the same places."""

from __future__ import annotations

import copy

import pytest
from reporting.documents import EXAMPLES


@pytest.fixture(params=sorted(EXAMPLES))
def example(request):
    """One document; a test that changes it changes only its own."""
    return copy.deepcopy(EXAMPLES[request.param]())
