"""An interrupt ends a command with one line and exit code 130, wherever it strikes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

_CODE = 130  # 128 and the signal's number, as shells say it
_AGAIN = 1.0  # seconds after which an interrupt that was lost strikes again


@contextmanager
def interruptible(kept: str = "") -> Generator[None]:
    """Say that this block was interrupted, and what is `kept`, and leave with exit code 130.

    Python raises `KeyboardInterrupt` wherever the signal finds it: inside a callback of compiled code, which prints and
    loses it (as in numba's compiler), or inside a library that answers with another error. So whatever leaves the block
    after the signal counts as the interrupt, and until something does the interrupt strikes again.

    Where the caller ignores interrupts, or in another thread than the main one, they stay as they are.
    """
    with _struck() as struck:
        try:
            yield
        except BaseException as error:
            if not (struck.is_set() or isinstance(error, KeyboardInterrupt)):
                raise
            struck.set()
    if struck.is_set():
        sys.stderr.write(f"interrupted{'; ' if kept else ''}{kept}\n")
        raise SystemExit(_CODE)


@contextmanager
def _struck() -> Generator[threading.Event]:
    """Give an event that the signal sets, and raise `KeyboardInterrupt` until the block is left."""
    struck, owner, former = threading.Event(), os.getpid(), signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or former in (signal.SIG_IGN, None):
        yield struck
        return
    alarm = signal.getsignal(signal.SIGALRM) if hasattr(signal, "setitimer") else None
    report = sys.unraisablehook

    def strike(_signal: int, _frame: Any) -> None:
        struck.set()
        if alarm is not None and os.getpid() == owner:  # not in a child, which shares the handler
            signal.signal(signal.SIGALRM, strike)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        raise KeyboardInterrupt

    def quiet(lost: sys.UnraisableHookArgs) -> None:
        if not struck.is_set():
            report(lost)

    try:
        signal.signal(signal.SIGINT, strike)
        sys.unraisablehook = quiet
        yield struck
    finally:
        if alarm is not None and struck.is_set():
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm)
        signal.signal(signal.SIGINT, former)
        sys.unraisablehook = report
