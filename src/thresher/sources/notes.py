"""What a user should know of data that can be used, but perhaps not as they are meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from thresher.sources.labels import NOT_A_LABEL
from thresher.sources.manifest import Manifest
from thresher.sources.names import plain_name
from thresher.sources.request import NO_LABEL, enumerate_some, printable

_MOST = 5  # names or groups in a sentence
# Pictures that are not read here, or that may hide in such a file.
_PICTURES = {
    *("heic", "heif", "avif", "jxl", "jp2", "j2k", "jpx", "svg", "psd", "tga", "ico", "exr", "hdr"),
    *("raw", "dng", "cr2", "cr3", "nef", "arw", "orf", "rw2", "raf", "dcm", "eps", "pcx", "pdf"),
    *("zip", "tar", "gz", "tgz", "rar", "7z", ""),
}


def notes_of(manifest: Manifest, *, all_files: bool = False) -> list[str]:
    """Sentences about classes, labels and files that may be other than the user thinks.

    Args:
        manifest: opened data.
        all_files: tell of every file that is passed over, not just of what may be a picture.
    """
    labels = manifest.labels
    counts = np.bincount(labels[labels >= 0], minlength=len(manifest.classes))
    of_class = dict(zip(manifest.classes, counts.tolist(), strict=True))
    notes = [*alike_classes(of_class), *_like_no_label(of_class)]
    notes += _labels(manifest)
    if manifest.options.get("complete") is False:
        notes.append(
            f"Packing was not finished, so only the first {len(manifest):,} samples are here and"
            " whole classes may be missing. Run the same thresher pack again to go on."
        )
    return notes + _files(manifest.options, all_files=all_files)


def alike_classes(images: Mapping[str, int]) -> list[str]:
    """What to say of classes whose names differ only in case or spaces: never are they merged.

    Args:
        images: how many, by class.
    """
    groups: dict[str, list[str]] = {}
    for name in images:
        groups.setdefault(plain_name(name), []).append(name)
    alike = [names for names in groups.values() if len(names) > 1]
    if not alike:
        return []
    shown = "; ".join(
        " and ".join(f"'{printable(name)}' ({_plural(images[name], 'image')})" for name in names)
        for names in alike[:_MOST]
    )
    more = f"; {len(alike) - _MOST:,} more such groups" if len(alike) > _MOST else ""
    return [
        f"Classes that differ only in case or spaces count as different ones: {shown}{more}. "
        "If they mean the same, give them one name."
    ]


def _like_no_label(images: Mapping[str, int]) -> list[str]:
    found = [name for name in images if name.strip().casefold() in NOT_A_LABEL]
    if "-1" in images and all(name.isdecimal() for name in images if name != "-1"):
        found.append("-1")  # means that in many a program
    return [
        f"'{printable(name)}' counts as a class ({_plural(images[name], 'image')}). If it means "
        "that there is no label, leave the label empty."
        for name in found
    ]


def _labels(manifest: Manifest) -> list[str]:
    notes = []
    trimmed: list[str] = manifest.options.get("trimmed_labels", [])
    if trimmed:
        notes.append(
            "Spaces around labels do not count, so that these are the same as without: "
            f"{enumerate_some(trimmed, _MOST)}."
        )
    unlabelled = manifest.count_states().get(NO_LABEL, 0)
    if unlabelled and manifest.classes:
        notes.append(f"{_plural(unlabelled, 'image')} without a label: not trained on.")
    depth = manifest.options.get("deeper_folder")
    if depth:
        notes.append(
            f"Classes are the first folders; those below, such as '{printable(depth)}', are not "
            "told apart. If they are the classes, move them up into one folder."
        )
    return notes


def _files(options: Mapping[str, Any], *, all_files: bool) -> list[str]:
    closed = closed_folders(options)
    notes = [closed] if closed else []
    lost = lost_members(options)
    notes += [lost] if lost else []
    hidden: list[str] = options.get("hidden_folders", [])
    if hidden:
        notes.append(
            "Folders with images whose names begin with a dot are not looked into: "
            f"{enumerate_some(hidden)}. Rename those that count."
        )
    kinds: dict[str, int] = options.get("ignored_kinds", {})
    passed = {kind: num for kind, num in kinds.items() if all_files or kind in _PICTURES}
    if passed:
        notes.append(
            f"{_plural(sum(passed.values()), 'file')} passed over, by their names no images that "
            f"are read here: {', '.join(_by_kind(passed.items()))}."
        )
    return notes


def lost_members(options: Mapping[str, Any]) -> str | None:
    """A line on images in tars that have no content of their own there; None if there are none.

    Args:
        options: of a manifest.
    """
    lost = options.get("lost_members", 0)
    if not lost:
        return None
    return (
        f"{_plural(lost, 'image')} in tars left out, as links to what is not there or stored as "
        f"sparse files, the first: '{printable(options['first_lost'])}'. Write them whole."
    )


def closed_folders(options: Mapping[str, Any]) -> str | None:
    """A line on folders that there was no right to read; None if there are none.

    Args:
        options: of a manifest.
    """
    closed: list[str] = options.get("closed_folders", [])
    if not closed:
        return None
    return (
        f"Left out, for there is no right to read them: the folders {enumerate_some(closed)}. "
        "Change their rights, or run as their owner."
    )


def _by_kind(kinds: Iterable[tuple[str, int]]) -> list[str]:
    ordered = sorted(kinds, key=lambda pair: (-pair[1], pair[0]))
    shown = [
        f"{'.' + printable(kind)[:20] if kind else 'no ending'} ({num:,})"
        for kind, num in ordered[:_MOST]
    ]
    return [*shown, "..."] if len(ordered) > _MOST else shown


def _plural(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
