"""What codes of activations add to the noise of a model's gradient, beside sampling and beside the minibatch's own.

Codes make noise in dX, which reaches all layers below: no captured layer shows it by itself. So whole models run: on
every batch an exact pass gives G_b, and `draws` passes of each variant, under the same dropout masks, give Ĝ_b. Of
unbiased variants ‖Ĝ_b − G_b‖² estimates the variance, which is set beside Σ ‖G_b − Ḡ‖² / (B − 1) as in
`wtacrs.validation.layers.noise`.

For codes alone the layers that sample are made to return the mean of their estimator, so that activations keep codes just
where they do in training.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from wtacrs.estimators import Estimator, InputError, WtacrsWarning, make
from wtacrs.estimators.core.sizing import budget_of
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.estimated_weight_grad import MIN_ELEMENTS
from wtacrs.integration.layers.lean.options import LeanOptions
from wtacrs.integration.measure.mean_gradient import MeanOf
from wtacrs.validation.layers.noise import noise_ratio
from wtacrs.validation.records.noise import LayerNoise

Gradients = dict[str, Tensor]


def lean_noise(
    model: nn.Module,
    batches: Sequence[Mapping[str, Any]],
    lean: Sequence[LeanOptions],
    estimators: Sequence[Estimator | str],
    *,
    draws: int = 8,
    seed: int = 0,
    min_elements: int = MIN_ELEMENTS,
    report: Callable[[int, int], None] | None = None,
) -> list[LayerNoise]:
    """Variance over minibatch variance of every layer's dW: by sampling alone, by codes alone, and by both.

    The gradients of all batches are held at once. torch's random numbers and the model are afterwards what they were.

    Args:
        model: stock, in training mode; its output has a `loss`.
        batches: at least two, keyword arguments of its forward pass.
        lean: options with `bits`.
        estimators: unbiased, with a closed form of their mean.
        draws: passes of each variant on every batch, ≥ 2.
        seed: of dropout and draws.
        min_elements: as in `approximate_`.
        report: called with how many passes are done, and how many there are.

    Returns:
        Rows for every layer that gets a gradient of its own, not tied to another module's. `estimator` names a variant:
        "8-bit", "wta_crs(budget=0.3) + neighbours" (lean without codes, which adds nothing to sampling) or
        "wta_crs(budget=0.3) + 8-bit".

    Raises:
        InputError: on fewer than two batches or draws, options without bits, and biased estimators.
    """
    if len(batches) < 2:
        raise InputError(f"batches: {len(batches)}; the noise between batches needs at least two")
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 2:
        raise InputError(f"draws={draws!r} must be an integer ≥ 2")
    made = [make(estimator) for estimator in estimators]
    if not made:
        raise InputError("estimators: at least one is needed")
    for estimator in made:
        if not estimator.traits.unbiased:
            raise InputError(f"estimator={estimator!r} is biased: its squared error is no variance")
    for asked in lean:
        if asked.bits is None:
            raise InputError(f"lean={str(asked)!r} has no codes: name 8-bit or 4-bit")
    exact = [_gradients(model, batch, seed + number) for number, batch in enumerate(batches)]
    variants = list(_variants(made, lean))
    rows: list[LayerNoise] = []
    passes = len(variants) * len(batches) * draws
    for count, (text, estimator, options, source) in enumerate(variants):
        errors: dict[str, list[list[float]]] = {}
        with _converted(model, estimator, options, seed, min_elements) as names:
            for number, batch in enumerate(batches):
                for draw in range(draws):
                    found = _gradients(model, batch, seed + number)
                    for name in (name for name in names if f"{name}.weight" in found):
                        error = found[f"{name}.weight"] - exact[number][f"{name}.weight"]
                        batchwise = errors.setdefault(name, [[] for _ in batches])
                        batchwise[number].append(float(error.square().sum()))
                    if report is not None:
                        report((count * len(batches) + number) * draws + draw + 1, passes)
        rows += [
            _row(name, text, source, [g[f"{name}.weight"] for g in exact], squares, draws)
            for name, squares in errors.items()
            if all(squares)
        ]
    return rows


@contextmanager
def _converted(
    model: nn.Module, estimator: Estimator, options: LeanOptions, seed: int, min_elements: int
) -> Iterator[list[str]]:
    """The model as a variant; that copies may be more than what they free is no matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WtacrsWarning)
        try:
            yield approximate_(model, estimator, lean=options, seed=seed, min_elements=min_elements)
        finally:
            restore_(model)


def _variants(
    estimators: Sequence[Estimator], lean: Sequence[LeanOptions]
) -> Iterator[tuple[str, Estimator, LeanOptions, Estimator | None]]:
    """Name, what layers sample by, options, and the estimator whose budget it is."""
    for options in lean:
        yield str(options), MeanOf(estimators[0]), options, None
    for options in dict.fromkeys([*(replace(options, bits=None) for options in lean), *lean]):
        for estimator in estimators:
            yield f"{estimator!r} + {options}", estimator, options, estimator


def _gradients(model: nn.Module, batch: Mapping[str, Any], seed: int) -> Gradients:
    """Gradients of one pass in fp64, under the dropout of a seed."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.manual_seed(seed)
        found = torch.autograd.grad(model(**batch).loss, list(parameters.values()), allow_unused=True)
    return {name: g.double() for name, g in zip(parameters, found, strict=True) if g is not None}


def _row(
    layer: str,
    text: str,
    estimator: Estimator | None,
    exact: Sequence[Tensor],
    squares: Sequence[Sequence[float]],
    draws: int,
) -> LayerNoise:
    mean = torch.stack(list(exact)).mean(0)
    deviations = [float((g - mean).square().sum()) for g in exact]
    variances = [fmean(batch) for batch in squares]
    spread = [stdev(batch) / math.sqrt(draws) for batch in squares]
    unit = sum(deviations) / (len(deviations) - 1)
    budget = None if estimator is None else budget_of(estimator)
    return LayerNoise(
        layer=layer,
        estimator=text,
        budget=budget,
        row_fraction=budget if isinstance(budget, float) else None,
        scores="row-norms",
        method="monte carlo",
        ratio=noise_ratio(variances, deviations),
        bias_ratio=0.0,
        persistent_ratio=0.0,
        ratio_error=math.hypot(*spread) / len(spread) / unit,
        deviations=deviations,
        variances=variances,
        variance_errors=spread,
        biases_squared=[0.0] * len(deviations),
        draws=draws,
        sizes=[float(g.square().sum()) for g in exact],
    )
