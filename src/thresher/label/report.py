"""What the labels look like, for the person who has to trust them."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
from rich.console import Console
from rich.table import Table

from thresher.label.run import Labels
from thresher.label.texts import FILE_NAME
from thresher.sources.notes import alike_classes
from thresher.sources.request import enumerate_some, printable

_MOST_PAIRS = 10
_MOST_TEXT = 60  # characters of an example


def print_report(labels: Labels, *, asked: bool, examples: int, seed: int) -> None:
    """Print counts, shares, confusable classes and random examples."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    num = len(labels.outcome_of)
    times = labels.times().tolist()
    several = sum(n for ids, n in zip(labels.outcomes, times, strict=True) if len(ids) > 1)
    done = "left without a label" if labels.several == "drop" else "the first in the text counts"

    shown = _examples(labels, examples, seed)
    table = Table("class", "images", "share", "examples", box=None)
    for name, count in labels.counts().most_common():
        lines = shown.get(name, [])
        table.add_row(printable(name), f"{count:,}", f"{count / num:.1%}", "\n".join(lines))
    console.print(table)
    where = " then ".join(f"'{printable(column)}'" for column in labels.columns)
    console.print(f"text looked in: {where}{'' if asked else ', chosen by its name (--from)'}")
    console.print(
        f"{num:,} images: {sum(labels.counts().values()):,} labelled, "
        f"{times[0]:,} without a match ({times[0] / num:.1%}), "
        f"{several:,} with several classes ({several / num:.1%}; {done})"
    )
    for reason, count in labels.texts.left_out.items():
        console.print(f"{count:,} left out: {reason}")
    _print_pairs(console, labels, times)
    _print_unused(console, labels, times)
    for note in alike_classes(labels.counts()):
        console.print(note)
    console.print(
        "These labels are guesses from "
        + ("file names" if labels.columns == (FILE_NAME,) else "texts")
        + ": no image was looked at. Expect a part of them to be wrong."
    )


def _examples(labels: Labels, most: int, seed: int) -> dict[str, list[str]]:
    """Random images per class with the text and phrase that decided; a function of the seed."""
    names = [labels.label_of(outcome) or "" for outcome in range(len(labels.outcomes))]
    classes = sorted(set(names) - {""})
    index = {name: place for place, name in enumerate(classes)}
    class_of = np.array([index.get(name, -1) for name in names])[labels.outcome_of]
    rng = np.random.default_rng(seed)
    rows_of: dict[str, list[int]] = {}
    for place, name in enumerate(classes):
        rows = np.flatnonzero(class_of == place)
        picked = rng.choice(rows, size=min(max(most, 0), len(rows)), replace=False)
        rows_of[name] = np.sort(picked).tolist()
    texts = _texts_of(labels, sorted(row for rows in rows_of.values() for row in rows))
    return {name: [_example(labels, row, texts) for row in rows] for name, rows in rows_of.items()}


def _example(labels: Labels, row: int, texts: dict[int, str]) -> str:
    phrase = labels.phrases[labels.outcomes[labels.outcome_of[row]][0]].text
    text = texts.get(row, "")
    short = text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + "..."
    name = printable(labels.texts.names[row].as_py())
    return f"{name} ({printable(phrase)}){': ' + printable(short) if text else ''}"


def _texts_of(labels: Labels, rows: list[int]) -> dict[int, str]:
    """The texts of a few rows, read once more: all of them would not fit into memory."""
    texts: dict[int, str] = {}
    for place, column in enumerate(labels.columns):
        wanted = np.array([row for row in rows if labels.column_of[row] == place], dtype=np.int64)
        if column == FILE_NAME or not len(wanted):
            continue
        start = 0
        for chunk in labels.texts.read(column):
            here = wanted[(wanted >= start) & (wanted < start + len(chunk))]
            texts.update({row: chunk[row - start].as_py() for row in here.tolist()})
            start += len(chunk)
            if start > wanted[-1]:
                break
    return texts


def _print_pairs(console: Console, labels: Labels, times: list[int]) -> None:
    pairs: Counter[tuple[str, ...]] = Counter()
    for outcome, count in enumerate(times):
        for pair in itertools.combinations(sorted(labels.names_of(outcome)), 2):
            pairs[pair] += count
    if pairs:
        listed = (f"{printable(a)} + {printable(b)} {n:,}" for (a, b), n in _top(pairs))
        console.print("found together most often: " + ", ".join(listed))


def _top(pairs: Counter[tuple[str, ...]]) -> list[tuple[tuple[str, ...], int]]:
    return sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:_MOST_PAIRS]


def _print_unused(console: Console, labels: Labels, times: list[int]) -> None:
    used = {
        phrase for ids, count in zip(labels.outcomes, times, strict=True) if count for phrase in ids
    }
    unused = [phrase.text for place, phrase in enumerate(labels.phrases) if place not in used]
    if unused:
        console.print(f"phrases that decided nothing: {enumerate_some(unused, most=10)}")
