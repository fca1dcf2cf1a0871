"""What a run leaves behind when its last step is done."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from thresher.config import ResolvedConfig
from thresher.dist.runtime import Runtime
from thresher.export.weights import write_timm_config, write_weights
from thresher.ledger.ledger import Ledger
from thresher.ledger.table import write_ledger
from thresher.loader.canvas import EVALUATION_MARGIN
from thresher.methods.base import Method
from thresher.sources.manifest import Manifest
from thresher.train.run_dir import RunDir
from thresher.train.team import Team
from thresher.types import Judgement


def write_ledger_table(
    path: Path, manifest: Manifest, ledger: Ledger, judgement: Judgement, runtime: Runtime
) -> None:
    """Write the ledger of all ranks for people, with the method's last judgement of every sample.

    Args:
        path: where; the first rank writes it.
        manifest: of the run, with the states that training found.
        ledger: of this rank.
        judgement: of this rank's samples.
        runtime: this process's place among its peers.

    Raises:
        UserError: on every rank, if it cannot be written.
    """

    def mean(name: str) -> np.ndarray:
        """Of the networks, float32[n]."""
        # The columns are float16, which keeps a loss beyond its 65,504 as infinity.
        each = ledger.columns[name].reshape(len(ledger), -1).float().clamp(max=65_504)
        values: np.ndarray = each.mean(dim=1).cpu().numpy()
        return values

    own = {
        "ids": ledger.ids,
        "suggested": judgement.suggested.cpu().numpy(),
        "confidence": judgement.confidence.cpu().numpy(),
        "clean_probability": judgement.clean_probability.cpu().numpy(),
        "weight": mean("weight"),
        "loss": mean("loss"),
        "prob_given": mean("prob_given"),
        "seen": ledger.columns["seen"].cpu().numpy(),
    }
    # Twins hold the same rows; one of each pair tells them.
    told = runtime.gather_on_first(own if runtime.rank < runtime.group.size else None)

    def write() -> None:
        parts = [part for part in told or [] if part is not None]
        whole = {name: np.concatenate([part[name] for part in parts]) for name in own}
        order = np.argsort(whole["ids"])
        whole = {name: values[order] for name, values in whole.items()}
        write_ledger(path, manifest, whole.pop("ids"), **whole)

    runtime.on_first(write)


def write_networks(
    run: RunDir,
    config: ResolvedConfig,
    method: Method,
    team: Team,
    classes: tuple[str, ...],
    runtime: Runtime,
) -> None:
    """Write each network's weights, then what timm and ``Predictor`` need to load them.

    The configuration comes last: where it is, all weights are.

    Raises:
        UserError: on every rank, if one cannot write.
    """

    def write_own() -> None:
        for index, learner in team.learners.items():
            if runtime.owner(index) == runtime.rank:
                network = learner.ema if method.predicts_with_teacher else learner.module
                write_weights(network, run.weights(index))

    runtime.settle(write_own)
    runtime.on_first(
        lambda: write_timm_config(
            team.learners[0].module,
            run.timm_config,
            architecture=config.model,
            image_size=config.image_size,
            crop_share=EVALUATION_MARGIN if config.augment == "photo" else 1.0,
            classes=classes,
            num_networks=method.networks,
        )
    )
