"""What a rule, a finding and a fix are; the register of rules."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from normwise.errors import UsageError

if TYPE_CHECKING:
    from normwise.audit.trace import Trace

Action = Callable[[nn.Module, Sequence[str]], None]


class Severity(StrEnum):
    """error: the model is or will be wrong; warning: it costs quality; info: worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Fix:
    """A change that cures a finding.

    kind: fixes of one kind are one change, made to all their layers together. order: smaller is applied earlier.
    exact: the outputs in evaluation mode stay what they are, to rounding. action: None where only a person can do it.
    advice: shown and measured, never applied to a user's model.
    """

    kind: str
    description: str
    command: str
    layers: tuple[str, ...]
    exact: bool = False
    action: Action | None = field(default=None, repr=False)
    order: int = 0
    advice: bool = False
    ranked: bool = False

    def with_layers(self, layers: Iterable[str]) -> Fix:
        """Return the same fix for other layers."""
        return replace(self, layers=tuple(dict.fromkeys(layers)))


@dataclass(frozen=True)
class Finding:
    """One thing a rule found: where, how bad, the numbers that prove it, and the fix if there is one."""

    code: str
    name: str
    severity: Severity
    layer: str
    message: str
    evidence: dict[str, Any]
    fix: Fix | None = None
    alternatives: tuple[Fix, ...] = ()

    @property
    def fixes(self) -> tuple[Fix, ...]:
        """The fix and its alternatives."""
        return () if self.fix is None else (self.fix, *self.alternatives)


class Rule(ABC):
    """Abstract: one thing that can be wrong with normalization, and how it is proven.

    The texts are the rule's page (`normwise rule CODE`); thresholds are class attributes and derived there.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    severity: ClassVar[Severity]
    title: ClassVar[str]
    what: ClassVar[str]
    why: ClassVar[str]
    measured: ClassVar[str]
    known_problems: ClassVar[str]
    fix: ClassVar[str]
    exact: ClassVar[bool | None] = None

    @abstractmethod
    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield what is found in this trace."""

    def suspect(self, trace: Trace) -> Iterator[Finding]:
        """Yield findings that count only if their fix is measured to recover something."""
        return iter(())

    def finding(
        self,
        layer: str,
        message: str,
        evidence: dict[str, Any],
        *,
        fix: Fix | None = None,
        alternatives: tuple[Fix, ...] = (),
        severity: Severity | None = None,
    ) -> Finding:
        """Build a finding of this rule."""
        return Finding(self.code, self.name, severity or self.severity, layer, message, evidence, fix, alternatives)


_REGISTER: dict[str, Rule] = {}


def register(rule: type[Rule]) -> type[Rule]:
    """Enter a rule into the register."""
    _REGISTER[rule.code] = rule()
    return rule


def all_rules() -> list[Rule]:
    """Return every rule, by code."""
    package = importlib.import_module("normwise.audit.rules")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"normwise.audit.rules.{module.name}")
    return [_REGISTER[code] for code in sorted(_REGISTER)]


def find_rule(code: str) -> Rule:
    """Return one rule by code or name; raise `UsageError` for an unknown one."""
    for rule in all_rules():
        if code.upper() == rule.code or code.lower() == rule.name:
            return rule
    raise UsageError(f"rule: unknown code {code!r}; `normwise rules` lists them")


def select_rules(select: Iterable[str] | str | None, ignore: Iterable[str] | str | None) -> list[Rule]:
    """Return the rules whose codes start with one of `select` (None: all) and with none of `ignore`."""
    rules = all_rules()
    chosen, dropped = _prefixes(select, "select", rules), _prefixes(ignore, "ignore", rules) or ()
    return [
        rule
        for rule in rules
        if (chosen is None or rule.code.startswith(tuple(chosen))) and not rule.code.startswith(tuple(dropped))
    ]


def _prefixes(codes: Iterable[str] | str | None, argument: str, rules: list[Rule]) -> list[str] | None:
    if codes is None:
        return None
    given = codes.split(",") if isinstance(codes, str) else list(codes)
    prefixes = [code.strip().upper() for code in given if code.strip()]
    for prefix in prefixes:
        if not any(rule.code.startswith(prefix) for rule in rules):
            raise UsageError(f"{argument}: unknown rule code {prefix!r}; `normwise rules` lists them")
    return prefixes or None
