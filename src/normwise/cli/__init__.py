"""The command line: `app` runs it, `commands` wires, one command a file."""
