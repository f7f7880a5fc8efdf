"""An interrupt ends a command with one line and 130, wherever it strikes, disturbs no clean-up and leaves no trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import normwise

_TOOLS = '''
import contextlib, ctypes, os, signal, sys, threading, time
from normwise.cli import interrupt
from normwise.cli.interrupt import interruptible

def strike():
    signal.raise_signal(signal.SIGINT)

def lose():
    """What is raised in a callback is printed and lost."""
    ctypes.CFUNCTYPE(None)(strike)()

def drop():
    try:
        strike()
    except:
        pass

def turn():
    """The first strike is lost, the next one becomes another error."""
    lose()
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        raise RuntimeError("no compiled object yet") from None
'''
_STUDIES = """
from studies.coins import coin
from normwise.studies import study
from normwise.cli.app import main

def compile_loops():
    import torch
    from normwise.layers import BatchNorm, MaskedBatchNorm
    x = torch.randn(8, 4, 16, requires_grad=True)
    BatchNorm(4)(x).sum().backward()
    MaskedBatchNorm(4)(x, torch.full((8,), 12)).sum().backward()
    time.sleep(600)

def run(**late):
    study.all_studies = lambda: [coin(), coin("late", order=1, **late)]
    main(["study", "run", "--all", "--size", "tiny", "--output", "out"])
"""
_LINE = "interrupted; finished studies are kept: run the same command to go on\n"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A folder to work in, where no loop has been compiled before."""
    monkeypatch.chdir(tmp_path)
    found = os.pathsep.join([str(Path(normwise.__file__).parents[1]), str(Path(__file__).parents[1])])
    return {**os.environ, "PYTHONPATH": found, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}


