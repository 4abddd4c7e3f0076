"""Estimators side by side on real layers, at equal rows and at equal bytes.

Moments are relative to ‖G‖². Beside bias², variance and mean squared error of one step stand two numbers that tell what
they mean for training: the error of the mean of T steps, `bias² + variance / T`, in which the bias stays, and the cosine
with the exact gradient, `⟨EĜ, G⟩ / (‖G‖ (E‖Ĝ‖²)^½)`, a ratio of moments and so in closed form wherever they are.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from wtacrs.estimators import Estimator, InputError, make, saved_bytes, spec
from wtacrs.estimators.core.checks import check_rows_agree
from wtacrs.estimators.core.products import double_product
from wtacrs.estimators.core.sizing import budget_of, sizeless
from wtacrs.validation.layers.candidates import Candidate, fitted, stored_bytes
from wtacrs.validation.layers.captures import Captures, LayerCapture, on_device
from wtacrs.validation.layers.scores import LayerLike, default_scores, layer_scores, stream_name
from wtacrs.validation.properties.external_estimators import ExternalEstimator, ExternalLinear, seeded
from wtacrs.validation.properties.macs import stated_macs
from wtacrs.validation.properties.saved_for_backward import bytes_for_backward
from wtacrs.validation.records.base import ScoreKind
from wtacrs.validation.records.compare import ComparisonRow
from wtacrs.validation.runner import Runner, Task, TaskOutput, code_mark, file_mark, generator_for
from wtacrs.validation.statistics.moments import Moments, Product, moments

STEPS = 100
DRAWS = 32
_LARGE = 2**22


class ZeroProduct(InputError):
    """The exact product is zero, so that nothing can be expressed relative to it."""


def exact_product(layer: str, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"]) -> Float64[Tensor, "m d"]:
    """`dy.T @ x` in fp64, fit to be the unit of relative moments.

    Raises:
        ZeroProduct: if it is zero.
        InputError: if it is not finite.
    """
    check_rows_agree(x, dy)
    product = double_product(x, dy)
    size = float(product.norm())
    if not math.isfinite(size):
        raise InputError(f"layer {layer!r}: x or dy holds NaN or infinite values")
    if size == 0.0:
        raise ZeroProduct(f"layer {layer!r}: the exact product is zero, nothing can be measured relative to it")
    return product


_NOISE = 5.0
"""Standard errors up to which a measured bias² of an estimator that is said to be unbiased counts as none."""


@dataclass(frozen=True)
class ComparisonConfig:
    """How every candidate is measured.

    Attributes:
        scores: kinds of scores.
        steps: T of the error of the mean of T steps.
        draws: Monte Carlo draws where there is no closed form, ≥ 3.
        seed: of the draws.
        device: where the products are computed.
    """

    scores: tuple[ScoreKind, ...]
    steps: int = STEPS
    draws: int = DRAWS
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.scores:
            raise InputError("scores must name at least one kind of scores")
        for name, least in (("steps", 1), ("draws", 3)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name}={value!r} must be an integer ≥ {least}")


def _error_of_mean(estimator: Estimator, found: Moments, steps: int) -> float:
    """`bias² + variance / steps`; a measured bias² is noise where an estimator is said to be unbiased and it is small."""
    noise = estimator.traits.unbiased and found.bias_squared <= _NOISE * (found.bias_squared_error or 0.0)
    return (0.0 if noise else max(found.bias_squared, 0.0)) + found.variance / steps


def _cosine(found: Moments, unit: float) -> tuple[float, float | None]:
    """Cosine of moments and at most its standard error: `E‖Ĝ‖² = MSE + 2⟨EĜ, G⟩ − ‖G‖²`."""
    second = max(found.mse + 2 * found.inner - unit, 0.0)
    if second == 0.0:
        return 0.0, None if found.mse_error is None else 0.0
    cosine = found.inner / math.sqrt(unit * second)
    if found.mse_error is None or found.inner_error is None:
        return cosine, None
    by_inner = abs(1 / math.sqrt(unit * second) - cosine / second) * found.inner_error
    return cosine, by_inner + abs(cosine) / (2 * second) * found.mse_error


@torch.no_grad()
def compare_layer(
    layer: str, capture: LayerLike, candidates: Iterable[Candidate | Estimator | str], config: ComparisonConfig
) -> list[ComparisonRow]:
    """Moments relative to ‖G‖², stored bytes and macs of every candidate, for every kind of scores.

    A candidate that ignores scores is listed once, under the first kind; one that does not fit its bytes not at all. The
    numbers of a row depend on the layer, the candidate, the scores and the config, not on the other rows. Memory: x and
    dy, a few matrices of the size of the product, and what the estimator takes.

    Args:
        layer: name for the table and the messages.
        capture: x, dy, mask, and for stale scores the earlier norms.
        candidates: an estimator or its spec, or a `Candidate`.
        config: how they are measured.

    Raises:
        ZeroProduct: if the exact product is zero.
        InputError: on unusable input or specs.
    """
    whole = on_device(capture, config.device)
    unpadded: LayerCapture | None = None
    rows: list[ComparisonRow] = []
    products: dict[bool, Tensor] = {}
    for given in candidates:
        candidate = _candidate(given)
        if candidate.share is not None and unpadded is None:
            unpadded = _without_padding(whole)
        data = whole if candidate.share is None or unpadded is None else unpadded
        estimator = _estimator(candidate, data)
        if estimator is None:
            continue
        exact = products.get(candidate.share is None)
        if exact is None:
            exact = products[candidate.share is None] = exact_product(layer, data.x, data.dy)
        for kind in config.scores if estimator.traits.uses_scores else config.scores[:1]:
            rows.append(_row(layer, data, estimator, candidate, kind, exact, config))
    return rows


def _row(
    layer: str,
    data: LayerCapture,
    estimator: Estimator,
    candidate: Candidate,
    kind: ScoreKind,
    exact: Float64[Tensor, "m d"],
    config: ComparisonConfig,
) -> ComparisonRow:
    x, dy = data.x, data.dy
    n, d, m = *x.shape, dy.shape[1]
    name = spec(estimator)
    scores = layer_scores(kind, x, dy, data.mask, data.stale, layer=layer)
    generator = generator_for(config.seed, f"{layer} {name} {stream_name(kind)} {candidate.share}", x.device)
    found = moments(estimator, [Product(x, dy, scores)], target=exact, draws=config.draws, generator=generator)
    unit = float(exact.square().sum())
    cosine, cosine_error = _cosine(found, unit)
    return ComparisonRow(
        layer=layer,
        estimator=name,
        requested=candidate.text,
        bytes_share=candidate.share,
        budget=budget_of(name if isinstance(estimator, ExternalEstimator) else estimator),
        scores=kind,
        n=n,
        d=d,
        m=m,
        bias_squared=found.bias_squared / unit,
        variance=found.variance / unit,
        mse=found.mse / unit,
        steps=config.steps,
        mse_of_mean=_error_of_mean(estimator, found, config.steps) / unit,
        cosine=cosine,
        method=found.method,
        draws=found.draws,
        bias_squared_error=_relative(found.bias_squared_error, unit),
        variance_error=_relative(found.variance_error, unit),
        mse_error=_relative(found.mse_error, unit),
        cosine_error=cosine_error,
        saved_bytes=_bytes(estimator, x, m),
        exact_bytes=x.numel() * x.element_size(),
        macs=stated_macs(estimator, n, d, m),
        exact_macs=n * d * m,
    )


def _estimator(candidate: Candidate, data: LayerCapture) -> Estimator | None:
    if candidate.share is None:
        return make(candidate.estimator)
    n, d = data.x.shape
    return fitted(candidate.estimator, candidate.share, (n, d), data.x.dtype) if n else None


def _without_padding(capture: LayerCapture) -> LayerCapture:
    kept = capture.mask
    stale = None if capture.stale is None else capture.stale[kept]
    return LayerCapture(capture.x[kept].to(torch.bfloat16), capture.dy[kept], kept[kept], stale)


def _bytes(estimator: Estimator, x: Float[Tensor, "n d"], m: int) -> int:
    """Bytes kept of x: its shape alone decides; a large x is not compressed for that.

    Of an external layer those are measured that its forward pass keeps. An external product is called in the backward
    pass, and needs x whole until then.
    """
    if isinstance(estimator, ExternalLinear):
        with seeded(0):
            return bytes_for_backward(estimator.module(x.shape[1], m, x.dtype).to(x.device), x)
    if isinstance(estimator, ExternalEstimator):
        return x.numel() * x.element_size()
    if x.numel() > _LARGE:
        return stored_bytes(estimator, (x.shape[0], x.shape[1]), x.dtype)
    return saved_bytes(estimator.compress(x, generator=torch.Generator(x.device).manual_seed(0)))


def _relative(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def median_macs(rows: Iterable[ComparisonRow]) -> float | None:
    """Median of the macs relative to exact, over the rows that state them; None if none does."""
    stated = [share for row in rows if (share := row.relative_macs) is not None]
    return median(stated) if stated else None


def compare(
    captures: Mapping[str, LayerLike],
    candidates: Iterable[Candidate | Estimator | str],
    *,
    layers: Sequence[str] | None = None,
    scores: Sequence[ScoreKind] | None = None,
    steps: int = STEPS,
    draws: int = DRAWS,
    seed: int = 0,
    device: str = "cpu",
    runner: Runner | None = None,
) -> list[ComparisonRow]:
    """`compare_layer` over captured layers.

    Args:
        captures: layer name to x, dy and mask.
        candidates: estimators, their specs, or what `candidates_from` makes of them.
        layers: which layers; all if None.
        scores: kinds of scores; `default_scores` of the chosen layers if None.
        steps: T of the error of the mean of T steps.
        draws: Monte Carlo draws where there is no closed form.
        seed: of the draws.
        device: where the products are computed.
        runner: processes, machines, resumption and progress; a layer whose exact product is zero is skipped.

    Raises:
        InputError: on an unknown layer, unusable input or specs.
    """
    chosen = list(captures) if layers is None else list(layers)
    for layer in chosen:
        if layer not in captures:
            raise InputError(f"layer {layer!r} is not among the captured layers: {', '.join(captures)}")
    kinds = tuple(default_scores(captures, chosen) if scores is None else scores)
    config = ComparisonConfig(kinds, steps, draws, seed, device)
    groups = _by_estimator([_candidate(given) for given in candidates])
    runner = Runner(skipped=_warn) if runner is None else runner
    return runner.run(
        ComparisonRow, [_task(captures, layer, group, config) for layer in chosen for group in groups]
    )


def _candidate(given: Candidate | Estimator | str) -> Candidate:
    return given if isinstance(given, Candidate) else Candidate(make(given))


def _by_estimator(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Pieces small enough to go on from, large enough to share the exact product: one per estimator."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(sizeless(candidate.estimator), []).append(candidate)
    return list(groups.values())


def _task(
    captures: Mapping[str, LayerLike], layer: str, candidates: Sequence[Candidate], config: ComparisonConfig
) -> Task[ComparisonRow]:
    source: Mapping[str, LayerLike] = captures if isinstance(captures, Captures) else {layer: captures[layer]}
    mark = file_mark(captures.path) if isinstance(captures, Captures) else "memory"
    mark += code_mark(candidate.estimator for candidate in candidates)
    return Task(
        key=f"compare {mark} {layer} {config} {[(candidate.text, candidate.share) for candidate in candidates]}",
        work=_compared,
        arguments=(source, layer, tuple(candidates), config),
        label=layer,
    )


def _compared(
    captures: Mapping[str, LayerLike], layer: str, candidates: Sequence[Candidate], config: ComparisonConfig
) -> TaskOutput[ComparisonRow]:
    try:
        return TaskOutput(records=tuple(compare_layer(layer, captures[layer], candidates, config)))
    except ZeroProduct as reason:
        return TaskOutput(skipped=str(reason))
    except Exception as error:
        theirs = next((c.text for c in candidates if isinstance(c.estimator, ExternalEstimator)), None)
        if theirs is None or isinstance(error, InputError):
            raise
        return TaskOutput(skipped=f"{theirs} on {layer}: it raises {type(error).__name__}: {error}")


def _warn(layer: str, reason: str) -> None:
    del layer
    warnings.warn(f"skipped: {reason}", stacklevel=2)
