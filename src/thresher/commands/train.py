"""``thresher train``: its options."""

from __future__ import annotations

from collections.abc import Sequence

from thresher.config import TrainConfig
from thresher.methods import all_methods, resolve_name
from thresher.options import Parser


def run(words: Sequence[str]) -> int:
    """Train, then write the report."""
    parser = _parser()
    given = parser.parse(words)
    resolve_name(given["method"])
    # Seconds, which the words' mistakes need not wait for.
    from thresher.commands.train_run import begin

    return begin(parser, words, given)


def _parser() -> Parser:
    parser = Parser(
        prog="thresher train",
        description="Train a classifier on images whose labels may be wrong. What is left open"
        " follows from the data, and the resolved configuration is printed and saved.",
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these options.")
    # Beside --data, which a configuration file sets: a positional would override it even if absent.
    parser.add_argument("DATA", type=str, nargs="?", help="The training images, as --data.")
    parser.add_fields(TrainConfig)
    for name, method in all_methods().items():
        parser.add_fields(method.Options, prefix=f"{name}.")
    parser.add_argument("--out", type=str | None, default=None, help="The run's directory.")
    parser.add_argument("--resume", action="store_true", help="Go on from the newest checkpoint.")
    parser.add_argument("--overwrite", action="store_true", help="Replace the run in --out.")
    return parser
