"""The benchmark of the ledger runs, in small."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").is_file(), reason="memory is measured on Linux alone"
)
PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "ledger.py"


@pytest.mark.parametrize(("method", "column_bytes"), [("ce", 58), ("mct", 168)])
def test_a_rank_is_measured(method: str, column_bytes: int) -> None:
    spec = importlib.util.spec_from_file_location("ledger_benchmark", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    measure = module.measure_rank(method, ranks=4, samples=20_000, num_classes=100)
    assert measure["samples_of_rank"] == 5000
    assert measure["column_bytes_per_sample"] == column_bytes
    assert set(module.SHOWN) <= set(measure)
    assert module.measure_table(2000, 100)["table_bytes_per_sample"] > 0
