"""An interrupt ends a command with one line and 130: while it is imported, in a compiler's callback, in its work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import normwise

_STUDIES = '''
import ctypes, signal, sys, time
from studies.coins import coin
from normwise.studies import study
from normwise.cli.app import main

def lost_and_turned():
    """The first strike is lost in a callback, the next one becomes another error."""
    ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGINT))()
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        raise RuntimeError("no compiled object yet") from None

def compile_loops():
    import torch
    from normwise.layers import BatchNorm, MaskedBatchNorm
    x = torch.randn(8, 4, 16, requires_grad=True)
    BatchNorm(4)(x).sum().backward()
    MaskedBatchNorm(4)(x, torch.full((8,), 12)).sum().backward()
    time.sleep(600)

study.all_studies = lambda: [coin(), coin("late", order=1, before={before})]
main(["study", "run", "--all", "--size", "tiny", "--output", "out"])
'''
_KEPT = "interrupted; finished studies are kept: run the same command to go on\n"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A folder to work in, where no loop has been compiled before."""
    monkeypatch.chdir(tmp_path)
    found = os.pathsep.join([str(Path(normwise.__file__).parents[1]), str(Path(__file__).parents[1])])
    return {**os.environ, "PYTHONPATH": found, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}


def finished(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_an_interrupt_that_is_lost_or_turned_into_an_error_still_counts(environment):
    done = finished(_STUDIES.replace("{before}", "lost_and_turned"), environment)
    assert (done.returncode, done.stderr) == (130, _KEPT)
    assert {path.name for path in Path("out").iterdir()} == {"studies.json", "coin.json"}


def test_an_interrupt_while_loops_are_compiled(environment):
    """Struck when the first loop has been compiled and the next ones are about to be."""
    process = subprocess.Popen(
        [sys.executable, "-c", _STUDIES.replace("{before}", "compile_loops")],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not list(Path("cache").rglob("*.nbi")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out, said) == (130, "", _KEPT)
    assert {path.name for path in Path("out").iterdir()} == {"studies.json", "coin.json"}


def test_an_interrupt_while_a_command_is_imported(environment):
    script = (
        "import signal, sys\n"
        "from normwise.cli.app import main\n"
        "class Strikes:\n"
        "    def find_spec(name, *_):\n"
        "        if name == 'torch.nn': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Strikes)\n"
        "main(['rules'])"
    )
    done = finished(script, environment)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_who_ignores_interrupts_is_not_interrupted(environment):
    script = _STUDIES.replace("{before}", "lambda: signal.raise_signal(signal.SIGINT)")
    done = finished("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + script, environment)
    assert done.returncode == 0
    assert "interrupted" not in done.stderr
