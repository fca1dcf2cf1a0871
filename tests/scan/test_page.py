"""The page in a real browser: it shows, it fits, it runs nothing and asks for nothing."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from thresher.scan.run import scan

from .conftest import HOSTILE, jpeg, write_tree

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
PROBE = """<!doctype html><meta charset="utf-8"><body><pre id="found"></pre><script>
const found = [];
for (const width of WIDTHS) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.onload = () => {
    const view = frame.contentWindow, doc = frame.contentDocument;
    found.push({
      width,
      scroll: doc.documentElement.scrollWidth,
      images: doc.images.length,
      broken: [...doc.images].filter((image) => !(image.naturalWidth > 0)).length,
      scripts: doc.scripts.length,
      fetched: view.performance.getEntriesByType("resource").map((entry) => entry.name)
        .filter((name) => !name.startsWith("data:")),
      dead: [...doc.querySelectorAll("a")].filter(
        (a) => !doc.getElementById(a.hash.slice(1))).length,
    });
    if (found.length === WIDTHS.length)
      document.getElementById("found").textContent = JSON.stringify(found);
  };
  frame.srcdoc = PAGE;
  document.body.append(frame);
}
</script>"""


def measure(folder: Path, page: str, widths: list[int]) -> list[dict[str, Any]]:
    """Load the page in frames of these widths and return what the script beside it saw."""
    literal = json.dumps(page).replace("</", "<\\/").replace("<!--", "<\\u0021--")
    probe = folder / "probe.html"
    text = PROBE.replace("WIDTHS", json.dumps(widths))
    probe.write_text(text.replace("PAGE", literal, 1), encoding="utf-8")
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=20000", "--dump-dom", probe.as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    match = re.search(r'<pre id="found">(.+?)</pre>', dom, re.DOTALL)
    assert match, dom[-2000:]
    seen: list[dict[str, Any]] = json.loads(html.unescape(match.group(1)))
    return seen


@pytest.fixture
def page(collection: Path, tmp_path: Path) -> str:
    long_names = {f"{'W' * 90}/{i}-{'x' * 120}.jpg": jpeg(1) for i in range(30)}
    write_tree(collection, long_names | {"cat/weights.pkl": b"\x80\x04"})
    test = write_tree(tmp_path / "test", {"cat/1.jpg": jpeg(2), "dog/2.jpg": jpeg(3)})
    return scan(str(collection), tmp_path / "out", against=str(test)).page.read_text("utf-8")


def test_names_are_escaped_and_every_finding_is_there(page: str) -> None:
    assert HOSTILE not in page
    assert html.escape(HOSTILE) in page
    assert POLICY.search(page)
    for kind in ("exact", "near", "exact_labels", "near_labels", "exact_leaks"):
        assert f'id="{kind}"' in page
    for kind in ("blank", "tiny", "long", "animated", "unreadable", "refused"):
        assert f'id="{kind}"' in page
    assert "cat/weights.pkl" in page
    assert "and 29 more" in page  # the copies beyond those that are shown


@needs_browser
def test_it_fits_shows_all_images_and_runs_nothing(page: str, tmp_path: Path) -> None:
    bare, removed = POLICY.subn("", page)  # the page itself must be harmless too
    assert removed == 1
    num_images = page.count("<img")
    assert num_images > 15
    for seen in measure(tmp_path, bare, [380, 768, 1280]):
        assert seen["scroll"] <= seen["width"], seen
        assert (seen["images"], seen["broken"]) == (num_images, 0)
        assert (seen["scripts"], seen["fetched"], seen["dead"]) == (0, [], 0)


@needs_browser
def test_nothing_found_is_a_page_too(tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data", {f"{i}.jpg": jpeg(i) for i in range(3)})
    result = scan(str(data), tmp_path / "out")
    page = result.page.read_text("utf-8")
    assert "all can be read, and none is there twice" in page
    (seen,) = measure(tmp_path, POLICY.sub("", page), [400])
    assert seen["scroll"] <= 400
