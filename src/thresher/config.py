"""What a user can choose. ``None`` means: follows from the data, see ``train/resolve.py``.

Defaults and help texts live here and nowhere else; the command line and YAML files are read from
these fields, and an unknown key is an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Precision = Literal["fp32", "bf16"]
Cache = Literal["auto", "none", "host", "device"]
Augment = Literal["small", "photo", "none"]
Decoder = Literal["auto", "threads", "processes"]
Placement = Literal["together", "apart"]
Compression = Literal["none", "bf16"]


def option(default: Any, help_text: str) -> Any:
    """Declare a field with its help text."""
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How to read a collection that is not quite as expected."""

    path_column: str | None = option(None, "Column with the image path (tables).")
    label_column: str | None = option(None, "Column with the label (tables, Parquet).")
    image_column: str | None = option(None, "Column with the image bytes (Parquet image data).")
    allow_damaged: bool = option(False, "Go on without shards and files that cannot be read.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DataOptions):
    """One training run."""

    data: str = option("", "Training images: folder, table, Parquet image data or tars.")
    val: str | None = option(None, "Images to measure accuracy on; never used for a decision.")
    clean: str | None = option(None, "A small set whose labels are trusted; helps the method.")
    val_share: float = option(0.05, "Share of DATA held out to measure on when there is no --val.")
    method: str = option("mct", "How to train: mct, ce, or another file of methods/.")
    model: str | None = option(None, "small_cnn, small_resnet, or any timm network.")
    pretrained: bool = option(False, "Start from the weights that timm publishes (downloads them).")
    init_weights: str | None = option(None, "Start from this .safetensors or .pth file.")
    image_size: int | None = option(None, "Side in pixels that the network sees.")
    epochs: int | None = option(None, "Passes over the data, all rounds together.")
    batch_size: int | Literal["auto"] | None = option(
        None, "Samples per step, over all processes; auto: halved until a step fits into memory."
    )
    optimizer: str | None = option(None, "sgd, adamw, or any of timm's optimizers.")
    lr: float | None = option(None, "Highest learning rate.")
    weight_decay: float | None = option(None, "Weight decay; not on biases and norms.")
    warmup_share: float = option(0.15, "Share of each round in which the learning rate rises.")
    ema_decay: float | None = option(None, "Decay per step of the averaged networks.")
    augment: Augment | None = option(None, "small: shift and flip; photo: random crops and flip.")
    min_crop_area: float = option(
        0.25, "Least share of a photo that a random crop shows; 0.08 for much data, many epochs."
    )
    flip: bool = option(True, "Mirror images at random; switch off for text and digits.")
    precision: Precision | None = option(None, "fp32 or bf16 (autocast).")
    accelerator: str = option("auto", "cpu, cuda, mps or auto.")
    devices: int = option(
        1, "Processes on this machine, one per GPU; torchrun, mpirun and srun count for themselves."
    )
    max_restarts: int = option(0, "How often --devices starts all processes again if one fails.")
    placement: Placement = option(
        "together", "apart: half of the processes hold one of two networks, half the other."
    )
    sync_batchnorm: bool = option(False, "Batch statistics over all processes, not each one's.")
    capture: bool = option(
        True, "Record training steps on a GPU and replay them; off to look for a mistake in one."
    )
    compile: bool = option(
        False, "Compile networks first (torch.compile): quicker steps on a GPU, a slower start."
    )
    compress_gradients: Compression = option("none", "bf16 halves what processes exchange.")
    accumulate: int = option(1, "Parts that a batch is computed in, one after the other.")
    peer_timeout: float = option(600.0, "Seconds to wait for a process that is missing or stalls.")
    threads: int | None = option(None, "Threads that decode images, per process.")
    decoder: Decoder = option(
        "auto",
        "Those threads decode, all of them, or each in a process; auto: what a trial finds best.",
    )
    cache: Cache = option(
        "auto", "Keep decoded images: none, host, device (a GPU), or auto: in memory if they fit."
    )
    eval_every: int | None = option(None, "Epochs between two measurements of accuracy.")
    checkpoint_minutes: float = option(10.0, "Longest time between two checkpoints.")
    keep_checkpoints: int = option(2, "How many of the newest checkpoints to keep.")
    seed: int = option(0, "Of every random draw.")


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig(TrainConfig):
    """A configuration in which nothing is left to choose."""

    model: str
    image_size: int
    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    weight_decay: float
    ema_decay: float
    augment: Augment
    precision: Precision
    threads: int
    eval_every: int
