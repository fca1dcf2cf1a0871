"""The report in a real browser: it shows, it fits, it runs nothing and asks for nothing."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from thresher.audit import audit

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
# The page is shown in frames of the widths of a phone, a tablet and a desk; a script beside it
# measures. The frame's content comes from srcdoc, since pages from files may not look into
# each other.
PROBE = """<!doctype html><meta charset="utf-8"><body><pre id="found"></pre><script>
const widths = %s, page = %s;
let alerts = 0, waiting = widths.length;
const found = [];
for (const width of widths) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.onload = () => {
    const view = frame.contentWindow, doc = frame.contentDocument;
    const images = [...doc.images];
    found.push({
      width,
      inner: view.innerWidth,
      scroll: doc.documentElement.scrollWidth,
      images: images.length,
      broken: images.filter((image) => !(image.naturalWidth > 0)).length,
      scripts: doc.scripts.length,
      alerts: view.alerted || 0,
      fetched: view.performance.getEntriesByType("resource").map((entry) => entry.name)
        .filter((name) => !name.startsWith("data:")),
      pixelated: images.filter(
        (image) => view.getComputedStyle(image).imageRendering === "pixelated").length,
      cut: [...doc.querySelectorAll("svg text")].filter((text) => {
        const inner = text.getBoundingClientRect();
        const outer = text.ownerSVGElement.getBoundingClientRect();
        return inner.left < outer.left - 1 || inner.right > outer.right + 1 ||
          inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1;
      }).map((text) => text.textContent),
      small: [...doc.querySelectorAll("svg text")].filter(
        (t) => t.getBoundingClientRect().width && t.getScreenCTM().a * 11 < 8.5 &&
               !t.getAttribute("transform")).length,
    });
    if (--waiting === 0) document.getElementById("found").textContent = JSON.stringify(found);
  };
  frame.srcdoc = "<script>window.alerted=0;window.alert=()=>{window.alerted++}<\\/script>" + page;
  document.body.append(frame);
}
</script>"""


def chromium(folder: Path, *arguments: str) -> str:
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}",
        *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def measure(folder: Path, page: str, widths: list[int]) -> list[dict[str, Any]]:
    """Load the page in frames of these widths and return what the script beside it saw."""
    literal = json.dumps(page).replace("</", "<\\/").replace("<!--", "<\\u0021--")
    probe = folder / "probe.html"
    probe.write_text(PROBE % (json.dumps(widths), literal), encoding="utf-8")
    dom = chromium(folder, "--virtual-time-budget=20000", "--dump-dom", probe.as_uri())
    match = re.search(r'<pre id="found">(.+?)</pre>', dom, re.DOTALL)
    assert match, dom[-2000:]
    found: list[dict[str, Any]] = json.loads(html.unescape(match.group(1)))
    return found


@pytest.fixture
def page(nasty_run, read) -> str:
    return audit(nasty_run, read=read).report.read_text(encoding="utf-8")


def test_fits_shows_all_images_and_runs_nothing(page, tmp_path):
    # Without its policy, which alone would stop scripts and requests: the page itself must be
    # harmless too.
    bare, removed = POLICY.subn("", page)
    assert removed == 1
    num_images = page.count("<img")
    assert num_images > 10
    for seen in measure(tmp_path, bare, [380, 400, 768, 1280]):
        assert seen["inner"] == seen["width"]
        assert seen["scroll"] <= seen["width"], seen
        assert (seen["images"], seen["broken"]) == (num_images, 0)
        assert seen["pixelated"] == page.count('class="tiny"')
        assert seen["scripts"] == 1  # the probe's own
        assert seen["alerts"] == 0
        assert seen["fetched"] == []
        assert (seen["small"], seen["cut"]) == (0, [])


def test_the_probe_sees_what_it_looks_for(tmp_path):
    bad = (
        "<!doctype html><p style='width:2000px'>wide</p><img src='data:image/png;base64,AAAA'>"
        "<script>alert(1)</script><img src='file:///nowhere.png'>"
    )
    (seen,) = measure(tmp_path, bad, [400])
    assert seen["scroll"] > 400
    assert seen["broken"] == 2
    assert seen["alerts"] == 1


def test_the_file_itself_opens(nasty_run, read, tmp_path):
    report = audit(nasty_run, read=read).report
    shot = tmp_path / "shot.png"
    chromium(tmp_path, "--window-size=1280,1000", f"--screenshot={shot}", report.as_uri())
    assert shot.stat().st_size > 20_000
    dom = chromium(tmp_path, "--dump-dom", report.as_uri())
    assert "<script" not in dom
    assert dom.count("<img") == report.read_text(encoding="utf-8").count("<img")


@pytest.mark.parametrize("num_classes", [2, 25, 60])
def test_long_class_names_do_not_widen_the_page(make_run, tmp_path, num_classes):
    names = [f"{c:02d}" + "Wm" * (40 if c % 2 else 3) for c in range(num_classes)]
    given = [c for c in range(num_classes) for _ in range(3)]
    path = make_run(
        classes=names,
        given=given,
        suggested=[(c + 1) % num_classes for c in given],
        clean=[0.1, 0.4, 0.9] * num_classes,
        keys=[f"{'deep/' * 30}{i}{'x' * 90}.jpg" for i in range(len(given))],
        status=["trusted", "trusted", "unreadable: " + "broken" * 30] * num_classes,
        config={"data": "/data/" + "y" * 200},
    )
    page = POLICY.sub("", audit(path).report.read_text(encoding="utf-8"))
    for seen in measure(tmp_path, page, [380, 1280]):
        assert seen["scroll"] <= seen["width"], seen
        assert seen["cut"] == []
