"""`pkg.module:attribute` and `pkg.module:make(10, depth=3)`: what a person names on the command line."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import nn

from normwise.errors import NormwiseError, UsageError
from normwise.models.task import Task

# What a person's own module or factory fails with; said in one line, for it is not a fault of this package.
_FAILURES = (
    ArithmeticError, AttributeError, ImportError, LookupError, NameError, OSError, RuntimeError, SyntaxError, TypeError,
    ValueError,
)  # fmt: skip


def load_model(text: str) -> nn.Module:
    """Return the module a text names: a module, a class or a factory, with arguments in brackets if it needs some."""
    value = _called(text, "model", lambda value: isinstance(value, nn.Module))
    if not isinstance(value, nn.Module):
        raise UsageError(f"model: expected {text!r} to be or to return a torch.nn.Module, got {type(value).__name__}")
    return value


def load_data(text: str, argument: str = "data") -> Iterable[Any]:
    """Return the batches a text names: an iterable or a factory of one."""
    value = _called(text, argument, lambda value: hasattr(value, "__iter__"))
    if not hasattr(value, "__iter__"):
        raise UsageError(
            f"{argument}: expected {text!r} to be or to return an iterable of batches, got {type(value).__name__}"
        )
    return value


def load_task(text: str | None) -> Task | None:
    """Return the task a text names, if any."""
    if text is None:
        return None
    value = _called(text, "task", lambda value: isinstance(value, Task))
    if not isinstance(value, Task):
        raise UsageError(f"task: expected {text!r} to be or to return a normwise.Task, got {type(value).__name__}")
    return value


def _called(text: str, argument: str, done: Callable[[Any], bool]) -> Any:
    """Resolve a name, and call it if it is not yet what is wanted."""
    path, arguments = _parsed(text, argument)
    value = _resolved(path, argument, text)
    if arguments is None and (isinstance(value, type) or not done(value)) and callable(value):
        arguments = ([], {})
    if arguments is None:
        return value
    if not callable(value):
        raise UsageError(
            f"{argument}: {path!r} is a {type(value).__name__} and cannot be called; leave the brackets out"
        )
    try:
        inspect.signature(value).bind(*arguments[0], **arguments[1])
    except TypeError as error:
        name = path.partition(":")[2]
        raise UsageError(
            f"{argument}: {path!r} needs other arguments ({error}); write '{path.partition(':')[0]}:{name}(...)' with "
            f"{inspect.signature(value)}"
        ) from error
    except ValueError:
        pass  # a builtin without a signature: calling tells
    try:
        return value(*arguments[0], **arguments[1])
    except NormwiseError:
        raise
    except _FAILURES as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{argument}: calling {text!r} failed: {type(error).__name__}: {reason}") from error


def _parsed(text: str, argument: str) -> tuple[str, tuple[list[Any], dict[str, Any]] | None]:
    """Split `module:name(arguments)`; arguments are literals."""
    module, colon, rest = text.partition(":")
    if not colon or not module or not rest:
        raise UsageError(f"{argument}: expected 'package.module:name', got {text!r}")
    if "(" not in rest:
        return text, None
    try:
        call = ast.parse(rest.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("not a call")
        positional = [ast.literal_eval(value) for value in call.args]
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, TypeError, ValueError) as error:
        raise UsageError(
            f"{argument}: the arguments in {text!r} must be literals, such as make(10, name='x')"
        ) from error
    return f"{module}:{ast.unparse(call.func)}", (positional, named)


def _resolved(path: str, argument: str, text: str) -> Any:
    module, _, attribute = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        value: Any = importlib.import_module(module)
    except _FAILURES as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{argument}: cannot import {module!r} of {text!r}: {type(error).__name__}: {reason}; run from its "
            "project's folder"
        ) from error
    for name in attribute.split("."):
        if not hasattr(value, name):
            known = (
                ", ".join(n for n in vars(value) if not n.startswith("_"))[:120] if hasattr(value, "__dict__") else ""
            )
            raise UsageError(f"{argument}: {module!r} has no {attribute!r}; it has {known}")
        value = getattr(value, name)
    return value
