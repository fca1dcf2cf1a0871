"""Finding the phrases of all classes in a text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from thresher.label.classes import Phrase
from thresher.label.words import BREAK, words_of

_MOST_GAPS = 4


@dataclass(frozen=True)
class _Entry:
    words: list[str]
    phrase: int


class Matcher:
    """Looks for all phrases at once; the cost does not grow with their number.

    Phrases are found by their first word in a table. That is as fast as an Aho-Corasick automaton
    here, because most texts hold the first word of no phrase, which one set operation tells.
    """

    def __init__(self, phrases: Sequence[Phrase], *, apart: bool = False) -> None:
        """``apart``: letters and digits are separate words, for file names."""
        self.phrases = tuple(phrases)
        self._apart = apart
        self._by_first: dict[str, list[_Entry]] = {}
        for index, phrase in enumerate(phrases):
            for words in _spellings(words_of(phrase.text, apart=apart)):
                self._by_first.setdefault(words[0], []).append(_Entry(words, index))
        for entries in self._by_first.values():
            entries.sort(key=lambda entry: -len(entry.words))
        self._firsts = frozenset(self._by_first)

    def find(self, text: str) -> tuple[int, ...]:
        """Indices of the phrases found, at most one per class, in the order of the text.

        A match that lies inside a longer one does not count: 'dog' in 'hot dog'.
        """
        words = words_of(text, apart=self._apart)
        if self._firsts.isdisjoint(words):
            return ()
        found: dict[str, int] = {}
        reached = 0
        for start, word in enumerate(words):
            for entry in self._by_first.get(word, ()):
                end = start + len(entry.words)
                if words[start:end] == entry.words:  # the longest from here, they come first
                    if end > reached:
                        reached = end
                        found.setdefault(self.phrases[entry.phrase].class_name, entry.phrase)
                    break
        return tuple(found.values())


def _spellings(words: list[str]) -> list[list[str]]:
    """A phrase's words with and without the gaps that were written between unspaced characters.

    'ゴールデン・レトリバー' is also written without the dot, and with a space.
    """
    gaps = [place for place, word in enumerate(words) if word == BREAK]
    if len(gaps) > _MOST_GAPS:  # all or none: 2 ** gaps spellings would be too many
        return [words, [word for word in words if word != BREAK]]
    return [
        [word for place, word in enumerate(words) if place not in dropped]
        for count in range(len(gaps) + 1)
        for dropped in itertools.combinations(gaps, count)
    ]
