"""The classes file, good and bad."""

from __future__ import annotations

from pathlib import Path

import pytest

from thresher.errors import UserError
from thresher.label.classes import Phrase, load_classes


def load(tmp_path: Path, text: str | bytes) -> tuple[Phrase, ...]:
    path = tmp_path / "classes.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_classes(path)


def test_everything_is_text(tmp_path: Path) -> None:
    phrases = load(tmp_path, "no: [yes, 007, 1.0, 狗]\n12: ['hot dog', dog]\n")
    assert [(p.class_name, p.text) for p in phrases] == [
        *(("no", text) for text in ("yes", "007", "1.0", "狗")),
        *(("12", text) for text in ("hot dog", "dog")),
    ]


def test_the_same_phrase_may_repeat_within_a_class(tmp_path: Path) -> None:
    assert len(load(tmp_path, "dog: [dog, Dog]\ncat: [cat]")) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[dog, cat]", "not a mapping"),
        ("", "not a mapping"),
        ("dog: [dog]\ncat: []", "list of class 'cat' is empty"),
        ("dog: [dog]\ncat:", "class 'cat' has no list"),
        ("dog: [dog]\ncat: cat, kitten", "class 'cat' has no list"),
        ("dog: [dog]\ncat: ['']", "an empty phrase"),
        ("dog: [dog]\ncat: ['  ']", "an empty phrase"),
        ("dog: [dog]\ncat: ['!?']", "no letter"),
        ("dog: [dog]\ncat: [[cat]]", "not a word"),
        ("dog: [dog]\ndog: [puppy]", "names the class 'dog' twice"),
        ("dog: [dog, Ice-Cream]\ncat: [ice  cream]", "both list 'ice  cream'"),
        ("dog: [ゴールデン・レトリバー]\ncat: [ゴールデンレトリバー]", "both list"),
        ("dog: [dog]", "only one class"),
        ("dog: [dog]\n' ': [cat]", "without a name"),
        ("dog: [dog", "not valid YAML"),
        ("dog: *x", "not valid YAML"),
        ("? [a, b]\n: [c]\ndog: [dog]", "YAML"),
        (b"dog: [\xff\xfe]", "not UTF-8"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load(tmp_path, text)


def test_no_such_file_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no file"):
        load_classes(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="is a folder"):
        load_classes(tmp_path)
