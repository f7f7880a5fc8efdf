"""All parts of the suite in one class."""

from __future__ import annotations

from conformance.bad_input import BadInput
from conformance.life_cycle import LifeCycle
from conformance.mathematics import Mathematics
from conformance.precision import Precision
from conformance.properties import Properties


class LayerConformance(Mathematics, Properties, BadInput, Precision, LifeCycle):
    """The suite; `case` is all a subclass sets."""

    def __init_subclass__(cls) -> None:
        for part in LayerConformance.__mro__:
            for name, test in vars(part).items():
                if hasattr(test, "applies") and not test.applies(cls.case):
                    setattr(cls, name, None)
