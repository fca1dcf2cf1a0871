"""``thresher evaluate RUN DATA``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from thresher.commands.left_out import tell_left_out
from thresher.config import DataOptions, option
from thresher.errors import UserError
from thresher.files import write_atomically
from thresher.options import Parser, values_of


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(DataOptions):
    """Options of the command."""

    out: str | None = option(None, "Also write the figures to this JSON file.")


def run(words: Sequence[str]) -> int:
    """Print accuracy, over all and per class."""
    parser = Parser(prog="thresher evaluate", description="Measure a run on labelled images.")
    parser.add_argument("run", type=str, help="Directory of a finished run.")
    parser.add_argument("data", type=str, help="Labelled images, of any kind that train takes.")
    parser.add_fields(EvaluateOptions)
    given = parser.parse(words)
    options = values_of(EvaluateOptions, given)
    # Seconds, which the words' mistakes need not wait for.
    from thresher.train.data import open_images
    from thresher.train.predictor import Predictor

    predictor = Predictor.load(Path(given["run"]))
    images = open_images(given["data"], options, predictor.classes)
    tell_left_out(images.manifest.options, files_told=True)
    if len(images.ids) == 0:
        raise UserError(f"{given['data']} has no labelled image that can be used.")
    score = predictor.score(images)
    if score.accuracy is None:
        raise UserError(f"None of the {len(images.ids):,} images of {given['data']} can be read.")

    console = Console()
    table = Table("class", "images", "right", "accuracy", box=None)
    for name, correct, total in zip(predictor.classes, score.correct, score.total, strict=True):
        share = f"{correct / total:.1%}" if total else "–"
        table.add_row(name.replace("[", r"\["), f"{total:,}", f"{correct:,}", share)
    console.print(table)
    console.print(
        f"accuracy {score.accuracy:.2%} on {int(score.total.sum()):,} images"
        + (f"; {score.unreadable:,} could not be read" if score.unreadable else ""),
        highlight=False,
    )
    if options.out:
        figures = {
            "accuracy": score.accuracy,
            "images": int(score.total.sum()),
            "unreadable": score.unreadable,
            "per_class": {
                name: {"images": int(total), "right": int(correct)}
                for name, correct, total in zip(
                    predictor.classes, score.correct, score.total, strict=True
                )
            },
        }
        with write_atomically(Path(options.out)) as temporary:
            temporary.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    return 0
