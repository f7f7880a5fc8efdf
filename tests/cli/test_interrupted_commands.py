"""Commands that are interrupted: while they are imported, while loops are compiled, in the user's code, at their end."""

from __future__ import annotations

import signal
import time

import pytest
from cli.strikes import ended, started

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


def test_a_run_that_ends_all_the_same_has_its_own_exit_code(tmp_path):
    code, out, said = ended(started(_STUDIES + "run(before=lose_late, theory=0.7)", tmp_path))
    assert code == 1
    assert "late" in out
    assert "interrupted" not in said
    assert (tmp_path / "out/book.html").exists()


def test_an_interrupt_while_loops_are_compiled(tmp_path):
    """Struck when the first loop has been compiled and the next ones are about to be."""
    process = started(_STUDIES + "run(before=compile_loops)", tmp_path)
    try:
        given_up = time.monotonic() + 90
        while not list((tmp_path / "cache").rglob("*.nbi")):
            assert process.poll() is None, f"ended before a loop was compiled: {process.communicate()}"
            assert time.monotonic() < given_up, "no loop was compiled in 90 s"
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert ended(process) == (130, "", _LINE)
    finally:
        process.kill()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"studies.json", "coin.json"}


@pytest.mark.parametrize("how", ["strike()", "turn()"])
def test_an_interrupt_in_a_command_is_told_once_and_what_came_of_it_is_not(tmp_path, how):
    """The command turns an error of the user's code into bad usage, and its framework an interrupt into an exit code."""
    (tmp_path / "target.py").write_text(f"from __main__ import *\n\n\ndef model():\n    {how}\n", encoding="utf-8")
    script = "from normwise.cli.app import main\nmain(['audit', 'target:model'])"
    assert ended(started(script, tmp_path)) == (130, "", "interrupted\n")


def test_an_interrupt_while_a_command_is_imported(tmp_path):
    script = """
from normwise.cli.app import main
class Strikes:
    def find_spec(name, *_):
        if name == 'torch.nn': strike()
sys.meta_path.insert(0, Strikes)
main(['rules'])
"""
    assert ended(started(script, tmp_path)) == (130, "", "interrupted\n")
