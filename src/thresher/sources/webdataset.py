"""WebDataset tars: images with their labels in ``.cls`` or ``.json`` members of the same sample."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from thresher.errors import UserError
from thresher.sources.damage import Damage, DamagedShard
from thresher.sources.img2dataset import (
    Sidecar,
    failure_options,
    has_sidecars,
    label_text,
    read_sidecar,
)
from thresher.sources.labels import encode_labels, label_states, no_labels
from thresher.sources.local_shard import Shard
from thresher.sources.manifest import Manifest, make_manifest
from thresher.sources.names import extension, is_image_name, is_skipped, to_utf8
from thresher.sources.places import absolute, relative_names, shown
from thresher.sources.request import Request, printable
from thresher.sources.several import for_each
from thresher.sources.shards import open_shard, require_plain_name
from thresher.sources.tar_index import DamagedTar, Member, walk_tar

JSON_FIELDS = ("label", "class", "cls", "label_name", "class_name")
_MOST_JSON = 1 << 24


@dataclass
class _Index:
    """The images of one tar."""

    images: list[Member]
    labels: list[str | None]
    ignored: int
    size: int
    version: str
    lost: list[str] = field(default_factory=list)
    sidecar: Sidecar | None = None


def open_webdataset(request: Request, files: Sequence[str]) -> Manifest:
    """Index tars by their headers; contents other than labels are not read.

    Labels are in ``.cls`` members, in what img2dataset writes beside the tar, or in ``.json``.

    Raises:
        UserError: a tar is damaged (without ``allow_damaged``), holds a name that leads out of
            it, or no tar holds images or labels.
    """
    damage = Damage(request)
    sidecars = has_sidecars(files)
    indexes = for_each(files, lambda file: _index(file, request, damage, sidecars=sidecars))
    sizes = [len(index.images) for index in indexes]
    if not any(sizes):
        damage.require_some_good(len(files))
        lost = [name for index in indexes for name in index.lost]
        raise UserError(
            f"{request.data} holds no images: no tar member has an image extension "
            "(.jpg, .png, .webp and so on)."
            if not lost
            else f"{request.data} holds no images but such as '{printable(lost[0])}', which is a "
            "link to nothing or stored as a sparse file. Write the tar without --sparse."
        )
    if request.labelled:
        given = [label for index in indexes for label in index.labels]
        if not any(label is not None for label in given):
            field = request.label_column or "' or '".join(JSON_FIELDS[:2])
            raise UserError(
                f"No image in {request.data} has a label: neither a .cls member nor a "
                f".json member or column beside the tar with the field '{field}' goes with it. "
                "Choose a field with --label-column, or a member by its ending, as in "
                "--label-column txt."
            )
        labels, classes = encode_labels(pa.chunked_array([given], pa.string()), request)
    else:
        labels, classes = no_labels(sum(sizes), request)
    members = [image for index in indexes for image in index.images]
    return make_manifest(
        kind="tar",
        shards=[absolute(file) for file in files],
        classes=classes,
        source=request.data,
        keys=_keys(files, indexes),
        labels=labels,
        shard=np.repeat(np.arange(len(files), dtype=np.int32), sizes),
        offsets=np.array([member.offset for member in members], dtype=np.int64),
        lengths=np.array([member.length for member in members], dtype=np.int64),
        states=label_states(labels, request),
        options={
            "ignored_members": sum(index.ignored for index in indexes),
            "lost_members": sum(len(index.lost) for index in indexes),
            "first_lost": next((index.lost[0] for index in indexes if index.lost), ""),
            "shard_sizes": [index.size for index in indexes],
            "shard_versions": [index.version for index in indexes],
            "damaged_shards": damage.shards,
            **_failures(indexes),
        },
    )


def _failures(indexes: Sequence[_Index]) -> dict[str, Any]:
    described = [index for index in indexes if index.sidecar is not None]
    if not described:
        return {}
    return failure_options(
        [index.sidecar for index in described if index.sidecar is not None],
        sum(len(index.images) for index in described),
    )


def _index(file: str, request: Request, damage: Damage, *, sidecars: bool) -> _Index:
    """Index one tar; one that cannot be read at all has no images."""
    sidecar, index = None, _Index([], [], 0, 0, "")
    lost: Exception | None = None
    if sidecars:
        columns = JSON_FIELDS if request.label_column is None else (request.label_column,)
        try:
            sidecar = read_sidecar(file, columns)
        except (DamagedShard, OSError, pa.ArrowException) as error:
            lost = error
    with damage.tolerate(file):
        shard = open_shard(file)
        try:
            index = _walk(file, shard, request, damage, sidecar)
        finally:
            shard.close()
    if lost is not None and _is_needed(index, request):
        with damage.tolerate(file):
            raise lost
    return index


def _is_needed(index: _Index, request: Request) -> bool:
    """Whether labels are to come from what lies beside a tar; members of the tar may tell all."""
    return request.label_column is not None or (request.labelled and None in index.labels)


def _walk(
    file: str, shard: Shard, request: Request, damage: Damage, sidecar: Sidecar | None
) -> _Index:
    # By name, so that of a member that was written twice the later counts, as in any tar.
    members: dict[str, Member] = {}
    ignored = 0
    last = ""
    lost: list[str] = []
    try:
        for member in walk_tar(shard, lost):
            name = last = member.name.removeprefix("./")
            require_plain_name(name, shown(file))
            ignored += name in members
            members[name] = member._replace(name=name)
    except DamagedTar as error:
        with damage.tolerate(file):
            raise DamagedShard(_describe(file, str(error), last)) from None
    images, notes = _sort_out(members)
    ignored += len(members) - len(images) - sum(map(len, notes.values()))
    kept = [image for image in images if not _belongs_to_another(image, images, notes)]
    loose = _loose(images, notes)
    labels = [
        _label(shard, image, _members_of(image, members, notes, loose, request), sidecar, request)
        if request.labelled
        else None
        for image in kept
    ]
    ignored += len(images) - len(kept)
    return _Index(
        [images[stem] for stem in kept],
        labels,
        ignored,
        shard.size,
        shard.version,
        [name for name in lost if is_image_name(name)],
        sidecar,
    )


def _describe(file: str, reason: str, last: str) -> str:
    good = f"The last good member is '{printable(last)}'" if last else "It has no good member"
    return f"{shown(file)} is damaged: {reason}. {good}"


def _sort_out(
    members: dict[str, Member],
) -> tuple[dict[str, Member], dict[str, dict[str, Member]]]:
    """Images by name without extension, and label members likewise and by extension."""
    images: dict[str, Member] = {}
    notes: dict[str, dict[str, Member]] = {}
    for name, member in members.items():
        if is_skipped(name.rpartition("/")[2]):
            continue
        kind = extension(name)
        stem = name[: -len(kind) - 1]
        if kind in ("cls", "json"):
            notes.setdefault(stem, {})[kind] = member
        elif is_image_name(name):
            images.setdefault(stem, member)
    return images, notes


def _sample_of(stem: str) -> str:
    """WebDataset's key: the name up to the first dot behind the last slash."""
    folder, slash, base = stem.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _belongs_to_another(
    stem: str, images: dict[str, Member], notes: dict[str, dict[str, Member]]
) -> bool:
    """Whether an image such as ``a.mask.png`` only accompanies ``a.jpg``."""
    sample = _sample_of(stem)
    return stem != sample and stem not in notes and sample in images


