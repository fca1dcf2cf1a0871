"""The small parts of the report: words, ticks, shades and thumbnails."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from thresher.audit import words
from thresher.audit.charts import line_chart, nice_ticks
from thresher.audit.heatmap import coarse_map, numbered_map, shade
from thresher.audit.thumbnails import shrink, thumbnail


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.4, "0"), (7.6, "8"), (38.4, "38"), (793.4, "790"), (2041.0, "2,000"), (12_345.0, "12,000")],
)
def test_an_estimate_does_not_look_exact(number, text):
    assert words.about(number) == text


def test_numbers_in_words():
    assert words.percent(0.394) == "39 %"
    assert words.percent(0.042) == "4.2 %"
    assert words.percent(0.0999) == "10 %"
    assert words.percent(0.0) == "0 %"
    assert words.percent(0.0001) == "<0.1 %"
    assert words.percent(float("nan")) == "–"
    assert words.probability(0.999) == ">0.99"
    assert words.probability(0.001) == "<0.01"
    assert words.probability(1.0) == "1.00"
    assert words.duration(72) == "1 min 12 s"
    assert words.duration(7300) == "2 h 1 min"
    assert words.middle("abcdefghij", 5) == "ab…ij"
    assert words.middle("short") == "short"
    assert words.plural(1, "label") == "1 label"


@pytest.mark.parametrize(
    ("low", "high", "ceiling", "ticks"),
    [
        (0.0, 2.52, None, [0, 1, 2, 3]),
        (0.43, 0.87, 1.0, [0.4, 0.6, 0.8, 1.0]),
        (0.0, 0.96, 1.0, [0, 0.25, 0.5, 0.75, 1.0]),
        (0.7, 0.7, 1.0, [0.6, 0.65, 0.7, 0.75, 0.8]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(low, high, ceiling, ticks):
    found = nice_ticks(low, high, ceiling=ceiling)
    assert found[0] <= low
    assert found[-1] >= high
    if low != high:
        assert found == pytest.approx(ticks)


@pytest.mark.parametrize("epochs", [1, 2, 7, 60, 301, 5000])
def test_charts_of_any_length_stay_inside_and_bounded(epochs):
    numbers = list(range(1, epochs + 1))
    values = [float(np.exp(-n / 10)) for n in numbers]
    chart = line_chart("Loss", "", numbers, [("", values)], lambda v: f"{v:.2f}", floor=0.0)
    assert chart is not None
    assert 1 <= len(chart.x_ticks) <= 8
    assert len(chart.lines[0].points) <= 200
    for point in chart.lines[0].points:
        assert chart.left <= point.x <= chart.right
        assert chart.top <= point.y <= chart.bottom
    assert f"in epoch {epochs}" in chart.summary


def test_a_chart_without_values_is_left_out_and_gaps_are_bridged():
    assert line_chart("A", "", [1, 2], [("", [None, float("nan")])], str) is None
    chart = line_chart("A", "", [1, 2, 3], [("", [0.5, None, 1.0])], str)
    assert chart is not None
    assert len(chart.lines[0].points) == 2


def test_shades():
    assert shade(0.005, False) == "wrong-0"
    assert shade(0.01, False) == "wrong-1"
    assert shade(0.3, False) == "wrong-5"
    assert shade(0.4, True) == "right-0"
    assert shade(0.96, True) == "right-4"
    assert shade(float("nan"), True) == "none"


def test_maps():
    matrix = np.array([[0.8, 0.2, 0.0], [0.004, 0.996, 0.0], [np.nan, np.nan, np.nan]])
    made = numbered_map(matrix, ("a", "b", "c"))
    assert [cell.text for cell in made.cells] == ["80", "20", "", "", "100", "", "", "", ""]
    assert made.cells[1].title == "true a, given b: 20 %"
    coarse = dict(coarse_map(matrix).layers)
    assert coarse == {
        "right-2": "M0 0h1v1h-1z",
        "wrong-4": "M1 0h1v1h-1z",
        "right-4": "M1 1h1v1h-1z",
    }


def encode(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format_, **options)
    return buffer.getvalue()


def decode(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.mark.parametrize(
    ("mode", "format_"),
    [("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "GIF"), ("RGBA", "WEBP"), ("I;16", "PNG"),
     ("CMYK", "JPEG"), ("F", "TIFF")],
)  # fmt: skip
@pytest.mark.parametrize("size", [(20, 28), (300, 150)])
def test_every_kind_of_image_becomes_a_small_one(mode, format_, size):
    small = shrink(encode(Image.new(mode, size), format_))
    picture = decode(small.uri)
    assert max(picture.size) <= 128
    assert small.tiny == (size == (20, 28))
    assert picture.size == (20, 28) if small.tiny else (128, 64)


def test_tiny_pictures_lose_nothing_and_16_bit_is_stretched():
    pixels = np.random.default_rng(0).integers(0, 255, (28, 28, 3), dtype=np.uint8)
    small = shrink(encode(Image.fromarray(pixels), "PNG"))
    assert (np.asarray(decode(small.uri)) == pixels).all()
    deep = Image.fromarray(np.linspace(1000, 60000, 784).reshape(28, 28).astype(np.uint16))
    values = np.asarray(decode(shrink(encode(deep, "PNG")).uri))
    assert (values.min(), values.max()) == (0, 255)


def test_see_through_parts_are_white_and_rotation_is_undone():
    assert decode(shrink(encode(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "PNG")).uri).getpixel(
        (0, 0)
    ) == (255, 255, 255)
    exif = Image.Exif()
    exif[0x0112] = 6
    small = shrink(encode(Image.new("RGB", (40, 20)), "JPEG", exif=exif))
    assert (small.width, small.height) == (20, 40)


def test_what_cannot_be_shown_says_why():
    def gone(index: int) -> bytes:
        raise FileNotFoundError("no such file")

    assert thumbnail(0, gone).reason == "not found: no such file"
    assert thumbnail(0, lambda i: b"text").reason == "not readable: no known image format"
    assert thumbnail(0, None).reason == "images were not at hand"
    whole = encode(Image.effect_noise((200, 200), 50), "PNG")
    assert thumbnail(0, lambda i: whole[: len(whole) // 2]).reason.startswith("not readable: ")
