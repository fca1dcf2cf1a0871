"""Text to words, the same way for captions and for the phrases looked for in them.

Words are compared after Unicode NFKC and case folding. In scripts that put spaces between words a
word is a run of letters, digits and marks, so that 'cat' is no part of 'category'. In scripts that
do not (Chinese, Japanese, Thai, Lao, Khmer, Burmese) every character with its marks is a word by
itself, so that looking for a sequence of words is looking for a substring. Signs such as emoji are
words by themselves too.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import lru_cache

BREAK = "\x1f"
"""Stands where no phrase may reach across: between folders, or two unspaced characters apart."""

_UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e"  # Thai
    "\u0e81-\u0ece"  # Lao
    "\u1000-\u109f\ua9e0-\ua9fe\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17d3"  # Khmer
    "\u2e80-\u2fd5\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han
    "\U00020000-\U000323af"
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # kana
    "\u3105-\u312f\u31a0-\u31bf"  # Bopomofo
    "\u2600-\u27bf\U0001f000-\U0001faff"  # signs and emoji
)
# Characters that show nothing: soft hyphen, joiners, directions, variants of a sign.
_UNSEEN = re.compile("[\u00ad\u061c\u200c-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
_ASCII_WORD = re.compile(rf"[a-z0-9]+|{BREAK}")
_ASCII_PART = re.compile(rf"[a-z]+|[0-9]+|{BREAK}")


def words_of(text: str, *, apart: bool = False) -> list[str]:
    """The words of a text in order, with ``BREAK`` where unspaced characters stand apart.

    Args:
        text: anything.
        apart: letters and digits are separate words, as file names need ('cat001').
    """
    if text.isascii():  # most captions, at a third of the cost
        return (_ASCII_PART if apart else _ASCII_WORD).findall(text.lower())
    patterns = _patterns()
    text = _UNSEEN.sub("", _fold(text))
    if "\u200b" in text:  # a zero-width space: Thai has them where a line may be broken
        text = patterns.unseen_gap.sub("", text)
    text = patterns.gap.sub(BREAK, text)
    return (patterns.part if apart else patterns.word).findall(text)


def _fold(text: str) -> str:
    """Unicode's toNFKC_Casefold, but for the characters it ignores."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


class _Patterns:
    def __init__(self) -> None:
        marks = _marks()
        single = f"[{_UNSPACED}][{marks}]*"
        letter, digit = f"[^\\W\\d_{_UNSPACED}]", f"(?![{_UNSPACED}])\\d"
        behind, ahead = f"(?<=[{_UNSPACED}{marks}])", f"(?=[{_UNSPACED}])"
        self.gap = re.compile(f"{behind}(?:_|[^\\w{_UNSPACED}{marks}])+{ahead}")
        self.unseen_gap = re.compile(f"{behind}\u200b+{ahead}")
        self.word = re.compile(f"{single}|(?:{letter}|{digit}|(?![{_UNSPACED}])[{marks}])+|{BREAK}")
        self.part = re.compile(
            f"{single}|(?:{letter}|(?![{_UNSPACED}])[{marks}])+|(?:{digit})+|{BREAK}"
        )


@lru_cache(maxsize=1)
def _patterns() -> _Patterns:
    return _Patterns()


def _marks() -> str:
    """All combining marks as ranges of a character class; the ``re`` module has no name for them.

    Without them a Hindi word would fall to pieces at its vowel signs.
    """
    ranges: list[list[int]] = []
    for code in range(0x300, min(0x1F000, sys.maxunicode)):
        if unicodedata.category(chr(code))[0] == "M":
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
