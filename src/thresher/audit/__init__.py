"""The audit: from a run's ledger to ranked suspects and a report. Needs no torch."""

from thresher.audit.run import AuditResult, audit
from thresher.audit.scores import LabelErrorScores

__all__ = ["AuditResult", "LabelErrorScores", "audit"]