def _loose(
    images: dict[str, Member], notes: dict[str, dict[str, Member]]
) -> dict[str, dict[str, Member]]:
    """By sample, the one label member that is named otherwise than its image: ``a.output.cls``.

    Where a sample has several, none is taken: the user has to choose.
    """
    by_sample: dict[str, list[str]] = {}
    for stem in notes:
        if stem not in images and "cls" in notes[stem]:
            by_sample.setdefault(_sample_of(stem), []).append(stem)
    return {sample: notes[stems[0]] for sample, stems in by_sample.items() if len(stems) == 1}


def _members_of(
    stem: str,
    members: dict[str, Member],
    notes: dict[str, dict[str, Member]],
    loose: dict[str, dict[str, Member]],
    request: Request,
) -> dict[str, Member]:
    """The label members that go with an image; ``cls`` alone where the user named one."""
    sample = _sample_of(stem)
    if request.label_column not in (None, "json"):
        for name in (f"{stem}.{request.label_column}", f"{sample}.{request.label_column}"):
            if name in members:
                return {"cls": members[name]}
    found = notes.get(stem) or notes.get(sample) or loose.get(sample) or {}
    if request.label_column is not None:
        return {kind: member for kind, member in found.items() if kind != "cls"}
    return found


def _label(
    shard: Shard, stem: str, notes: dict[str, Member], sidecar: Sidecar | None, request: Request
) -> str | None:
    """The label as text, from ``.cls`` unless the user chose a field or column."""
    if "cls" in notes:
        text = shard.read_at(notes["cls"].offset, min(notes["cls"].length, 4096))
        # What is not text must not make two labels one.
        return text.decode("utf-8", "backslashreplace").strip().removeprefix("\ufeff") or None
    if sidecar is not None and sidecar.labels is not None:
        # Fields of .json say the same, at the cost of reading each.
        return sidecar.labels.get(stem.rpartition("/")[2])
    if "json" not in notes or notes["json"].length > _MOST_JSON:
        return None
    try:
        record: Any = json.loads(shard.read_at(notes["json"].offset, notes["json"].length))
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    fields = JSON_FIELDS if request.label_column is None else (request.label_column,)
    return label_text(
        next((record[field] for field in fields if record.get(field) is not None), None)
    )


def _keys(files: Sequence[str], indexes: Sequence[_Index]) -> pa.Array:
    """Member names, behind the name of their tar where there are several."""
    if len(files) == 1:
        return to_utf8([image.name for image in indexes[0].images])[0]
    return to_utf8(
        [
            f"{prefix}/{image.name}"
            for prefix, index in zip(relative_names(files), indexes, strict=True)
            for image in index.images
        ]
    )[0]  # bytes are found by offset, so that a name that is not UTF-8 does no harm
