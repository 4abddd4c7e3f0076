"""Simulated bytes beside the allocator of CUDA."""

from __future__ import annotations

import pytest
import torch

from wtacrs.integration.measure.memory import loss_of, without_cache
from wtacrs.integration.measure.simulation.step import Shape, example_batch, simulate_step
from wtacrs.integration.models.published_sizes import config_of, model_from

pytest.importorskip("transformers")
ALLOWED = (0.9, 1.15)
"""Ratios of what CUDA gives out to what is simulated: its blocks are rounded up, and its kernels have buffers."""


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["t5-small", "gpt2"])
def test_the_peak_is_near_that_of_the_allocator(name: str) -> None:
    sizes = {"batch_size": 16, "length": 128}
    config = config_of(name)
    for option in ("dropout_rate", "resid_pdrop", "embd_pdrop", "attn_pdrop"):  # whose masks differ by device
        if hasattr(config, option):
            setattr(config, option, 0.0)
    simulated = simulate_step(config, **sizes, optimizer="adamw-foreach").step
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    model = model_from(config).cuda()
    shape = Shape(16, 128, 128 if config.is_encoder_decoder else None)
    batch = {key: value.cuda() for key, value in example_batch(model, shape).items()}
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    with without_cache(model):
        for _ in range(2):
            torch.cuda.reset_peak_memory_stats()
            loss_of(model, batch, "fp32").backward()
            optimizer.step()
            optimizer.zero_grad()
    measured = torch.cuda.max_memory_allocated() - before
    assert ALLOWED[0] <= measured / simulated.peak <= ALLOWED[1], (measured, simulated.peak)
