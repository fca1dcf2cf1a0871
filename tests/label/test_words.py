"""Which text matches which phrase."""

from __future__ import annotations

import pytest

from thresher.label.classes import Phrase
from thresher.label.match import Matcher
from thresher.label.texts import file_name_text
from thresher.label.words import words_of


def find(text: str, *, apart: bool = False, **classes: list[str]) -> list[tuple[str, str]]:
    phrases = [Phrase(text, name) for name, texts in classes.items() for text in texts]
    matcher = Matcher(phrases, apart=apart)
    return [(phrases[i].class_name, phrases[i].text) for i in matcher.find(text)]


@pytest.mark.parametrize(
    ("text", "phrase", "found"),
    [
        ("a cat.", "cat", True),
        ("CAT!", "cat", True),
        ("the cat's tail", "cat", True),
        ("category", "cat", False),
        ("concatenate", "cat", False),
        ("cats", "cat", False),  # plurals are not guessed
        ("cat_01", "cat", True),
        ("cat01", "cat", False),
        ("ice-cream", "ice cream", True),
        ("Ice  \n Cream", "ice-cream", True),
        ("icecream", "ice cream", False),
        ("ice cold cream", "ice cream", False),
        ("Ｃａｆé", "cafe\u0301", True),  # full width; accent apart
        ("STRASSE", "Straße", True),
        ("soft\u00adhyphen", "softhyphen", True),
        ("可爱的小猫", "猫", True),
        ("一只金毛犬在跑", "金毛犬", True),
        ("天气热，狗在睡觉", "热狗", False),  # a comma between: two clauses
        ("T恤", "t恤", True),
        ("ゴールデンレトリバーの子犬", "ゴールデン・レトリバー", True),
        ("ゴールデン レトリバー", "ゴールデン・レトリバー", True),
        ("ｺﾞｰﾙﾃﾞﾝ", "ゴールデン", True),  # half width
        ("ภาพแมวน้อย", "แมว", True),
        ("หมูกรอบ", "หม", False),  # a vowel sign makes another character of it
        ("แม\u200bว", "แมว", True),  # a place where a line may be broken
        ("एक कुत्ता", "कुत्ता", True),
        ("कुत्तागाड़ी", "कुत्ता", False),
        ("강아지 사진", "강아지", True),
        ("my 🐶❤️", "🐶", True),
        ("", "cat", False),
    ],
)
def test_one_phrase(text: str, phrase: str, found: bool) -> None:
    assert find(text, it=[phrase]) == ([("it", phrase)] if found else [])


def test_a_match_inside_a_longer_one_does_not_count() -> None:
    classes = {"dog": ["dog", "狗"], "food": ["hot dog", "热狗"]}
    assert find("a hot dog", **classes) == [("food", "hot dog")]
    assert find("吃热狗", **classes) == [("food", "热狗")]
    assert find("a hot dog for my dog", **classes) == [("food", "hot dog"), ("dog", "dog")]
    assert find("hot cat, dog", **classes) == [("dog", "dog")]


def test_matches_that_only_overlap_both_count() -> None:
    found = find("big hot dog", a=["big hot"], b=["hot dog"])
    assert found == [("a", "big hot"), ("b", "hot dog")]


def test_classes_come_in_the_order_of_the_text_and_once() -> None:
    classes = {"dog": ["dog", "puppy"], "cat": ["cat"]}
    assert find("cat, puppy, dog, cat", **classes) == [("cat", "cat"), ("dog", "puppy")]


def test_file_names_part_letters_from_digits_and_folders_from_each_other() -> None:
    def found(name: str, phrase: str) -> bool:
        return bool(find(file_name_text(name), apart=True, it=[phrase]))

    assert found("cat001.jpg", "cat")
    assert found("photos/hot_dog-3.jpg", "hot dog")
    assert found("hot%20dog.jpg", "hot dog")
    assert found("%E7%8C%AB.jpg", "猫")
    assert found("boeing747.png", "Boeing 747")
    assert found("mp3.png", "mp3")
    assert not found("hot/dog.jpg", "hot dog")
    assert not found("a.jpg", "jpg")


def test_words_are_the_same_for_ascii_and_other_text() -> None:
    text = "Hot-dog & ice_cream, 3D dog's CAT001"
    for apart in (False, True):
        assert words_of(text, apart=apart) == words_of(text + " é", apart=apart)[:-1]
