"""Runs the command line; turns errors into one line and an exit code."""

from __future__ import annotations

import sys

from normwise.cli.interrupt import INTERRUPTED, interruptible
from normwise.errors import NormwiseError


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: exit code 0 clean, 1 findings, 2 bad usage or input, 130 interrupted.

    Commands are imported here, where an interrupt is expected: they bring torch, which takes seconds. Errors are told
    outside, for one that came of an interrupt is not told.
    """
    with interruptible():
        import click

        from normwise.cli.commands import app
    try:
        with interruptible():
            code = app(arguments, standalone_mode=False)
            if code == INTERRUPTED:  # what typer makes of an interrupt
                raise KeyboardInterrupt
    except NormwiseError as error:
        _fail(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message())
    except click.exceptions.Abort:
        sys.exit(INTERRUPTED)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> None:
    sys.stderr.write(f"normwise: error: {' '.join(message.split())}\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
