"""The audit as a whole: files, numbers, escaping and size."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from thresher.audit import audit
from thresher.audit.gallery import sections
from thresher.audit.load import load_run
from thresher.audit.suspects import rank_rows, rows_per_class
from thresher.errors import UserError


def test_audit_writes_its_files_and_returns_the_numbers(nasty_run, read):
    truth = load_run(nasty_run).ledger.suggested
    result = audit(nasty_run, read=read, truth=truth)
    ledger = load_run(nasty_run).ledger
    clean = ledger.clean_probability[ledger.scored]
    assert result.num_labels == 118
    assert result.num_unreadable == 2
    assert result.num_suspects == int((clean < 0.5).sum())
    assert result.estimated_wrong == pytest.approx(float((1 - clean).sum()), rel=1e-5)
    assert result.estimated_share == pytest.approx(result.estimated_wrong / 118)
    assert result.scores is not None
    assert result.scores.auroc == 1.0
    assert pq.read_table(result.suspects_parquet).num_rows == result.num_suspects
    assert sorted(p.name for p in nasty_run.iterdir()) == [
        "config.yaml", "ledger.parquet", "metrics.jsonl",
        "report.html", "suspects.csv", "suspects.parquet",
    ]  # fmt: skip


def test_report_says_what_it_must(nasty_run, read):
    result = audit(nasty_run, read=read)
    page = result.report.read_text(encoding="utf-8")
    assert "Of 118 training labels Thresher does not believe about" in page
    assert "measured against noisy held-out labels" in page
    assert "90.0 %" in page  # the accuracy of epoch 4, the last
    assert "mutual calibration (mct)" in page
    assert "truncated file" in page
    assert "No picture: not found: the file is &lt;gone&gt;" in page
    assert "no known image format" in page
    assert "Against the true labels" not in page
    assert "network 2" in page


def test_everything_from_outside_is_escaped(nasty_run, read):
    page = audit(nasty_run, read=read).report.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<b>not</b>" not in page
    assert "square &#34;big&#34; &amp; &#39;small&#39;" in page
    assert "三角形" in page


def test_nothing_is_fetched(nasty_run, read):
    page = audit(nasty_run, read=read).report.read_text(encoding="utf-8")
    assert all(uri.startswith("data:image/") for uri in re.findall(r'src="([^"]*)"', page))
    assert all(link.startswith("#class-") for link in re.findall(r'href="([^"]*)"', page))
    assert not re.search(r"https?://|@import|url\(|<link|<iframe", page)
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_a_report_without_images_and_without_metrics(nasty_run):
    (nasty_run / "metrics.jsonl").unlink()
    page = audit(nasty_run).report.read_text(encoding="utf-8")
    assert "No picture: images were not at hand" in page
    assert "no record of its epochs" in page


def test_a_clean_run(make_run):
    path = make_run(classes=["a", "b"], given=[0, 1], suggested=[0, 1], clean=[1.0, 1.0])
    result = audit(path, truth=np.array([0, 1]))
    page = result.report.read_text(encoding="utf-8")
    assert "Thresher believes all 2 training labels." in page
    assert "nothing to show" in page
    assert result.num_suspects == 0


def test_the_last_accuracy_is_shown_even_if_it_is_not_the_best_or_of_the_last_epoch(make_run):
    path = make_run(classes=["a", "b"], given=[0, 1], suggested=[0, 1], clean=[1.0, 0.2], epochs=5)
    page = audit(path).report.read_text(encoding="utf-8")
    assert "Accuracy after epoch 4, the last one measured" in page


def test_a_bad_truth_writes_nothing(nasty_run, read):
    before = sorted(nasty_run.iterdir())
    with pytest.raises(UserError):
        audit(nasty_run, read=read, truth=np.array([0]))
    assert sorted(nasty_run.iterdir()) == before


def test_a_negative_number_of_images(nasty_run):
    with pytest.raises(UserError, match="must be 0 or more"):
        audit(nasty_run, per_class=-1)


def many_classes(make_run, num_classes: int, per_class: int):
    rng = np.random.default_rng(1)
    num = num_classes * per_class
    given = np.arange(num) % num_classes
    return make_run(
        classes=[f"class number {c:05d}" for c in range(num_classes)],
        given=given.tolist(),
        suggested=((given + 1) % num_classes).tolist(),
        clean=rng.uniform(0, 0.5, num).tolist(),
    )


@pytest.mark.parametrize(("num_classes", "kind"), [(25, "numbered"), (26, "coarse"), (201, "none")])
def test_the_matrix_fits_the_number_of_classes(make_run, num_classes, kind):
    page = audit(many_classes(make_run, num_classes, 3)).report.read_text(encoding="utf-8")
    assert ("given label →" in page) == (kind == "numbered")
    assert ("column of spots" in page) == (kind == "coarse")
    assert "The most frequent confusions" in page


def noise_images() -> list[bytes]:
    """Pictures of noise: nothing takes more room."""
    import io

    rng = np.random.default_rng(0)
    found = []
    for _ in range(5):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 255, (128, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, format="PNG")
        found.append(buffer.getvalue())
    return found


def test_the_file_stays_bounded_with_1000_classes(make_run):
    images = noise_images()
    path = many_classes(make_run, 1000, 13)
    result = audit(path, read=lambda index: images[index % 5], per_class=12)
    assert 8_000_000 < result.report.stat().st_size < 15_000_000
    assert "Shown are 60 of 1,000 classes" in result.report.read_text(encoding="utf-8")


def test_a_tight_bound_still_shows_the_worst_of_every_class(nasty_run, read):
    ledger = load_run(nasty_run).ledger
    rows = rows_per_class(ledger, rank_rows(ledger), 12)
    tight = sections(ledger, rows, [0, 1, 2, 3], read, max_characters=3000)
    loose = sections(ledger, rows, [0, 1, 2, 3], read)
    assert sum(len(s.cards) for s in tight) < sum(len(s.cards) for s in loose)
    assert {len(s.cards) for s in tight} <= {1, 2, 3}
    assert [s.cards[0] for s in tight] == [s.cards[0] for s in loose[: len(tight)]]


def test_the_audit_needs_no_torch():
    code = "import sys, thresher.audit; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
