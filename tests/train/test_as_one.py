"""Networks computed as one do what they do one by one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from thresher.models.factory import create_model
from thresher.train.as_one import call_as_one, can_be_one, members_as_one

SIZE = 32


def two(name: str, **more: Any) -> list[nn.Module]:
    kind: Any = torch.channels_last
    return [create_model(name, 3, **more).to(memory_format=kind).train() for _ in range(2)]


def step(logits: list[Tensor], labels: Tensor) -> None:
    losses = [functional.cross_entropy(z.float(), labels) for z in logits]
    torch.autograd.backward(losses)


@pytest.mark.parametrize("name", ["small_cnn", "small_resnet", "resnet18", "mobilenetv3_small_050"])
def test_a_step_as_one_is_that_of_each_alone(name: str) -> None:
    torch.manual_seed(0)
    alone = [module.double() for module in two(name)]
    if name.startswith("mobilenet"):
        for module in alone:
            module.drop_rate = 0.0
    joint = copy.deepcopy(alone)
    images = torch.randn(6, 3, SIZE, SIZE, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2] * 2)
    expected = [module(images) for module in alone]
    step(expected, labels)
    found = call_as_one(joint, images)
    step(found, labels)
    for z, z_alone in zip(found, expected, strict=True):
        torch.testing.assert_close(z, z_alone)
    places = set()
    for module, one in zip(joint, alone, strict=True):
        for (key, weight), own in zip(module.named_parameters(), one.parameters(), strict=True):
            assert weight.grad is not None
            assert own.grad is not None
            torch.testing.assert_close(weight.grad, own.grad, atol=1e-6, rtol=1e-6, msg=key)
            assert weight.grad.stride() == weight.stride()
            places.add(weight.grad.untyped_storage().data_ptr())
        for (key, values), own in zip(module.named_buffers(), one.buffers(), strict=True):
            torch.testing.assert_close(values, own, msg=key)
            assert values.dim() or values == 1
    assert len(places) == 1, "gradients are parts of one tensor, none was copied"


def test_precision_and_layout_are_kept() -> None:
    """Under ``torch.vmap`` convolutions on a CPU stay float32, and normalisation on a GPU does."""
    torch.manual_seed(0)
    alone = two("small_resnet")
    joint = copy.deepcopy(alone)
    images = torch.randn(4, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        expected = [module(images) for module in alone]
        found = call_as_one(joint, images)
    assert {z.dtype for z in found} == {torch.bfloat16}
    for z, z_alone in zip(found, expected, strict=True):
        torch.testing.assert_close(z, z_alone, atol=2e-2, rtol=2e-2)


def test_averages_leave_their_statistics_alone() -> None:
    modules = [module.eval() for module in two("small_cnn")]
    before = [copy.deepcopy(module.state_dict()) for module in modules]
    images = torch.randn(4, 3, SIZE, SIZE)
    with torch.no_grad():
        for z, module in zip(call_as_one(modules, images), modules, strict=True):
            torch.testing.assert_close(z, module(images))
    for module, state in zip(modules, before, strict=True):
        for key, values in module.state_dict().items():
            torch.testing.assert_close(values, state[key], msg=key)


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.convolutions: list[torch.dtype] = []
        self.kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [arg for arg in args if isinstance(arg, Tensor)]
        # A view starts no kernel; nor does asking for the device.
        self.kernels += func is not torch.ops.prim.device.default and not func.is_view
        if func is torch.ops.aten.convolution.default:
            self.convolutions.append(inputs[0].dtype)
        return result


def fake(network: nn.Module, device: torch.device) -> None:
    """Put a network on a device that need not be there, its layout kept."""

    def empty(like: Tensor) -> Tensor:
        return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=device)

    for part in network.modules():
        for name, weight in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(empty(weight)))
        for name, values in part.named_buffers(recurse=False):
            setattr(part, name, empty(values))


def test_on_a_gpu_half_the_kernels_start_and_nothing_waits() -> None:
    """With tensors of which only shapes, types and devices are worked out."""
    device = torch.device("cuda", 0)
    modules = two("small_resnet")
    counts = []
    with FakeTensorMode():
        for module in modules:
            fake(module, device)
        images = torch.empty(4, 3, SIZE, SIZE, device=device)
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        try:
            for as_one in (False, True):
                with _Count() as count:
                    logits = (
                        call_as_one(modules, images)
                        if as_one
                        else [module(images) for module in modules]
                    )
                assert {z.device for z in logits} == {device}
                assert set(count.convolutions) == {torch.bfloat16}
                counts.append((len(count.convolutions), count.kernels))
        finally:
            torch.set_autocast_enabled("cuda", False)
            torch.clear_autocast_cache()
    (convolutions, kernels), (fewer_convolutions, fewer_kernels) = counts
    assert fewer_convolutions == convolutions / 2
    assert fewer_kernels < 0.7 * kernels


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_gpu_computes_the_same(precision: torch.dtype) -> None:
    torch.manual_seed(0)
    alone = [module.cuda() for module in two("small_resnet")]
    joint = copy.deepcopy(alone)
    images = torch.randn(32, 3, SIZE, SIZE, device="cuda")
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(32, device="cuda") % 3
    with torch.autocast("cuda", precision, enabled=precision != torch.float32):
        expected = [module(images) for module in alone]
        found = call_as_one(joint, images)
    step(expected, labels)
    step(found, labels)
    close = 5e-2 if precision == torch.bfloat16 else 5e-3
    for module, one in zip(joint, alone, strict=True):
        for (key, weight), own in zip(module.named_parameters(), one.parameters(), strict=True):
            assert weight.grad is not None
            assert own.grad is not None
            apart = (weight.grad - own.grad).norm() / one.head.weight.grad.norm()
            assert apart < close, key
        for (key, values), other in zip(module.named_buffers(), one.buffers(), strict=True):
            torch.testing.assert_close(values, other, atol=close, rtol=close, msg=key)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("convnext_atto", "normalises over channels"),
        ("densenet121", "joins channels, and does not fail"),
        ("vit_tiny_patch16_224", "has tokens"),
    ],
)
def test_what_mixes_channels_is_refused(name: str, reason: str) -> None:
    assert not can_be_one(two(name), SIZE), reason


class _Odd(nn.Module):
    """A small network with something that cannot be as it is among twice the channels."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.body = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.unused = nn.Linear(2, 2) if kind == "unused" else nn.Identity()
        self.drop = nn.Dropout(0.5) if kind == "dropout" else nn.Identity()
        self.head = nn.Linear(4, 3, bias=kind != "other")

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.body(images))
        if self.kind == "mixes":
            x = x + 1e-3 * x.mean(dim=1, keepdim=True)
        out: Tensor = self.head(self.drop(x.relu().mean(dim=(2, 3))))
        return out


