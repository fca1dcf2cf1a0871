"""Profiles and links on disk, and numbers as typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from thresher.errors import UserError
from thresher.plan.link_file import load_link
from thresher.plan.presets import LINKS
from thresher.plan.profile import Profile
from thresher.plan.words import count, duration, node_counts, size


def test_profile_survives_the_disk(profile: Profile, tmp_path: Path) -> None:
    profile.save(tmp_path / "p.json")
    assert Profile.load(tmp_path / "p.json") == profile


def test_bends_survive_the_disk_and_older_profiles_have_none(
    profile: Profile, tmp_path: Path
) -> None:
    path = tmp_path / "p.json"
    bent = replace(profile.forward, points=((10.0, 0.1), (20.0, 0.3)))
    replace(
        profile, forward=bent, message_seconds=1e-4, beside=((4.0, 1.1),),
        turns=((8.0, 1.2),), exchange_seconds=1e-3,
    ).save(path)  # fmt: skip
    assert Profile.load(path).forward(15) == pytest.approx(0.2)
    loaded = Profile.load(path)
    assert (loaded.beside, loaded.turns) == (((4.0, 1.1),), ((8.0, 1.2),))
    values = json.loads(path.read_text())
    for name in ("forward", "backward", "update", "augment", "ledger"):
        del values[name]["points"]
    for name in ("message_seconds", "crowded_message_seconds", "exchange_seconds", "beside",
                 "turns"):  # fmt: skip
        del values[name]
    path.write_text(json.dumps(values))
    assert Profile.load(path) == profile


BAD: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda v: v.pop("batch"), "the figure 'batch' is missing"),
    (lambda v: v.update(speed=1), "unknown figure 'speed'"),
    (lambda v: v.update(batch=-1), "'batch' is -1; it must be above 0"),
    (lambda v: v.update(decode_rate="fast"), "'decode_rate' must be a number, not 'fast'"),
    (lambda v: v.update(image_bytes=float("nan")), "'image_bytes' must be a number"),
    (lambda v: v.update(networks=3), "must be 1 or 2"),
    (lambda v: v.update(forward=1.0), "'forward' must have an 'intercept' and a 'slope'"),
    (lambda v: v["forward"].update(slope=-1), "'forward.slope' is -1"),
    (lambda v: v.update(ready=[[0.5, 0.5]]), "must end with all bytes"),
    (lambda v: v.update(ready=[[0.5, 0.9], [1, 0.5]]), "must ascend"),
    (lambda v: v.update(ready=[1, 2]), "must be a list of pairs"),
    (lambda v: v["update"].update(points=3), "'update.points' must be a list of pairs"),
    (lambda v: v["update"].update(points=[[2, 1], [2, 1]]), "'update.points' must ascend"),
    (lambda v: v["update"].update(points=[[2, -1]]), "'update.points' is -1"),
    (lambda v: v["update"].update(points=[[0, 1]]), "'update.points' is 0; it must be above 0"),
    (lambda v: v.update(turns=[[8, 1.2], [8, 1.1]]), "'turns' must ascend"),
    (lambda v: v.update(beside=[[8, 0.5]]), "'beside' is 0.5; it must be at least 1"),
    (lambda v: v.update(turns=[[8, 0.5]]), "'turns' is 0.5; it must be at least 1"),
    (lambda v: v.update(message_seconds=-1), "'message_seconds' is -1"),
    (lambda v: v.update(hardware=3), "'hardware' must be text"),
    (lambda v: v.update(decodes_beside=1), "must be true or false"),
]


@pytest.mark.parametrize(("spoil", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_profile_refuses(
    spoil: Callable[[dict[str, Any]], object], reason: str, profile: Profile, tmp_path: Path
) -> None:
    path = tmp_path / "p.json"
    profile.save(path)
    values = json.loads(path.read_text())
    spoil(values)
    path.write_text(json.dumps(values))
    with pytest.raises(UserError) as error:
        Profile.load(path)
    assert reason in str(error.value)
    assert str(path) in str(error.value)


def test_profile_refuses_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no profile"):
        Profile.load(tmp_path / "none.json")
    for text in ("no JSON", "[1]"):
        (tmp_path / "p.json").write_text(text)
        with pytest.raises(UserError, match="JSON"):
            Profile.load(tmp_path / "p.json")


def test_link_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text(
        "levels:\n- {name: node, latency: 1e-6, bandwidth: 50e9}\n"
        "- {name: across, latency: 5e-6, bandwidth: 12.5e9, oversubscription: 2}\n"
    )
    link = load_link(str(path))
    assert link.name == "ours"
    inside, across = link.layout(nodes=4, processes_per_node=8)
    assert (inside.members, across.members) == (8, 4)
    # Eight processes share the node's wire, half of which is there when all send.
    assert across.crowded == pytest.approx(12.5e9 / 2 / 8)
    assert across.alone == 12.5e9
    assert [s.level.name for s in link.layout(4, 1)] == ["across"]
    assert link.layout(1, 1) == ()


def test_supernodes_count_processes() -> None:
    inside, across = LINKS["sunway-taihulight"].layout(1024, 1)
    assert (inside.members, across.members) == (256, 4)
    assert [s.members for s in LINKS["sunway-taihulight"].layout(100, 1)] == [100]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must have 'levels'"),
        ("levels: []", "no level"),
        ("levels: [1]", "list of keys"),
        ("levels: [{name: a, latency: 1}]", "no 'bandwidth'"),
        ("levels: [{name: a, latency: 1, bandwidth: quick}]", "'bandwidth' must be a number"),
        ("levels: [{name: a, latency: 1, bandwidth: 0}]", "bandwidth must be above 0"),
        ("levels: [{name: a, latency: -1, bandwidth: 1}]", "latency must be 0 or more"),
        ("levels: [{name: a, latency: 1, bandwidth: 1, size: x}]", "whole number"),
        ("levels: [{name: a, latency: 1, bandwidth: 1, size: 0}]", "size must be 1 or more"),
        ("levels: [{name: a, latency: 1, bandwidth: 1, speed: 0}]", "unknown key 'speed'"),
        ("levels: [{name: a, latency: 1, bandwidth: 1, oversubscription: 0.5}]", "1 or more"),
        ("{levels: [{name: a, latency: 1, bandwidth: 1}], extra: 1}", "unknown key 'extra'"),
        ("levels: [{", "cannot be read as YAML"),
    ],
)
def test_link_refuses(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "link.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_link(str(path))
    assert reason in str(error.value)


def test_link_by_name() -> None:
    assert load_link("nvlink+hdr").name == "nvlink+hdr"
    assert all(link.source for link in LINKS.values())
    with pytest.raises(UserError, match="Did you mean"):
        load_link("ethernet-25")
    with pytest.raises(UserError, match="no link description"):
        load_link("none.yaml")


def test_machine_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "link.yaml"
    path.write_text("levels: [{name: all, latency: 0, bandwidth: 1, size: 8}]")
    with pytest.raises(UserError, match="16 nodes are too many"):
        load_link(str(path)).layout(16, 1)


def test_numbers_as_typed() -> None:
    assert count("100M", "images") == 1e8
    assert count("1.5k", "images") == 1500
    assert count("1,281,167", "images") == 1_281_167
    assert count("5g", "storage") == 5e9
    for wrong in ("", "M", "-3", "0", "10x", "1..2"):
        with pytest.raises(UserError, match="--images"):
            count(wrong, "images")


def test_node_counts() -> None:
    assert node_counts("1..16") == [1, 2, 4, 8, 16]
    assert node_counts("3..20") == [3, 4, 8, 16, 20]
    assert node_counts("8,1,2") == [1, 2, 8]
    assert node_counts("5") == [5]
    for wrong in ("4..2", "a..b", "0"):
        with pytest.raises(UserError, match="--nodes"):
            node_counts(wrong)
    for wrong in ("1..2..3", "1.5", "", ",", "1,,2", "1..", "1...4"):
        with pytest.raises(UserError, match="a range such as"):
            node_counts(wrong)
    assert node_counts(" 1, 2 ") == [1, 2]


def test_folders_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        Profile.load(tmp_path)
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        load_link(str(tmp_path))


def test_words() -> None:
    shown = [duration(s) for s in (0, 0.0123, 3.14159, 600, 36_000, 864_000)]
    assert shown == ["0 s", "12.3 ms", "3.14 s", "10 min", "10 h", "10 d"]
    assert [size(b) for b in (1e3, 2.5e6, 3e9, 4e12)] == ["1 kB", "2.5 MB", "3 GB", "4 TB"]
