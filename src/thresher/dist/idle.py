"""Parameters of a network that take no part in its loss, such as a head that is never asked.

Alone they do no harm: they get no gradient, and optimizers leave them as they are. Ranks that
exchange gradients would wait for theirs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor, nn

from thresher.errors import UserError

_UNFINISHED = "Expected to have finished reduction"
_INDICES = re.compile(r"did not receive grad[^:]*: ([\d ]+)")


def find_idle(network: nn.Module, images: Tensor) -> frozenset[str]:
    """Names of the parameters that get no gradient, neither in training nor in evaluation.

    In training alone a network may skip some of its layers at random.

    Args:
        network: is changed by its passes over the images.
        images: a few, of the size that it will see.
    """
    touched: set[str] = set()
    for training in (True, False):
        network.train(training)
        network.zero_grad(set_to_none=True)
        network(images).float().sum().backward()
        touched |= {name for name, p in network.named_parameters() if p.grad is not None}
    return frozenset(name for name, _ in network.named_parameters()) - touched


def unfinished(error: RuntimeError, exchanged: Sequence[str]) -> list[str] | None:
    """Which gradients did not come, if this is what PyTorch says of it; None if it is not.

    Args:
        error: of ``DistributedDataParallel``.
        exchanged: names of the parameters that it waits for, in its order.
    """
    if _UNFINISHED not in str(error):
        return None
    found = _INDICES.search(str(error))
    return [exchanged[int(index)] for index in found[1].split()] if found else []


def graph_changed(names: Sequence[str]) -> UserError:
    """The refusal of a network whose parameters take part in some steps and not in others."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    which = f" ({', '.join(names[:3])}{more})" if names else ""
    return UserError(
        f"The network uses some of its parameters{which} in some steps and not in others, so that"
        " several processes cannot exchange their gradients. Choose another --model, or train with"
        " one process."
    )
