"""One file per command: its options, and a ``run`` that returns the exit code."""
