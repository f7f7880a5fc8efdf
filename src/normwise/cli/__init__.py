"""The command line: `app` wires, one command a file."""
