"""Gradient norms of one layer over training: what is used, what would be exact, and what theory expects."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from wtacrs.estimators import Estimator, make
from wtacrs.estimators.core.errors import InputError
from wtacrs.figures.plots import norms as norms_figure
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad
from wtacrs.integration.layers.linear_layers import fitting_layers, layer_input
from wtacrs.integration.layers.verdicts import converted_class
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.studies.output import draw_or_remove
from wtacrs.integration.studies.runs import planned_runs, train_in
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.validation.dry_run import begin_work
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.norms import NormPoint, NormsResult
from wtacrs.validation.records.results import write_result, write_text
from wtacrs.validation.statistics.moments import closed_form

_POINTS = TypeAdapter(list[NormPoint])
# the first projection of the feed-forward part, as architectures call it
_FIRST_PROJECTIONS = (
    "*encoder*.wi",
    "*encoder*.wi_0",
    "*intermediate.dense",
    "*.fc1",
    "*.up_proj",
    "*.c_fc",
    "*.wi",
)


def norms_study(
    subject: Subject,
    config: FinetuneConfig,
    out: Path,
    *,
    layer: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> NormsResult:
    """Train with the dW of one layer estimated, and exactly from the same start; write the norms and their figure.

    Both runs see the same batches in the same order. Their dropout differs from the first draw of the estimator on.
    The folder receives `gradient_norms.json`, `gradient_norms.png` and the runs, `estimated/` and `exact/`; the
    same settings continue an interrupted study.

    Args:
        subject: task and model.
        config: how to train; its `estimator` is that of the layer.
        out: the folder.
        layer: name of the layer; default `default_layer`.
        overwrite: start anew whatever the folder holds.
        progress: show progress lines on stderr.

    Raises:
        InputError: on an unusable layer, estimator or folder, or as `finetune`.
    """
    if config.estimator is None:
        raise InputError("estimator='exact': a spec such as 'wta_crs(budget=0.3)' is needed; exact runs beside it")
    task = subject.load()
    model, _ = subject.open(task, config.seed)
    name = default_layer(model) if layer is None else layer
    check_layer(model, name)
    begin_work(
        f"{subject.name} on {task.name}: 2 runs of {config.steps} steps, gradient norms of {name}",
        *planned_runs([out / "exact", out / "estimated"], overwrite=overwrite),
        f"writes {out / 'gradient_norms.json'}",
    )
    results, points = {}, {}
    for run, changes in (("exact", {"estimator": None}), ("estimated", {"layers": (name,)})):
        observer = NormRecorder(name, out / run / "norms.json")
        results[run] = train_in(
            out / run,
            config.but(**changes),
            subject,
            task,
            overwrite=overwrite,
            observer=observer,
            progress=progress,
        )
        points[run] = observer.points
    estimator = make(config.estimator)
    inputs = subject.described | {"layer": name} | _settings(config)
    result = NormsResult(
        stamp=stamp(seed=config.seed, device=results["exact"].stamp.device, inputs=inputs),
        task=task.name,
        model=results["exact"].model,
        layer=name,
        estimator=repr(estimator),
        unbiased=estimator.traits.unbiased,
        metric=task.metrics[0],
        final=results["estimated"].final,
        final_exact=results["exact"].final,
        estimated=points["estimated"],
        exact=points["exact"],
    )
    write_result(out / "gradient_norms.json", result)
    draw_or_remove(partial(norms_figure.draw, result), out / "gradient_norms.png")
    return result


def default_layer(model: nn.Module) -> str:
    """The first feed-forward projection of the last block, of the encoder where there is one.

    Raises:
        InputError: if no layer has a name that is known to mean that.
    """
    for pattern in _FIRST_PROJECTIONS:
        try:
            return fitting_layers(model, [pattern])[-1]
        except InputError:
            continue
    raise InputError(f"layer: {type(model).__name__} has none of the known names of a feed-forward part; name one")


def check_layer(model: nn.Module, name: str) -> None:
    """Refuse what is no linear layer, or shares its weight with another module, whose gradient it would add.

    Raises:
        InputError: naming the layer.
    """
    modules = dict(model.named_modules())
    chosen = modules.get(name)
    if chosen is None or converted_class(chosen) is None:
        some = ", ".join(fitting_layers(model, ["*"])[:3])
        raise InputError(f"layer={name!r} is no linear layer of {type(model).__name__}; there are {some} …")
    sharing = [other for other, module in modules.items() if getattr(module, "weight", None) is chosen.weight]
    if len(sharing) > 1:
        raise InputError(f"layer={name!r} shares its weight with {sharing[0]!r}: its gradient is not its own")


class _Seen(NamedTuple):
    """One call of the layer: input rows, output gradient, and the scores in use."""

    x: Tensor
    dy: Tensor
    scores: Tensor | None


class NormRecorder:
    """Observer of a run that records a `NormPoint` of one layer at every step; kept in a file beside the state.

    Args:
        layer: name of the layer, converted or not.
        path: the file.
    """

    def __init__(self, layer: str, path: Path) -> None:
        self._name, self._path = layer, path
        self._seen: list[_Seen] = []
        self._layer: Any = None
        self.points: list[NormPoint] = []

    def started(self, model: nn.Module, step: int) -> None:
        """Watch the layer; points of steps that a resumed run will take again are dropped."""
        layer = model.get_submodule(self._name)
        if isinstance(layer, EstimatedWeightGrad):
            layer.min_elements = 0  # short batches are sampled too, so that all steps have one distribution
        self.points = [point for point in _read(self._path) if point.step <= step] if step else []
        if len(self.points) != step:
            raise InputError(f"resume: {self._path} holds {len(self.points)} of {step} steps; start anew")
        self._layer = layer
        layer.register_forward_hook(self._forward, with_kwargs=True)

    def gradients(self, step: int) -> None:
        """Measure the step."""
        assert self._layer is not None
        used = self._layer.weight.grad
        assert used is not None
        exact = sum((_exact(seen) for seen in self._seen), start=torch.zeros((), dtype=torch.float64))
        estimator = self._layer.estimator if isinstance(self._layer, EstimatedWeightGrad) else None
        size = float(exact.norm())
        self.points.append(
            NormPoint(
                step=step,
                used=float(used.double().norm()),
                exact=size,
                expected=size if estimator is None else _expected(estimator, self._seen, size),
            )
        )
        self._seen.clear()

    def saving(self) -> None:
        """Write the points before the state: a state without its points could not be resumed."""
        write_text(self._path, _POINTS.dump_json(self.points).decode() + "\n")

    def _forward(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        if not (layer.training and torch.is_grad_enabled() and output.requires_grad):
            return
        x = layer_input(layer, args, kwargs).detach()
        # the masks of padding are known during the forward pass alone
        scores = layer.scores_of(x) if isinstance(layer, EstimatedWeightGrad) else None
        rows = x.reshape(-1, x.shape[-1])
        output.register_hook(
            lambda dy: self._seen.append(_Seen(rows, dy.detach().reshape(-1, dy.shape[-1]), scores))
        )


def _exact(seen: _Seen) -> Tensor:
    return seen.dy.double().T @ seen.x.double()


def _expected(estimator: Estimator, calls: list[_Seen], exact: float) -> float | None:
    """`√E‖Ĝ‖²` of independent estimates that are added up; None without closed forms."""

    def norm() -> float:
        variance = sum(float(estimator.variance(s.x, s.dy, scores=s.scores)) for s in calls)
        if estimator.traits.unbiased:
            mean = exact
        else:
            mean = float(
                torch.stack([estimator.expectation(s.x, s.dy, scores=s.scores) for s in calls]).sum(0).norm()
            )
        return float((mean**2 + variance) ** 0.5)

    return closed_form(norm)


def _read(path: Path) -> list[NormPoint]:
    try:
        return _POINTS.validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"resume: {path} cannot be read ({type(error).__name__}); start anew") from None


def _settings(config: FinetuneConfig) -> dict[str, str]:
    return {key: str(getattr(config, key)) for key in ("steps", "epochs", "batch_size", "lr", "max_length")}
