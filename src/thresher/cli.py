"""The command line: ``thresher COMMAND``. Heavy imports wait until a command needs them."""

from __future__ import annotations

import importlib
import signal
import sys
import time
from collections.abc import Sequence

from thresher import ranks
from thresher.errors import UserError, unknown_name

COMMANDS = {
    "train": "train a classifier on images whose labels may be wrong",
    "scan": "find out what is wrong with a collection of images before training",
    "evaluate": "measure a run's accuracy on labelled images",
    "predict": "label images with a run's networks",
    "audit": "list and show the labels that a run does not believe",
    "label": "make labels from captions, queries or file names",
    "pack": "re-encode images into tars that train fast",
    "plan": "predict time and efficiency on many nodes before training there",
    "bench": "measure this machine: what one process does and needs",
}
USER_ERROR = 2
_FIRST_WORD_SECONDS = 0.5
"""For whoever speaks: a launcher that sees one process end kills the others."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 when done, 2 for bad input, 128 + n if signal n stopped it."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_help())
            return 0
        if words[0] == "--version":
            from thresher import __version__

            print(f"thresher {__version__}")
            return 0
        if words[0] not in COMMANDS:
            raise unknown_name("command", words[0], COMMANDS)
        command = importlib.import_module(f"thresher.commands.{words[0]}")
        return int(command.run(words[1:]))
    except UserError as error:
        if not error.told and ranks.speaks_before_launch():
            print(f"thresher: {error}", file=sys.stderr)
        else:
            time.sleep(_FIRST_WORD_SECONDS)
        return USER_ERROR
    except KeyboardInterrupt:
        if ranks.speaks_before_launch():
            print("thresher: stopped by Ctrl-C.", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output left, as ``head`` does; that is no error.
        sys.stderr.close()
        return 0


def _help() -> str:
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: thresher COMMAND ...",
            "",
            "Train image classifiers on wrongly labelled images; see which labels not to believe.",
            "",
            "commands:",
            *lines,
            "",
            "thresher COMMAND --help explains a command; thresher --version names this version.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
