"""The noise that a choice adds to the gradients of a block, over the noise that the minibatch has anyway.

Both are sums over layers, as in `wtacrs.validation.layers.noise`: E‖dŴ − dW‖² of the layers of the block over
Σ ‖G_b − Ḡ‖² / (B − 1) of all layers of the model. Draws of different layers are independent: noise of blocks adds up.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from wtacrs.estimators import make
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.sizing import rows_kept
from wtacrs.integration.layers.blocks import blocks_of
from wtacrs.integration.layers.estimated_weight_grad import MIN_ELEMENTS
from wtacrs.integration.measure.capture import capture
from wtacrs.integration.planning.costs import Noise
from wtacrs.validation.layers.captures import Captures, load_captures
from wtacrs.validation.layers.noise import layer_entries, layer_noise
from wtacrs.validation.records.plan import Choice

_ROWS = 1_000_000
"""Of an input so long that a share of the rows is told by a number of them."""


def captured_noise(model: nn.Module, batches: Sequence[Mapping[str, Tensor]], estimators: Sequence[str]) -> Noise:
    """Noise by the closed form of the variance, on layers that are captured in training mode.

    Args:
        model: stock; it is left in its mode.
        batches: two or more, as `capture` takes them.
        estimators: specs of the choices.

    Raises:
        InputError: on fewer than two batches, and as `capture` and `layer_noise`.
    """
    mode = model.training
    with tempfile.TemporaryDirectory() as folder:
        try:
            with torch.random.fork_rng(devices=[]):
                found = capture(model.train(), batches, Path(folder) / "captures.safetensors")
        finally:
            model.train(mode)
        return noise_of_captures(load_captures(found.path), list(blocks_of(model)), estimators)


def noise_of_captures(captures: Captures, blocks: Sequence[str], estimators: Sequence[str]) -> Noise:
    """`captured_noise` of layers that are captured already.

    Layers that were not captured in every batch add nothing. Neither do inputs that are too small to be sampled.

    Raises:
        InputError: as `layer_noise`, and if no layer was captured in every batch.
    """
    specs = [repr(make(spec)) for spec in estimators]
    entries = layer_entries(captures)
    batches = list(dict.fromkeys(batch for found in entries.values() for batch in found))
    unit = 0.0
    errors: dict[tuple[str, str], float] = {}
    for layer, found in entries.items():
        if len(found) < len(batches):
            continue
        groups = [found[batch] for batch in batches]
        rows = layer_noise(layer, captures, groups, specs or ["exact"], scores=("row-norms",))
        unit += sum(rows[0].deviations) / (len(batches) - 1)
        block = next((name for name in blocks if layer.startswith(f"{name}.")), None)
        if block is None or captures[groups[0][0]].x.numel() < MIN_ELEMENTS:
            continue
        for spec, row in zip(specs, rows, strict=False):
            error = (sum(row.variances) + sum(row.biases_squared)) / len(batches)
            errors[block, spec] = errors.get((block, spec), 0.0) + error
    if unit == 0.0:
        raise InputError("batches: no layer was captured in every one of them")

    def noise(block: str, choice: Choice) -> float:
        return 0.0 if choice.estimator is None else errors.get((block, choice.estimator), 0.0) / unit

    return noise


def independent_rows_noise(model: nn.Module) -> Noise:
    """Noise by a general law, for a model of which no layer is captured.

    If rows are independent and their gradients have mean zero, the minibatch's variance is Σ ‖x_i‖²‖dy_i‖², and a sample
    of k of n rows, all alike, has n/k − 1 times that. Blocks count by their numbers that train.
    """
    sizes = {name: _trained(block) for name, block in blocks_of(model).items()}
    whole = max(_trained(model), 1)

    def noise(block: str, choice: Choice) -> float:
        if choice.estimator is None:
            return 0.0
        kept = rows_kept(make(choice.estimator), _ROWS)
        if kept is None:
            raise InputError(f"estimator={choice.estimator!r} keeps no rows: its noise is known by captures alone")
        return (_ROWS / kept - 1.0) * sizes[block] / whole

    return noise


def _trained(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
