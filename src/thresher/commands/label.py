"""``thresher label SOURCE --classes FILE``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from thresher.commands.left_out import tell_left_out
from thresher.config import option
from thresher.errors import UserError
from thresher.label.classes import load_classes
from thresher.label.report import print_report
from thresher.label.run import Several, find_texts, label
from thresher.label.write import check_out, write_labels
from thresher.options import Parser, values_of
from thresher.sources.damage import AGAIN, DamagedShard
from thresher.sources.places import plain
from thresher.sources.request import explain_read_errors


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Options of the command."""

    classes: str | None = option(None, "YAML file: per class a list of words and phrases.")
    several: Several = option("drop", "Images that match several classes: drop, or first in text.")
    out: str = option("labels.parquet", "Where to write: a .parquet or .csv file.")
    path_column: str | None = option(None, "Column with the image path (tables).")
    image_column: str | None = option(None, "Column with the image bytes (Parquet image data).")
    allow_damaged: bool = option(False, "Go on without shards and files that cannot be read.")
    examples: int = option(3, "Random examples shown per class.")
    seed: int = option(0, "Of the examples.")


def run(words: Sequence[str]) -> int:
    """Write the labels, and print what they look like."""
    parser = Parser(
        prog="thresher label",
        description="Make labels from captions, alt texts, search queries or file names.",
    )
    parser.add_argument("source", type=str, help="A table, a folder of images, or tars with texts.")
    parser.add_argument(
        "--from",
        type=str | None,
        default=None,
        help="Where the text is: caption, alt, query, filename, or a column's name; several with "
        "commas: the first in which a class is found decides. Left open: the first there is.",
    )
    parser.add_fields(LabelOptions)
    given = parser.parse(words)
    options = values_of(LabelOptions, given)
    if options.classes is None:
        raise UserError("Name the words of each class: thresher label SOURCE --classes FILE.yaml.")
    phrases = load_classes(Path(options.classes))
    out, source = Path(options.out), plain(given["source"])
    check_out(out, source, None)
    texts = find_texts(source, options.path_column, options.image_column, options.allow_damaged)
    check_out(out, source, texts.manifest)
    tell_left_out(texts.options)
    with _explain_damage(source):
        labels = label(texts, phrases, asked=given["from"], several=options.several, source=source)
    written = write_labels(labels, out)
    print_report(
        labels, asked=given["from"] is not None, examples=options.examples, seed=options.seed
    )
    print("written to " + " and ".join(str(path) for path in written))
    return 0


@contextlib.contextmanager
def _explain_damage(source: str) -> Iterator[None]:
    """Turn what cannot be read of the texts into a sentence; images may be whole beside them."""
    try:
        with explain_read_errors(source):
            yield
    except DamagedShard as error:
        raise UserError(f"{str(error).rstrip('.')}. {AGAIN}.") from None
