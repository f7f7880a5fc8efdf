"""Processes that interrupt themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import normwise

TOOLS = '''
import contextlib, ctypes, os, signal, sys, threading, time
from normwise.cli import interrupt
from normwise.cli.interrupt import interruptible

signal.signal(signal.SIGINT, signal.default_int_handler)  # where tests run in the background it is ignored

def strike():
    signal.raise_signal(signal.SIGINT)

def lose():
    """What is raised in a callback is printed and lost."""
    ctypes.CFUNCTYPE(None)(strike)()

def lose_late():
    """What does not strike again in time."""
    interrupt._AGAIN = 1000
    lose()

def drop():
    try:
        strike()
    except:
        pass

def turn():
    """The first strike is lost, the next one becomes another error."""
    lose()
    try:
        time.sleep(30)
    except KeyboardInterrupt:
        raise RuntimeError("no compiled object yet") from None
'''


def started(script: str, folder: Path) -> subprocess.Popen[str]:
    """A process with these tools, in a folder where no loop has been compiled before."""
    found = os.pathsep.join([str(Path(normwise.__file__).parents[1]), str(Path(__file__).parents[1])])
    return subprocess.Popen(
        [sys.executable, "-c", TOOLS + script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": found, "NUMBA_CACHE_DIR": str(folder / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, output and errors; a process that hangs is killed."""
    try:
        out, said = process.communicate(timeout=90)
    finally:
        process.kill()
    return process.returncode, out, said
