"""Batches that fit into memory: found by trying a step, and suggested where one ran out."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from thresher.config import ResolvedConfig
from thresher.dist.runtime import Runtime
from thresher.errors import UserError
from thresher.ledger.ledger import Ledger
from thresher.methods.base import Method, with_mode
from thresher.train.learner import Learner, MakeLearner
from thresher.types import Batch, Network, Networks, Progress

_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
"""Of PyTorch's allocators on the CPU and on MPS, and of CUDA's libraries."""

Try = Callable[[int], None]
"""Makes a step of so many images over all processes, or raises what the allocator raises."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator found no memory for a tensor."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def step_of(
    config: ResolvedConfig, method: Method, make_learner: MakeLearner, runtime: Runtime
) -> Try:
    """A step as the run makes it, on blank images, with networks that are thrown away.

    It exchanges nothing, so that one process alone may try it.
    """
    shares = runtime.group.size * config.accumulate

    def attempt(batch: int) -> None:
        num, side, device = max(1, batch // shares), config.image_size, runtime.device
        learners = {index: make_learner(index, 0) for index in runtime.held(method.networks)}
        mine = next(iter(learners))
        # With one network on each rank the other's predictions are as large as one's own.
        members = (learners.get(index, learners[mine]) for index in range(method.networks))
        networks = Networks(tuple(_network(learner, runtime) for learner in members))
        zeros = np.zeros(num, dtype=np.int64)
        ledger = Ledger(np.arange(num), zeros, method.columns, device)
        positions = torch.arange(num, device=device)
        view = torch.zeros(num, 3, side, side, device=device)
        view = view.contiguous(memory_format=torch.channels_last)
        valid = torch.ones(num, dtype=torch.bool, device=device)
        views = tuple(view.clone() for _ in method.views)
        whole = Batch(positions, views, ledger.labels, valid)
        # A method may do most in the last epoch.
        last = config.epochs - 1
        moment = Progress(last, last + 1, last, last + 1, 0, 1, last, last + 1)
        progress = with_mode(method, moment)
        result = method.step(networks, whole, ledger.rows(positions), progress)
        torch.autograd.backward([result.loss_sums[index] for index in learners])
        for learner in learners.values():
            learner.prepare(0.0)
            learner.step()

    return attempt


def largest_that_fits(
    attempt: Try, start: int, least: int, agree: Callable[[bool], bool]
) -> int | None:
    """The first of ``start``, its half, its quarter, ... of which a step fits.

    Args:
        attempt: see ``Try``.
        start: images of the first step tried.
        least: every batch is a multiple of it.
        agree: whether a step fits on all ranks, from whether it does on this one.

    Returns:
        Images of a step over all processes; None if not even ``least`` fit.
    """
    batch = start
    while not agree(_fits(attempt, batch)):
        if batch <= least:
            return None
        batch = max(least, batch // 2 // least * least)
    return batch


def find_batch(config: ResolvedConfig, attempt: Try, runtime: Runtime) -> int:
    """What ``--batch-size auto`` means here, the same on every rank.

    Raises:
        UserError: no batch fits.
    """
    least = runtime.group.size * config.accumulate

    def agree(fits: bool) -> bool:
        return all(runtime.gather(fits))

    found = largest_that_fits(attempt, max(least, config.batch_size), least, agree)
    if found is None:
        raise UserError(
            f"Memory does not hold {config.model} with a step of {least} images of"
            f" {config.image_size} pixels. Choose a smaller --image-size or --model.",
            told=not runtime.is_first,
        )
    return found


def explain(
    error: BaseException, config: ResolvedConfig, attempt: Try, runtime: Runtime
) -> UserError:
    """A sentence for memory that ran out, with a batch size that was tried."""
    least = runtime.group.size * config.accumulate
    half = max(least, config.batch_size // 2 // least * least)
    # The failed step's tensors live in its frames.
    traceback.clear_frames(error.__traceback__)
    found = largest_that_fits(attempt, half, least, agree=bool)
    advice = (
        f"A step fits here with --batch-size {found}; --batch-size auto finds one by itself, and"
        " --accumulate computes a batch in parts."
        if found is not None and found < config.batch_size
        else "Choose a smaller --image-size or --model."
    )
    return UserError(
        f"Memory ran out with batches of {config.batch_size} images of {config.image_size} pixels."
        f" {advice}"
    )


def _fits(attempt: Try, batch: int) -> bool:
    try:
        attempt(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        return False
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return True


def _network(learner: Learner, runtime: Runtime) -> Network:
    def student(images: Tensor) -> Tensor:
        with runtime.autocast():
            logits: Tensor = learner.module(images)
        return logits.float()

    return Network(student, learner.teacher)
