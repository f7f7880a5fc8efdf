"""An interrupt ends a block with one line and 130, wherever it strikes, disturbs no clean-up and leaves no trace."""

from __future__ import annotations

import pytest
from cli.strikes import ended, started


@pytest.mark.parametrize("how", ["strike()", "lose()", "drop()", "turn()"])
def test_an_interrupt_counts_also_where_it_is_lost_or_becomes_an_error(tmp_path, how):
    script = f"with interruptible('work is kept'): {how}; time.sleep(30)"
    assert ended(started(script, tmp_path)) == (130, "", "interrupted; work is kept\n")


@pytest.mark.parametrize("how", ["lose()", "turn()"])
def test_clean_up_takes_its_time(tmp_path, how):
    """Three times as long as a lost interrupt waits, in each frame that the interrupt passes."""
    script = f"""
interrupt._AGAIN = 0.1

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
        time.sleep(30)

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
    assert ended(started(script, tmp_path)) == (130, "restored\nremoved\nclosed\nrestored\n", "interrupted\n")


def test_a_second_interrupt_ends_slow_clean_up(tmp_path):
    script = """
with interruptible():
    try:
        strike()
    finally:
        strike()
        time.sleep(30)
        print("cleaned")
"""
    assert ended(started(script, tmp_path)) == (130, "", "interrupted\n")


def test_a_second_interrupt_at_any_line_that_sets_things_back_does_nothing(tmp_path):
    """Nor is there an alarm when its handler is the system's, which ends the process."""
    script = """
struck, armed = set(), []

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
        lose_late()
        strike()
except SystemExit as left:
    sys.settrace(None)
    print(left.code, *sorted(struck), set(armed))
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, sys.unraisablehook is sys.__unraisablehook__)
"""
    said = "130 _set_alarm give_back_alarm interruptible {(0.0, 0.0)}\nTrue True\n"
    assert ended(started(script, tmp_path)) == (0, said, "interrupted\n")


@pytest.mark.parametrize("how", ["pass", "1 / 0", "strike()", "lose_late()", "lose_late(); lose()", "turn()"])
def test_the_callers_handlers_and_timer_are_given_back(tmp_path, how):
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
    assert ended(started(script, tmp_path)) == (0, "True\n[True, 7.0] True\n", said)


def test_work_that_ends_all_the_same_is_not_called_interrupted(tmp_path):
    """The alarm that would strike again is gone with the block."""
    script = "with interruptible(): lose_late()\nprint('done', signal.getitimer(signal.ITIMER_REAL))"
    assert ended(started(script, tmp_path)) == (0, "done (0.0, 0.0)\n", "")


def test_a_forked_child_is_struck_again_and_its_parent_is_not(tmp_path):
    script = """
with interruptible():
    child = os.fork()
    if child == 0:
        with contextlib.suppress(KeyboardInterrupt):
            lose()
            time.sleep(30)
            os._exit(1)
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), signal.getitimer(signal.ITIMER_REAL))
"""
    assert ended(started(script, tmp_path)) == (0, "7 (0.0, 0.0)\n", "")


def test_another_thread_has_no_interrupts(tmp_path):
    script = """
def work():
    with interruptible():
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    assert ended(started(script, tmp_path)) == (0, "True\n", "")


def test_who_ignores_the_signal_is_not_interrupted_by_it(tmp_path):
    script = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
with interruptible():
    strike()
    print("done", signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
with interruptible():
    raise KeyboardInterrupt
"""
    assert ended(started(script, tmp_path)) == (130, "done True\n", "interrupted\n")
