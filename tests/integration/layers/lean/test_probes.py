"""What a module is is found by what it computes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from transformers.activations import ACT2FN
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from wtacrs.integration import lean_
from wtacrs.integration.layers.lean.probes import activation_name, rms_terms


class Unnamed(nn.Module):
    """An RMS norm of somebody's own, with a parameter and an eps of other names."""

    def __init__(
        self, *, power: float = -0.5, centred: bool = False, gain: float = 1.0, noise: bool = False
    ) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(24))
        self.tiny, self.power, self.centred, self.gain, self.noise = 1e-4, power, centred, gain, noise

    def forward(self, z: Tensor) -> Tensor:
        if self.centred:
            z = z - z.mean(-1, keepdim=True)
        z = z + torch.rand(1) if self.noise else z
        mean = z.float().square().mean(-1, keepdim=True)
        return self.g * (z.float() * (mean + self.tiny) ** self.power * self.gain).to(z.dtype)


@pytest.mark.parametrize(
    ("module", "eps", "offset", "cast"),
    [
        (T5LayerNorm(24), 1e-6, 0.0, "weight"),
        (LlamaRMSNorm(24, 1e-5), 1e-5, 0.0, "input"),
        (GemmaRMSNorm(24), 1e-6, 1.0, "late"),
        (nn.RMSNorm(24), None, 0.0, "late"),
        (nn.RMSNorm(24, eps=1e-3), 1e-3, 0.0, "late"),
        (Unnamed(), 1e-4, 0.0, "input"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_rms_norms_of_any_library(module: nn.Module, eps: float | None, offset: float, cast: str) -> None:
    terms, told = rms_terms(module.train())
    assert terms is not None
    assert told == terms.describe()
    assert (terms.eps, terms.offset, terms.cast) == (eps, offset, cast)
    assert terms.weight in dict(module.named_parameters())
    assert terms.double is isinstance(module, nn.RMSNorm)


@pytest.mark.parametrize(
    "module",
    [
        Unnamed(power=-0.49),
        Unnamed(centred=True),
        Unnamed(gain=1.0001),
        Unnamed(noise=True),
        nn.LayerNorm(24, bias=False),
        nn.PReLU(24),
        nn.Linear(24, 1),
        nn.RMSNorm((4, 24)),
        nn.RMSNorm(24, elementwise_affine=False),
    ],
    ids=lambda module: f"{type(module).__name__}",
)
def test_what_is_no_rms_norm(module: nn.Module) -> None:
    terms, told = rms_terms(module.train())
    assert terms is None
    assert told.startswith("not an RMS norm")


def test_an_eps_that_is_not_found_is_not_guessed() -> None:
    module = Unnamed()
    module.tiny = torch.tensor(1e-4)
    assert rms_terms(module)[0] is None


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("relu", "ReLU"),
        ("relu2", "squared ReLU"),
        ("gelu", "GELU"),
        ("gelu_python", "GELU"),
        ("gelu_new", "GELU (tanh)"),
        ("gelu_fast", "GELU (tanh)"),
        ("gelu_pytorch_tanh", "GELU (tanh)"),
        ("silu", "SiLU"),
        ("swish", "SiLU"),
        ("quick_gelu", "quick GELU"),
        ("mish", "Mish"),
        ("hardswish", "hardswish"),
    ],
)
def test_activations_of_transformers(key: str, name: str) -> None:
    assert activation_name(ACT2FN[key]) == (name, name)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Tanh(), "tanh: it keeps its output alone"),
        (nn.Sigmoid(), "sigmoid: it keeps its output alone"),
        (nn.ReLU(inplace=True), "it works in place"),
        (nn.Softmax(-1), "no known element-wise function"),
        (nn.LeakyReLU(1e-4), "no known element-wise function"),
        (nn.Softplus(beta=1.001), "no known element-wise function"),
        (nn.Identity(), "no known element-wise function"),
        (nn.RReLU(), "no known element-wise function"),
        (ACT2FN["gelu_10"], "no known element-wise function"),
        (nn.PReLU(), "it has parts of its own"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_stays_stock_and_why(module: nn.Module, reason: str) -> None:
    name, told = activation_name(module.train())
    assert name is None
    assert reason in told


def test_asking_changes_nothing() -> None:
    class Counting(nn.SiLU):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.last = x
            torch.rand(3)
            return super().forward(x)

    module = Counting().eval()
    module.register_forward_hook(lambda *_: pytest.fail("a hook was run"))
    state = torch.random.get_rng_state()
    assert activation_name(module)[0] == "SiLU"
    assert (module.calls, hasattr(module, "last"), module.training) == (0, False, False)
    norm = LlamaRMSNorm(24)
    before = norm.weight.clone()
    assert rms_terms(norm)[0] is not None
    assert norm.weight.grad is None
    assert torch.equal(norm.weight, before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_model_without_memory_can_be_asked() -> None:
    with torch.device("meta"):
        norm = LlamaRMSNorm(24)
    assert rms_terms(norm)[0] is not None
    assert activation_name(nn.GELU())[0] == "GELU"


class Guided(torch.autograd.Function):
    """ReLU by its output; its gradient is cut off where it is negative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return dy.clamp(min=0) * (ctx.saved_tensors[0] > 0)


class Cut(torch.autograd.Function):
    """SiLU by its output; large gradients are cut."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.silu(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return torch.ops.aten.silu_backward(dy.clamp(-100.0, 100.0), ctx.saved_tensors[0])


class Own(nn.Module):
    """An activation of somebody's own."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def without_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        return F.silu(x)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (Guided.apply, "ReLU"),
        (Cut.apply, "SiLU"),
        (lambda x: F.gelu(x.detach()), "GELU"),
        (lambda x: x + (x.relu() - x).detach(), "ReLU"),
        (lambda x: 2.0 * F.mish(x) - F.mish(x).detach(), "Mish"),
        (lambda x: x.clamp(min=0), "ReLU"),  # its derivative at 0 is 1
        (lambda x: x + (x.tanh() - x).detach(), "tanh"),
        (without_grad, "SiLU"),
    ],
    ids=["guided", "cut", "detached", "straight-through", "twice", "clamp", "tanh", "no_grad"],
)
def test_an_activation_with_a_gradient_of_its_own_stays(function: Callable[[Tensor], Tensor], name: str) -> None:
    module = Own(function)
    assert activation_name(module) == (None, f"its output is that of {name}, its gradient is not")
    lean = lean_(nn.Sequential(nn.Linear(4, 4), module, nn.GELU()))
    assert "gradient" in lean.stays["1"]


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: x / (1.0 + torch.exp(-x)), "SiLU"),  # its gradient by autograd is NaN far out
        (lambda x: x * torch.tanh(F.softplus(x)), "Mish"),
        (lambda x: x * (x > 0), "ReLU"),
        (lambda x: x.relu() * x.relu(), "squared ReLU"),
    ],
)
def test_activations_by_formula(function: Callable[[Tensor], Tensor], name: str) -> None:
    assert activation_name(Own(function))[0] == name


class Written(nn.Module):
    """Llama's RMS norm, parts of which may be without a gradient."""

    def __init__(self, d: int, *, stopped: str = "") -> None:
        super().__init__()
        self.weight, self.eps, self.stopped = nn.Parameter(torch.ones(d)), 1e-6, stopped

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        inner = wide.detach() if self.stopped == "variance" else wide
        rstd = torch.rsqrt(inner.pow(2).mean(-1, keepdim=True) + self.eps)
        weight = self.weight.detach() if self.stopped == "weight" else self.weight
        return weight * (wide * rstd).to(x.dtype)


@pytest.mark.parametrize("d", [2, 24, 1024])
def test_an_rms_norm_with_a_gradient_of_its_own_stays(d: int) -> None:
    assert rms_terms(Written(d))[0] is not None
    for stopped in ("variance", "weight"):
        module = Written(d, stopped=stopped)
        told = "its output is that of an RMS norm, its gradient is not"
        assert rms_terms(module) == (None, told)
        assert told in lean_(nn.Sequential(module, nn.Linear(d, 4), nn.GELU())).stays["0"]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradients_are_compared_in_every_mode(mode: Callable[[], AbstractContextManager[Any]]) -> None:
    norm, stopped = Written(24), Written(24, stopped="variance")
    with mode():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        assert activation_name(nn.GELU())[0] == "GELU"
        assert activation_name(Own(Guided.apply))[0] is None
        assert rms_terms(norm)[0] is not None
        assert rms_terms(stopped)[0] is None
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before


def test_a_frozen_norm_can_be_asked() -> None:
    norm = Written(24).requires_grad_(False).eval()
    assert rms_terms(norm)[0] is not None
    assert (norm.weight.requires_grad, norm.weight.grad, norm.training) == (False, None, False)


class Logging(nn.Module):
    """GELU by a bound method, which writes down its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.counts: dict[str, list[int]] = {"calls": [0]}
        self.act = self.written

    def written(self, x: Tensor) -> Tensor:
        self.log.append("called")
        self.counts["calls"][0] += 1
        self.part = nn.Identity()
        return F.gelu(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)


def test_what_a_module_writes_down_while_asked_is_lost() -> None:
    module = Logging()
    assert activation_name(module)[0] == "GELU"
    assert (module.log, module.counts, module._modules) == ([], {"calls": [0]}, {})


def test_what_cannot_be_copied_is_shared() -> None:
    module = Own(F.gelu)
    module.lock = threading.Lock()  # type: ignore[assignment]
    assert activation_name(module)[0] == "GELU"


def test_the_model_around_is_not_copied() -> None:
    class Around(nn.Module):
        def __deepcopy__(self, memo: dict[int, Any]) -> Around:
            pytest.fail("it was copied")

        def help(self) -> None:
            """Nothing."""

    module, around = Own(F.gelu), Around()
    module.around, module.help = [around], around.help  # type: ignore[assignment]
    assert activation_name(module)[0] == "GELU"


def test_hooks_and_gradients_of_tensors_a_module_holds_are_left_alone() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.held = [torch.ones((), requires_grad=True)]
            self.held[0].register_hook(lambda _: pytest.fail("a hook was run"))

        def forward(self, x: Tensor) -> Tensor:
            return F.silu(x) * self.held[0].to(x.dtype)

    module = Scaled()
    state = torch.random.get_rng_state()
    assert activation_name(module)[0] == "SiLU"
    assert module.held[0].grad is None
    assert torch.equal(torch.random.get_rng_state(), state)


def test_subclasses_and_parts_of_torch_have_their_own_reasons() -> None:
    class OwnDropout(nn.Dropout):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 0.5

    class OwnNorm(nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 0.5

    lean = lean_(nn.Sequential(nn.Linear(4, 4), OwnDropout(0.1), OwnNorm(4), nn.PReLU(4), nn.GELU()))
    assert lean.stays["1"] == "a subclass of nn.Dropout, whose own forward would be lost"
    assert lean.stays["2"] == "a subclass of nn.LayerNorm, whose own forward would be lost"
    assert lean.stays["3"] == "no lean piece for PReLU"


def test_a_model_of_fake_tensors_can_be_asked() -> None:
    with FakeTensorMode():
        norm, stopped = LlamaRMSNorm(24), Written(24, stopped="variance")
    assert isinstance(norm.weight, FakeTensor)
    assert rms_terms(norm)[0] is not None
    assert rms_terms(stopped)[0] is None
