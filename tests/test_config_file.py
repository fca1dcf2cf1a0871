"""A mistake in a configuration file is told with the file, the line and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from thresher.cli import main


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"flip: true\nepocs: 3\n", ", line 2: unknown key 'epocs'. Did you mean epochs"),
        (b"val-share: 0.1\n", ", line 1: unknown key 'val-share'. Did you mean val_share"),
        (b"mct:\n  rounds: 2\n  foo: 1\n", ", line 3: unknown key 'mct.foo'"),
        (b"mct: 3\n", ", line 1: 'mct' takes options of its own"),
        (b"# mine\n\nepochs: many\n", ", line 3: epochs takes a whole number, not 'many'"),
        (b"batch_size: big\n", ", line 1: batch_size takes a whole number or auto, not 'big'"),
        (b"mct: {views: x}\n", ", line 1: mct.views takes a whole number, not 'x'"),
        (b"data: [a, b]\n", ", line 1: data takes text, not"),
        (b"epochs: 1\nseed: 2\nepochs: 3\n", " names the key 'epochs' twice, on lines 1 and 3"),
        (b"flip: true\nepochs: [1\n", ", line 3: not valid YAML"),
        (b"flip: true\n\tseed: 1\n", ", line 2: not valid YAML"),
        (b"epochs: 1\n---\nseed: 1\n", ", line 2: not valid YAML"),
        (b"seed: \xff\xfe\n", " is not UTF-8 text"),
        (b"just words\n", " is no YAML file of options"),
        (b"", " is no YAML file of options"),
    ],
)
def test_mistakes_name_the_file_and_the_line(
    tmp_path: Path, content: bytes, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    assert main(["train", "photos", "--config", str(file)]) == 2
    said = capsys.readouterr().err
    assert f"{file}{says}" in said, said
    assert said.count("\n") == 1


def test_files_that_cannot_be_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "photos", "--config", str(tmp_path / "none.yaml")]) == 2
    assert f"there is no file {tmp_path}/none.yaml" in capsys.readouterr().err
    assert main(["train", "photos", f"--config={tmp_path}"]) == 2
    assert f"{tmp_path} is a folder" in capsys.readouterr().err


def test_what_the_command_line_says_counts_over_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("seed: 1\nepochs: 1e1\n")
    assert main(["train", str(tmp_path / "none"), "--config", str(file), "--epochs", "x"]) == 2
    # The file is judged first, whatever the command line puts in its place.
    assert "run.yaml, line 2: epochs takes a whole number" in capsys.readouterr().err
    file.write_text("epochs: 3\n")
    assert main(["train", str(tmp_path / "none"), "--config", str(file)]) == 2
    assert f"There is no file or folder {tmp_path}/none" in capsys.readouterr().err
