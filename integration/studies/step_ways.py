"""Ways to take a training step that are compared, measured (`study front`) and simulated (`simulate --all-ways`)."""

from __future__ import annotations

from wtacrs.validation.records.front import Way

LORA_RANK = 8
FEW_ROWS = "wta_crs(budget=0.1)"
_SAMPLED = ("wta_crs(budget=0.3)", FEW_ROWS)
_LEAN = ("neighbours", "attention,head")
_AGAIN = "attention-again,head-again"


def default_ways() -> list[Way]:
    """What is compared: stock, adapters, checkpointing, a compiler's budget, sampling, lean neighbours, and both."""
    stock = [Way(), Way(attention="sdpa"), Way(checkpointing=True)]
    adapters = [
        Way(lora_rank=LORA_RANK),
        Way(lora_rank=LORA_RANK, checkpointing=True),
        Way(lora_rank=LORA_RANK, lean="attention,head"),
        *(Way(lora_rank=LORA_RANK, lean=lean, estimator=FEW_ROWS) for lean in ("attention,head", _AGAIN)),
    ]
    sampled = [Way(estimator=spec) for spec in _SAMPLED]
    lean = [Way(lean=words) for words in (*_LEAN, _AGAIN)]
    both = [Way(lean=words, estimator=spec) for words in ("attention,head", _AGAIN) for spec in _SAMPLED]
    quick = [Way(lean=f"{_AGAIN},quick-dropout", estimator=FEW_ROWS)]
    recomputed = [Way(lean="head-again", checkpointing=True)]
    return [*stock, *sampled, *lean, *both, *quick, *recomputed, *adapters]


def simulated_ways() -> list[Way]:
    """The same without what cannot be simulated, and with offloading, which needs a device to show anything."""
    ways = [way for way in default_ways() if way.attention == "eager" and way.memory_budget is None]
    return [*ways, Way(offload=True)]
