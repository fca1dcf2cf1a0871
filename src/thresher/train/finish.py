"""What a run leaves behind when its last step is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from thresher.config import ResolvedConfig
from thresher.export.weights import write_timm_config, write_weights
from thresher.ledger.ledger import Ledger
from thresher.ledger.table import write_ledger
from thresher.loader.canvas import EVALUATION_MARGIN
from thresher.methods.base import Method
from thresher.sources.manifest import Manifest
from thresher.train.learner import Learner
from thresher.train.run_dir import RunDir
from thresher.types import Judgement


def write_ledger_table(
    path: Path, manifest: Manifest, ledger: Ledger, judgement: Judgement
) -> None:
    """Write the ledger for people, with the method's last judgement of every sample."""
    weight = ledger.columns["weight"]
    write_ledger(
        path,
        manifest,
        ledger.ids,
        suggested=judgement.suggested.cpu().numpy(),
        confidence=judgement.confidence.cpu().numpy(),
        clean_probability=judgement.clean_probability.cpu().numpy(),
        weight=weight.reshape(len(ledger), -1).float().mean(dim=1).cpu().numpy(),
        seen=ledger.columns["seen"].cpu().numpy(),
    )


def write_networks(
    run: RunDir,
    config: ResolvedConfig,
    method: Method,
    learners: Sequence[Learner],
    classes: tuple[str, ...],
) -> None:
    """Write each network's weights, then what timm and ``Predictor`` need to load them.

    The configuration comes last: where it is, all weights are.
    """
    for index, learner in enumerate(learners):
        write_weights(
            learner.ema if method.predicts_with_teacher else learner.module, run.weights(index)
        )
    write_timm_config(
        learners[0].module,
        run.timm_config,
        architecture=config.model,
        image_size=config.image_size,
        crop_share=EVALUATION_MARGIN if config.augment == "photo" else 1.0,
        classes=classes,
        num_networks=len(learners),
    )
