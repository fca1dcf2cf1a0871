"""Several networks of one structure computed as one network that is as many times as wide.

Their feature maps lie side by side in the channels: convolutions work in groups, a linear layer is
a batched product, and what treats each channel for itself (normalisation by batch, pooling,
activations, sums) stays as it is. So there are half as many kernels, each with twice the work.
``torch.vmap`` would be the general tool, but takes batch normalisation apart into more kernels than
there were (docs/log.md).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from thresher.train.together import must_take_turns
from thresher.types import Network

_MOST_WEIGHTS = 50_000_000
"""Of a network; larger ones fill a GPU by themselves and would be slow to try."""
Call = Callable[[Tensor], list[Tensor]]
"""Images to each network's logits [B, C]."""


def call_as_one(modules: Sequence[nn.Module], images: Tensor) -> list[Tensor]:
    """``[module(images) for module in modules]``, with the same gradients and statistics."""
    first, num = modules[0], len(modules)
    buffers = list(zip(*(module.buffers() for module in modules), strict=True))
    running = [row for row in buffers if row[0].dim()]
    counts = [row for row in buffers if not row[0].dim()]
    weights = _joined(list(zip(*(module.parameters() for module in modules), strict=True)))
    with torch.no_grad():
        statistics = _joined(running)
    wide = dict(zip((name for name, _ in first.named_parameters()), weights, strict=True))
    made = iter(statistics)
    # A count is the same for all: the first network's own goes on, and the others take it over.
    wide.update({name: next(made) if b.dim() else b for name, b in first.named_buffers()})
    with _InGroups(num):
        logits: Tensor = functional_call(first, wide, (images,))
    if first.training and buffers:
        news = [part for joint in statistics for part in joint.chunk(num)]
        news += [row[0] for row in counts for _ in row]
        with torch.no_grad():
            torch._foreach_copy_([place for row in (*running, *counts) for place in row], news)
    return list(logits.chunk(num, dim=1))


def can_be_one(modules: Sequence[nn.Module], size: int) -> bool:
    """Whether ``call_as_one`` does what it says, which not every network's code allows.

    Tried on copies with made weights, by logits, gradients and statistics: a fresh network's own
    weights, zero in places, could hide that channels are mixed.

    Args:
        modules: in training mode.
        size: of the images' sides; at most 64 pixels are tried.
    """
    shapes = [[(k, v.shape) for k, v in module.state_dict().items()] for module in modules]
    if any(must_take_turns(module) for module in modules) or any(s != shapes[0] for s in shapes):
        return False
    if sum(weight.numel() for weight in modules[0].parameters()) > _MOST_WEIGHTS:
        return False
    random = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, *2 * [min(size, 64)], generator=random, dtype=torch.float64)
    alone = [_made(module, random) for module in modules]
    joint = copy.deepcopy(alone)
    try:
        expected = _outcome(alone, [module(images) for module in alone])
        found = _outcome(joint, call_as_one(joint, images))
    except Exception:
        return False  # whatever a network's code says to more channels than it has
    return all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-6, atol=1e-6 * float(1 + a.abs().max()))
        for a, b in zip(expected, found, strict=True)
    )


def members_as_one(num: int, student: Call, teacher: Call) -> list[Network]:
    """Networks that answer out of one call for all, if each in turn is asked the same."""
    students, teachers = _Shared(student), _Shared(teacher)
    return [Network(partial(students, i), partial(teachers, i)) for i in range(num)]


class _Shared:
    """Computes what the first network is asked for all of them."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._answers: list[tuple[Tensor, list[Tensor]]] = []

    def __call__(self, index: int, images: Tensor) -> Tensor:
        if index == 0:
            self._answers.append((images, self._call(images)))
        for asked, logits in self._answers:
            if asked is images:
                return logits[index]
        raise RuntimeError("the networks look at different images")


class _InGroups(TorchFunctionMode):
    """Inside, layers that mix channels keep to each network's own."""

    def __init__(self, num: int) -> None:
        super().__init__()
        self._num = num

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        own = {torch.conv2d: self._conv2d, functional.linear: self._linear}
        return own.get(func, func)(*args, **(kwargs or {}))

    def _conv2d(
        self, features: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any,
        dilation: Any, groups: int,
    ) -> Tensor:  # fmt: skip
        if features.shape[1] != weight.shape[1] * groups:  # not the images, which all share
            groups *= self._num
        return torch.conv2d(features, weight, bias, stride, padding, dilation, groups)

    def _linear(self, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        inputs = features.reshape(len(features), self._num, -1).transpose(0, 1)
        weights = weight.view(self._num, -1, weight.shape[1]).transpose(1, 2)
        if bias is None:
            out = torch.bmm(inputs, weights)
        else:
            out = torch.baddbmm(bias.view(self._num, 1, -1), inputs, weights)
        return out.transpose(0, 1).flatten(1)


def _joined(rows: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Each row's tensors one after the other along their first dimension.

    All by one kernel, and so come their gradients. Weights of convolutions have channels last.
    """
    if not rows:
        return []
    stored = [[t.permute(0, 2, 3, 1) if t.dim() == 4 else t for t in row] for row in rows]
    flat = torch.cat([tensor.reshape(-1) for row in stored for tensor in row])
    parts = flat.split_with_sizes([len(row) * row[0].numel() for row in stored])
    joint = [p.view(-1, *row[0].shape[1:]) for p, row in zip(parts, stored, strict=True)]
    return [t.permute(0, 3, 1, 2) if t.dim() == 4 else t for t in joint]


def _made(module: nn.Module, random: torch.Generator) -> nn.Module:
    """A copy with other weights; those that are one a channel positive, as a variance must be."""
    module = copy.deepcopy(module).cpu().double()
    for values in (*module.parameters(), *module.buffers()):
        if values.is_floating_point():
            values.data.uniform_(0.5, 1.5, generator=random)
            if values.dim() > 1:
                values.data.sub_(1).mul_((values.numel() / len(values)) ** -0.5)
    return module


def _outcome(modules: Sequence[nn.Module], logits: list[Tensor]) -> list[Tensor]:
    weights = [weight for module in modules for weight in module.parameters()]
    gradients = torch.autograd.grad(torch.stack(logits).square().sum(), weights)
    statistics = [buffer.double() for module in modules for buffer in module.buffers()]
    return [*(z.detach() for z in logits), *gradients, *statistics]
