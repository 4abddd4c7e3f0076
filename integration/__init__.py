"""Plug an estimator into real models: autograd, Hugging Face models, capture, training, the command line.

>>> from torch import nn
>>> from wtacrs.integration import approximate_, restore_
>>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
>>> approximate_(model, {"0": "wta_crs(budget=0.3)"})
['0']
>>> restore_(model)
['0']

The names below are imported when they are first asked for: the package itself loads neither transformers nor matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wtacrs.integration.context.forward_context import ForwardContext
    from wtacrs.integration.context.sampling_state import load_sampling_state, sampling_state
    from wtacrs.integration.layers.convert import approximate_, restore_
    from wtacrs.integration.layers.lean.convert import lean_
    from wtacrs.integration.layers.lean.options import LeanOptions
    from wtacrs.integration.layers.linear import ApproxLinear
    from wtacrs.integration.layers.planned import load_plan
    from wtacrs.integration.measure.capture import capture
    from wtacrs.integration.measure.track_memory import track_memory
    from wtacrs.integration.training.callback import WtacrsCallback
    from wtacrs.integration.training.config import FinetuneConfig
    from wtacrs.integration.training.run import finetune

__all__ = [
    "ApproxLinear",
    "FinetuneConfig",
    "ForwardContext",
    "LeanOptions",
    "WtacrsCallback",
    "approximate_",
    "capture",
    "finetune",
    "lean_",
    "load_plan",
    "load_sampling_state",
    "restore_",
    "sampling_state",
    "track_memory",
]

_MODULES = {
    "ApproxLinear": "layers.linear",
    "FinetuneConfig": "training.config",
    "ForwardContext": "context.forward_context",
    "LeanOptions": "layers.lean.options",
    "WtacrsCallback": "training.callback",
    "approximate_": "layers.convert",
    "capture": "measure.capture",
    "finetune": "training.run",
    "lean_": "layers.lean.convert",
    "load_plan": "layers.planned",
    "load_sampling_state": "context.sampling_state",
    "restore_": "layers.convert",
    "sampling_state": "context.sampling_state",
    "track_memory": "measure.track_memory",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