@pytest.mark.parametrize("kind", ["plain", "mixes", "unused", "dropout", "compiled", "unlike"])
def test_what_is_refused(kind: str) -> None:
    modules = [_Odd(kind), _Odd("other" if kind == "unlike" else kind)]
    if kind == "compiled":
        modules[0].compile()
    state = torch.get_rng_state()
    assert can_be_one(modules, SIZE) == (kind == "plain")
    assert torch.equal(state, torch.get_rng_state()), "a run goes on as if this had not been tried"
    assert all(module.norm.num_batches_tracked == 0 for module in modules)


def test_large_networks_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = [_Odd("plain"), _Odd("plain")]
    monkeypatch.setattr("thresher.train.as_one._MOST_WEIGHTS", 10)
    assert not can_be_one(modules, SIZE)


def test_all_must_look_at_the_same_images() -> None:
    calls: list[Tensor] = []

    def call(images: Tensor) -> list[Tensor]:
        calls.append(images)
        return [images + 1, images + 2]

    one, other = torch.zeros(1), torch.zeros(1)
    first, second = members_as_one(2, call, call)
    assert [first.student(one).item(), first.student(other).item()] == [1, 1]
    assert [second.student(other).item(), second.student(one).item()] == [2, 2]
    assert len(calls) == 2
    with pytest.raises(RuntimeError, match="different images"):
        second.teacher(one)
