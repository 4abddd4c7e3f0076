"""LoRA by peft: adapters for the linear layers of a model, which train in their place (Hu et al., arXiv 2106.09685).

A layer computes `x W^T + (alpha / rank) x A^T B^T` with W frozen. What is kept for the backward pass changes little: the
input x is still needed, for dA, which is where an estimator saves.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.layers.linear_layers import fitting_layers
from wtacrs.integration.models.loading import is_text_to_text
from wtacrs.integration.models.new_weights import weights_from

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

_SCALE = 2.0
"""alpha / rank where alpha is not given."""


def require_peft() -> None:
    """Refuse if peft is not installed."""
    try:
        import peft  # noqa: F401
    except ImportError:
        raise InputError("lora_rank needs peft: pip install 'wtacrs[peft]'") from None


def add_lora(
    model: PreTrainedModel,
    rank: int,
    *,
    alpha: float | None = None,
    layers: Sequence[str] | None = None,
    frozen_a: bool = False,
    seed: int = 0,
) -> PeftModel:
    """Freeze a model and give its linear layers adapters, in place; a classification head is trained as a whole.

    The adapters are a function of the seed (A random, B zero: at first the model computes what it did); torch's default
    generator is left as it was.

    Args:
        model: the model; `merge_lora` makes it stock again.
        rank: r, at least 1.
        alpha: adapters count `alpha / rank`; default 2 · rank.
        layers: patterns of the names of layers that get adapters; None for all but the output layer.
        frozen_a: train B alone (LoRA-FA, Zhang et al., arXiv 2308.03303), for which only x A^T is kept, r numbers a row.
        seed: of the adapters.

    Returns:
        The model in peft's wrapper, which is to be trained.

    Raises:
        InputError: if peft is not installed, or a pattern fits no layer.
    """
    require_peft()
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        r=rank,
        lora_alpha=_SCALE * rank if alpha is None else alpha,
        target_modules="all-linear" if layers is None else fitting_layers(model, layers),
        task_type=TaskType.SEQ_2_SEQ_LM if is_text_to_text(model) else TaskType.SEQ_CLS,
    )
    with weights_from(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of a name of transformers that peft still asks for
        wrapped = get_peft_model(model, config)
    if frozen_a:
        for name, parameter in wrapped.named_parameters():
            if ".lora_A." in name:
                parameter.requires_grad_(False)
    return wrapped


def merge_lora(model: nn.Module) -> None:
    """Add the adapters to the weights, in place, so that the model inside peft's wrapper is a stock one again."""
    if is_lora(model):
        model.merge_and_unload()  # type: ignore[operator]


def is_lora(model: nn.Module) -> bool:
    """Whether the model is in peft's wrapper."""
    return hasattr(model, "merge_and_unload")


def stock_model(model: Any) -> PreTrainedModel:
    """The transformers model, which peft's wrapper may hold."""
    return model.get_base_model() if is_lora(model) else model


def merged_state(model: PeftModel) -> dict[str, Tensor]:
    """The state dict of the stock model with the adapters added to its weights; the model is unchanged."""
    base = model.get_base_model()
    adapter = model.active_adapter
    state = base.state_dict()
    for name, module in base.named_modules():
        if hasattr(module, "get_delta_weight"):
            key = f"{name}.base_layer.weight"
            state[key] = state[key] + module.get_delta_weight(adapter).to(state[key])
    found = {}
    for key, tensor in state.items():
        if ".lora_" in key or ".original_module." in key:
            continue
        found[key.replace(".base_layer.", ".").replace(f".modules_to_save.{adapter}.", ".")] = tensor
    return found