def ended(script: str, environment: dict[str, str]) -> tuple[int, str, str]:
    """Exit code, output and errors of a process that has the tools above."""
    done = subprocess.run(
        [sys.executable, "-c", _TOOLS + script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("how", ["strike()", "lose()", "drop()", "turn()"])
def test_an_interrupt_counts_also_where_it_is_lost_or_becomes_an_error(environment, how):
    script = f"with interruptible('work is kept'): {how}; time.sleep(60)"
    assert ended(script, environment) == (130, "", "interrupted; work is kept\n")


@pytest.mark.parametrize("how", ["lose()", "turn()"])
def test_clean_up_takes_its_time(environment, how):
    """Three times as long as a lost interrupt waits, in each frame that the interrupt passes."""
    script = f"""
@contextlib.contextmanager
def restored():
    try:
        yield
    finally:
        time.sleep(3 * interrupt._AGAIN)
        print("restored")

def reports():
    with restored():
        yield
        {how}
        time.sleep(60)

with interruptible(), restored():
    try:
        list(reports())
    except BaseException:
        time.sleep(3 * interrupt._AGAIN)
        print("removed")
        raise
    finally:
        with contextlib.suppress(KeyError):
            {{}}["other errors meanwhile"]
        time.sleep(3 * interrupt._AGAIN)
        print("closed")
"""
    assert ended(script, environment) == (130, "restored\nremoved\nclosed\nrestored\n", "interrupted\n")


def test_a_second_interrupt_ends_slow_clean_up(environment):
    script = """
with interruptible():
    try:
        strike()
    finally:
        strike()
        time.sleep(60)
        print("cleaned")
"""
    assert ended(script, environment) == (130, "", "interrupted\n")


def test_a_second_interrupt_at_any_line_that_sets_things_back_does_nothing(environment):
    """Nor is there an alarm when its handler is the system's, which ends the process."""
    script = """
interrupt._AGAIN, struck, armed = 1000, set(), []

def traced(frame, event, _):
    if frame.f_code.co_filename != interrupt.__file__:
        return None
    ours = frame.f_locals.get("strike") or frame.f_locals.get("self")
    if event == "line" and ours is not None and ours.shielded:
        struck.add(frame.f_code.co_name)
        strike()
        if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
            armed.append(signal.getitimer(signal.ITIMER_REAL))
    return traced

try:
    with interruptible():
        sys.settrace(traced)
        lose()
        strike()
except SystemExit as left:
    sys.settrace(None)
    print(left.code, *sorted(struck), set(armed))
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, sys.unraisablehook is sys.__unraisablehook__)
"""
    said = "130 _lost give_back_alarm interruptible {(0.0, 0.0)}\nTrue True\n"
    assert ended(script, environment) == (0, said, "interrupted\n")


@pytest.mark.parametrize("how", ["pass", "1 / 0", "strike()", "lose()", "lose(); lose()", "turn()"])
def test_the_callers_handlers_and_timer_are_given_back(environment, how):
    """Also by nested blocks, of which the inner one speaks."""
    script = f"""
def handler(*_):
    print("called")

def hook(_):
    print("told")

def state():
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    return [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM), sys.unraisablehook, left > 900, interval]

for number in (signal.SIGINT, signal.SIGALRM):
    signal.signal(number, handler)
sys.unraisablehook = hook
signal.setitimer(signal.ITIMER_REAL, 2000, 7)
before = state()
with contextlib.suppress(SystemExit, ZeroDivisionError), interruptible("outer"):
    outer = state()
    try:
        with interruptible("inner"):
            {how}
    finally:
        print(state() == outer)
print(before[3:], state() == before)
"""
    said = "interrupted; inner\n" if how in ("strike()", "turn()") else ""
    assert ended(script, environment) == (0, "True\n[True, 7.0] True\n", said)


def test_work_that_ends_all_the_same_is_not_called_interrupted(environment):
    """The alarm that would strike again is gone with the block."""
    script = "with interruptible(): lose()\ntime.sleep(5 * interrupt._AGAIN); print('done')"
    assert ended(script, environment) == (0, "done\n", "")


def test_a_forked_child_is_struck_again_and_its_parent_is_not(environment):
    script = """
with interruptible():
    child = os.fork()
    if child == 0:
        with contextlib.suppress(KeyboardInterrupt):
            lose()
            time.sleep(60)
            os._exit(1)
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), signal.getitimer(signal.ITIMER_REAL))
"""
    assert ended(script, environment) == (0, "7 (0.0, 0.0)\n", "")


def test_another_thread_has_no_interrupts(environment):
    script = """
def work():
    with interruptible():
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    assert ended(script, environment) == (0, "True\n", "")


def test_an_interrupt_freed_in_another_thread_sets_no_alarm(environment):
    """The main thread may be leaving the block meanwhile: an alarm set after that would end the process."""
    script = """
interrupt._AGAIN, held = 1000, []
with interruptible():
    lose()
    signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        strike()
    except KeyboardInterrupt as error:
        held.append(error)
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    print(signal.getitimer(signal.ITIMER_REAL))
    lose()
    print(signal.getitimer(signal.ITIMER_REAL)[0] > 0)
"""
    assert ended(script, environment) == (0, "(0.0, 0.0)\nTrue\n", "")


def test_who_ignores_interrupts_is_not_interrupted(environment):
    script = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
with interruptible():
    strike()
    print("done", signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
"""
    assert ended(script, environment) == (0, "done True\n", "")


def test_a_run_that_ends_all_the_same_has_its_own_exit_code(environment):
    code, out, said = ended(_STUDIES + "interrupt._AGAIN = 1000\nrun(before=lose, theory=0.7)", environment)
    assert code == 1
    assert "late" in out
    assert "interrupted" not in said
    assert Path("out/book.html").exists()


def test_an_interrupt_while_loops_are_compiled(environment):
    """Struck when the first loop has been compiled and the next ones are about to be."""
    process = subprocess.Popen(
        [sys.executable, "-c", _TOOLS + _STUDIES + "run(before=compile_loops)"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        given_up = time.monotonic() + 90
        while not list(Path("cache").rglob("*.nbi")):
            assert process.poll() is None, f"ended before a loop was compiled: {process.communicate()}"
            assert time.monotonic() < given_up, "no loop was compiled in 90 s"
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, said) == (130, "", _LINE)
    assert {path.name for path in Path("out").iterdir()} == {"studies.json", "coin.json"}


@pytest.mark.parametrize("how", ["strike()", "turn()"])
def test_an_interrupt_in_a_command_is_told_once_and_what_came_of_it_is_not(environment, how):
    """The command turns an error of the user's code into bad usage, and its framework an interrupt into an exit code."""
    Path("target.py").write_text(f"from __main__ import *\n\n\ndef model():\n    {how}\n", encoding="utf-8")
    script = "from normwise.cli.app import main\nmain(['audit', 'target:model'])"
    assert ended(script, environment) == (130, "", "interrupted\n")


def test_an_interrupt_while_a_command_is_imported(environment):
    script = """
from normwise.cli.app import main
class Strikes:
    def find_spec(name, *_):
        if name == 'torch.nn': strike()
sys.meta_path.insert(0, Strikes)
main(['rules'])
"""
    assert ended(script, environment) == (130, "", "interrupted\n")
