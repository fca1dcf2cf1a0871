"""The file that says which words and phrases stand for which class."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from thresher.errors import UserError
from thresher.label.words import BREAK, words_of
from thresher.sources.request import printable

_EXAMPLE = "Write a list of words per class, as in 'dog: [dog, dogs, 狗]'."


@dataclass(frozen=True)
class Phrase:
    """A word or phrase of the file, as it was written."""

    text: str
    class_name: str


def load_classes(path: Path) -> tuple[Phrase, ...]:
    """Read ``classes.yaml``: a mapping from class names to lists of words and phrases.

    Every value is taken as text: a class may be called ``no`` or ``007``.

    Raises:
        UserError: it cannot be read, is no such mapping, names a class or phrase twice, has fewer
            than two classes, or an empty list or phrase.
    """
    name = printable(str(path))
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except FileNotFoundError:
        raise UserError(f"There is no file {name}. {_EXAMPLE}") from None
    except IsADirectoryError:
        raise UserError(f"{name} is a folder; --classes takes a YAML file.") from None
    except PermissionError:
        raise UserError(f"No right to read {name}. Change its rights.") from None
    except UnicodeDecodeError:
        raise UserError(f"{name} is not UTF-8 text. Save it as UTF-8.") from None
    except _RepeatedKeyError as error:
        raise UserError(f"{name} names the class '{printable(str(error))}' twice.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        detail = " ".join(str(error).split())[:200]
        raise UserError(f"{name} is not valid YAML: {printable(detail)}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{name} is not a mapping from classes to lists. {_EXAMPLE}")
    phrases = tuple(
        phrase
        for class_name, listed in content.items()
        for phrase in _phrases_of(name, class_name, listed)
    )
    if len(content) < 2:
        raise UserError(f"{name} names only one class. A classifier needs at least two.")
    _refuse_shared(name, phrases)
    return phrases


def _phrases_of(file: str, class_name: Any, listed: Any) -> list[Phrase]:
    if not isinstance(class_name, str) or not class_name.strip():
        raise UserError(f"{file} has a class without a name.")
    shown = printable(class_name)
    if not isinstance(listed, list):
        raise UserError(f"{file}: class '{shown}' has no list of words. {_EXAMPLE}")
    if not listed:
        raise UserError(f"{file}: the list of class '{shown}' is empty. {_EXAMPLE}")
    phrases = []
    for text in listed:
        if not isinstance(text, str):
            raise UserError(f"{file}: class '{shown}' lists something that is not a word.")
        if not set(words_of(text)) - {BREAK}:
            what = (
                f"'{printable(text)}', which has no letter" if text.strip() else "an empty phrase"
            )
            raise UserError(f"{file}: class '{shown}' lists {what}. Remove it.")
        phrases.append(Phrase(text.strip(), class_name.strip()))
    return phrases


def _refuse_shared(file: str, phrases: tuple[Phrase, ...]) -> None:
    """A phrase of two classes could only ever be ambiguous."""
    owner: dict[tuple[str, ...], Phrase] = {}
    for phrase in phrases:
        words = tuple(word for word in words_of(phrase.text) if word != BREAK)
        other = owner.setdefault(words, phrase)
        if other.class_name != phrase.class_name:
            raise UserError(
                f"{file}: classes '{printable(other.class_name)}' and "
                f"'{printable(phrase.class_name)}' both list '{printable(phrase.text)}'. "
                "Leave it to one of them."
            )


class _RepeatedKeyError(Exception):
    """The same key twice in one mapping; the message is the key."""


class _Loader(yaml.BaseLoader):
    """Everything is text, and no key may repeat: YAML would silently take the later."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """See the class."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value).strip()
            if key in seen:
                raise _RepeatedKeyError(key)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
