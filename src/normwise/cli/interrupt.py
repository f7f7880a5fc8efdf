"""An interrupt ends a command with one line and exit code 130, wherever it strikes."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, final

INTERRUPTED = 130  # 128 and the signal's number, as shells say it
_AGAIN = 0.5  # seconds after which an interrupt that was lost strikes again


@contextmanager
def interruptible(kept: str = "") -> Generator[None]:
    """Say that this block was interrupted, and what is `kept`, and leave with exit code 130.

    Whatever leaves the block after the signal counts as the interrupt, for a library may answer it with another error;
    a block that ends has done its work, and nothing is said. Where the caller ignores the signal, as a job in the
    background does, or in another thread than the main one, it stays as it is.
    """
    former, report = signal.getsignal(signal.SIGINT), sys.unraisablehook
    watched = threading.current_thread() is threading.main_thread() and former not in (signal.SIG_IGN, None)
    strike = _Strike()
    try:
        if watched:
            signal.signal(signal.SIGINT, strike)
            sys.unraisablehook = lambda lost: None if strike.came else report(lost)
        yield
    except BaseException as error:
        strike.shielded = True
        if not (strike.came or isinstance(error, KeyboardInterrupt)):
            raise
        sys.stderr.write(f"interrupted{'; ' if kept else ''}{kept}\n")
        raise SystemExit(INTERRUPTED) from error
    finally:
        strike.shielded = True  # not a signal mask, which torch's threads do not have
        if watched:
            strike.give_back_alarm()
            sys.unraisablehook = report
            signal.signal(signal.SIGINT, former)


@final
class _Strike:
    """Raises the interrupt where the signal finds the program, and again by an alarm where it was lost.

    A callback of compiled code (as in numba's compiler) prints what is raised in it and goes on; a bare `except` drops it.
    While clean-up handles it, or an error that came of it, it is not lost, and the alarm waits. Without alarms (on
    Windows) a lost interrupt waits for the next signal.
    """

    def __init__(self) -> None:
        self.came = self.shielded = False
        self._callers: tuple[tuple[float, float], Any] | None = None  # timer and handler, while ours stand for them

    def __call__(self, number: int, _frame: Any) -> None:
        if self.shielded:
            return
        self.came = True
        if hasattr(signal, "setitimer") and signal.getsignal(signal.SIGALRM) is not None:
            self._set_alarm()
        if number == signal.SIGINT or not _under_way():
            raise KeyboardInterrupt

    def _set_alarm(self) -> None:
        self.shielded = True
        try:
            if self._callers is None:
                self._callers = signal.setitimer(signal.ITIMER_REAL, 0), signal.signal(signal.SIGALRM, self)
        finally:
            self.shielded = False
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)

    def give_back_alarm(self) -> None:
        if self._callers is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._callers[1])
            signal.setitimer(signal.ITIMER_REAL, *self._callers[0])


def _under_way() -> bool:
    error = sys.exc_info()[1]  # of the interrupted code
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
