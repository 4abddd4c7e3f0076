"""What a module is is found by what it computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

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
    terms = rms_terms(module.train())
    assert terms is not None
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
    assert rms_terms(module.train()) is None


def test_an_eps_that_is_not_found_is_not_guessed() -> None:
    module = Unnamed()
    module.tiny = torch.tensor(1e-4)
    assert rms_terms(module) is None


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
    assert rms_terms(norm) is not None
    assert norm.weight.grad is None
    assert torch.equal(norm.weight, before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_model_without_memory_can_be_asked() -> None:
    with torch.device("meta"):
        norm = LlamaRMSNorm(24)
    assert rms_terms(norm) is not None
