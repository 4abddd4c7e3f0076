"""How the callbacks of training frameworks convert a model, take the conversion off and put it on again, and measure."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Container, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from torch import nn

from wtacrs.estimators import Estimator, InputError, WtacrsWarning
from wtacrs.estimators.core.mask_floor import MASK_FLOOR
from wtacrs.integration.context.mask_watch import MaskedGradient, check_masked_gradient
from wtacrs.integration.context.sampling_state import (
    agreed_sampling_state,
    load_sampling_state,
    misled_layers,
    sampling_state,
)
from wtacrs.integration.layers.choice import made_of_argument
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.estimated_weight_grad import (
    MIN_ELEMENTS,
    EstimatedWeightGrad,
    check_mask_floor,
    checked_budget_of,
)
from wtacrs.integration.layers.lean.convert import LeanConversion, lean_
from wtacrs.integration.layers.lean.head import LeanHead
from wtacrs.integration.layers.lean.options import LeanOptions
from wtacrs.integration.layers.least_elements import checked_min_elements, checked_min_rows
from wtacrs.integration.layers.linear_layers import filter_of
from wtacrs.integration.measure.kept_bytes import (
    KeptBytes,
    KeptBytesProbe,
    LayerBytes,
    lean_receipt,
    training_layers,
)
from wtacrs.integration.score_memory.gradient_norms import GradientNorms, gradient_norms_of
from wtacrs.integration.score_memory.kinds import make_gradient_norms
from wtacrs.validation.arguments import check_flag, checked_integer, known_keywords
from wtacrs.validation.patterns import checked_patterns
from wtacrs.validation.records.plan import BlockChoices, Plan
from wtacrs.validation.records.receipt import Receipt, receipt_lines
from wtacrs.validation.seeds import checked_seed

logger = logging.getLogger(__name__)


class LayerConversion(NamedTuple):
    """How a layer is converted: its estimator's spec, and arguments of `approximate_`."""

    spec: str
    min_elements: int
    mask_floor: float = MASK_FLOOR
    share_inputs: bool = True
    min_rows: int = 0
    budget_of: str = "all-rows"


_ARGUMENTS = (
    "estimator", "layers", "min_elements", "min_rows", "measure_every", "scores", "share_inputs", "seed", "mask_floor",
    "budget_of", "masked_gradient", "lean",
)  # fmt: skip


class TrainingConversion:
    """A conversion that is on while a framework trains, and off wherever it evaluates, saves or has ended.

    The state of the draws survives that, and goes into the framework's checkpoint with what is converted and how.

    Args:
        estimator: a spec such as `"wta_crs(budget=0.3)"`, or None for a model that `approximate_` has converted already,
            each layer perhaps in its own way.
        layers: patterns of the names of the layers that are converted (`*`, `?`, `[]`); None for all.
        min_elements: inputs with fewer numbers than this take the exact path (see `EstimatedWeightGrad`).
        min_rows: inputs with fewer rows than this take it too.
        measure_every: steps between measurements; None for none.
        seed: of the layers' random numbers; None for that of `TrainingArguments`.
        scores: as in `approximate_`: a name, or a memory of gradient norms. What it remembers is not in the checkpoint: a
            run that is resumed learns it anew, which is logged, and is then no bit-by-bit continuation.
        share_inputs: as in `approximate_`.
        mask_floor: as in `approximate_`.
        budget_of: as in `approximate_`.
        masked_gradient: as in `approximate_`.
        lean: what neighbours of linear layers keep less of, as in `approximate_`, from the beginning of training to its
            end; Trainer evaluates and saves as with stock ones. False leaves them as they are: a model that `lean_` has
            converted before stays lean.
        plan: a `Plan`, or `BlockChoices`, in place of an estimator: what is done with every block.

    Attributes:
        conversion: the converted layers.
        misled: layers that use no mask any more since rows called padding carried gradient, with the share of ‖dY‖²; as
            of the last log, evaluation or checkpoint.
        measured: bytes by layer, of the last measurement; empty before the first.
        receipt: what the conversion promised to keep beside what is kept, of the first measurement, which logs it too.

    Raises:
        InputError: on an unusable spec, number or pattern, here; when training begins, if there is nothing to convert, if
            the checkpoint was trained otherwise, or if the model is replicated in one process (`nn.DataParallel`).
    """

    checkpoint_argument = "resume_from_checkpoint"
    """What messages call the checkpoint that training is resumed from."""

    @known_keywords
    def __init__(
        self,
        estimator: str | Estimator | None = None,
        *,
        layers: Sequence[str] | None = None,
        min_elements: int = MIN_ELEMENTS,
        min_rows: int = 0,
        measure_every: int | None = 500,
        scores: str | GradientNorms = "row-norms",
        share_inputs: bool = True,
        seed: int | None = None,
        mask_floor: float = MASK_FLOOR,
        budget_of: str = "all-rows",
        masked_gradient: MaskedGradient = "warn",
        lean: bool | str | LeanOptions = False,
        plan: Plan | BlockChoices | Mapping[str, Any] | None = None,
    ) -> None:
        self.plan = _choices(plan)
        if self.plan is not None and (estimator is not None or layers is not None or lean is not False):
            raise InputError(
                "plan: with it estimator, layers and lean must be left out: it says them of every block"
            )
        if measure_every is not None:
            measure_every = checked_integer(measure_every, "measure_every", least=1, or_none=True)
        if estimator is None and layers is not None:
            raise InputError("layers: need an estimator; without one the model's own conversion is kept")
        self.estimator = None if estimator is None else repr(made_of_argument(estimator))
        self.layers = None if layers is None else checked_patterns(layers)
        self.min_elements, self.min_rows = checked_min_elements(min_elements), checked_min_rows(min_rows)
        self.measure_every = measure_every
        check_mask_floor(mask_floor)
        check_masked_gradient(masked_gradient)
        self.seed = None if seed is None else checked_seed(seed)
        self.mask_floor, self.masked_gradient = mask_floor, masked_gradient
        self.budget_of = checked_budget_of(budget_of)
        check_flag(share_inputs, "share_inputs")
        self.share_inputs = share_inputs
        memory = make_gradient_norms(scores)
        self.scores = "row-norms" if memory is None else memory.kind
        if memory is not None and estimator is None and self.plan is None:
            raise InputError(f"scores={self.scores!r}: need an estimator or a plan that samples by them")
        options = LeanOptions.of(lean)
        self.lean: str | Literal[False] = False if options is None else str(options)
        self._neighbours: LeanConversion | None = None
        self.conversion: dict[str, LayerConversion] = {}
        self.misled: dict[str, float] = {}
        self._sampling: dict[str, Any] | None = None
        self._memory = memory
        self.measured: dict[str, LayerBytes] = {}
        self.receipt: Receipt | None = None
        self._probe: KeptBytesProbe | None = None
        self._unmeasured: str | None = None
        self._converted = False
        self._to_log: dict[str, float] = {}

    def conversion_state(self) -> dict[str, Any]:
        """What a checkpoint keeps: arguments, the converted layers, and what their draws depend on."""
        conversion = {name: list(entry) for name, entry in self.conversion.items()}
        return {
            "args": {name: getattr(self, name) for name in _ARGUMENTS}
            | {"plan": None if self.plan is None else self.plan.model_dump(mode="json")},
            "attributes": {"conversion": conversion, "_sampling": self._sampling},
        }

    def begin(self, model: nn.Module, seed: int, *, step: int, known: Mapping[str, Any] | None) -> None:
        """Convert for the first time.

        Args:
            model: stock, or converted already where there is no estimator.
            seed: of the draws, unless the conversion has its own.
            step: optimizer steps that were taken before.
            known: of a run that is resumed, what `conversion_state` gave; None if its checkpoint has nothing.

        Raises:
            InputError: if there is nothing to convert, or the run was trained otherwise.
        """
        self._convert_first(model, seed if self.seed is None else self.seed)
        if step > 0:
            self._check_resumed(known, step, model)
        trained = training_layers(model)
        by = self._specs() if self.plan is None else [str(self.plan)]
        how = " and ".join(by) or "estimates"
        logger.info("wtacrs: %d layers by %s%s", len(trained), how, f", lean {self.lean}" if self.lean else "")
        if not trained and self._neighbours is None and self.plan is None:
            logger.warning(
                "wtacrs: %d layers are converted, and none has a weight that trains by estimates: nothing is saved",
                len(self.conversion),
            )

    def begin_step(self, model: nn.Module, step: int) -> None:
        """Convert again after an evaluation or a checkpoint, and measure when it is time to."""
        self.convert(model)
        if self.measure_every is not None and step % self.measure_every == 0:
            self._probe = KeptBytesProbe(model)

    def take_measurement(self) -> None:
        """Note what was measured since the step has begun, for the next log."""
        if self._probe is None:
            return
        probe, self._probe = self._probe, None
        probe.remove()
        if probe.found is not None:
            self.measured, self._to_log = probe.found.layers, _to_log(probe.found)
            if self.receipt is None:
                self.receipt = lean_receipt(probe.found.receipt, self.lean or None, self._neighbours)
                for line in receipt_lines(self.receipt):
                    logger.info("wtacrs: %s", line)
        elif probe.reason != self._unmeasured:
            self._unmeasured = probe.reason
            logger.warning("wtacrs: kept bytes are not measured: %s", probe.reason)

    def log_entries(self, model: nn.Module | None) -> dict[str, float]:
        """What is to be logged now, once."""
        if self._converted and model is not None:
            self.misled = misled_layers(model)
        entries, self._to_log = dict(self._to_log), {}
        return entries | ({"wtacrs_misled_layers": len(self.misled)} if self.misled else {})

    def end(self, model: nn.Module) -> None:
        """Give the stock model back."""
        self.take_off(model)
        if self._neighbours is not None:
            restore_(model)

    def _convert_first(self, model: nn.Module, seed: int) -> None:
        if self.lean:
            self._neighbours = lean_(model, **LeanOptions.parse(self.lean).arguments())
        if self.plan is not None:
            self._convert_planned(model, self.plan, seed)
        elif self.estimator is not None:
            approximate_(
                model,
                self.estimator,
                filter_fn=filter_of(model, self.layers),
                seed=seed,
                **self._options(),
            )
        self._memory = gradient_norms_of(model)
        self.conversion = {
            name: _conversion_of(layer)
            for name, layer in model.named_modules()
            if isinstance(layer, EstimatedWeightGrad | LeanHead) and layer.estimator is not None
        }
        if not self.conversion and self._neighbours is None and self.plan is None:
            raise InputError(
                "estimator=None, and no layer of the model is converted: give one or lean, or call approximate_ before"
            )
        # taken off and put on once more, so that the first step runs as every later one
        self._converted = True
        self.take_off(model)
        self.convert(model)

    def convert(self, model: nn.Module) -> None:
        """Put the conversion on again, if it is off."""
        if self._converted:
            return
        if self.plan is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", WtacrsWarning)  # of the first conversion, said then
                self._convert_planned(model, self.plan, None)
        for kind in [] if self.plan is not None else dict.fromkeys(self.conversion.values()):
            wanted = {name for name, entry in self.conversion.items() if entry == kind}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", WtacrsWarning)  # of the first conversion, said then
                approximate_(
                    model,
                    kind.spec,
                    filter_fn=partial(_among, wanted),
                    min_elements=kind.min_elements,
                    min_rows=kind.min_rows,
                    mask_floor=kind.mask_floor,
                    share_inputs=kind.share_inputs,
                    budget_of=kind.budget_of,
                    scores=self._memory or "row-norms",
                    masked_gradient=self.masked_gradient,
                )
        if self._sampling is not None:
            load_sampling_state(model, self._sampling)
        self._converted = True

    def _convert_planned(self, model: nn.Module, plan: BlockChoices, seed: int | None) -> None:
        approximate_(model, plan, seed=seed, **self._options())

    def _options(self) -> dict[str, Any]:
        """Arguments of `approximate_` that a plan leaves open too."""
        return {
            "min_elements": self.min_elements,
            "min_rows": self.min_rows,
            "scores": self._memory or "row-norms",
            "share_inputs": self.share_inputs,
            "mask_floor": self.mask_floor,
            "budget_of": self.budget_of,
            "masked_gradient": self.masked_gradient,
        }

    def take_off(self, model: nn.Module, *, agree: bool = False) -> None:
        """Stock classes; what the draws depend on is kept, the same in all processes for a checkpoint that they share."""
        if self._converted:
            self._sampling, self.misled = sampling_state(model), misled_layers(model)
        if agree and self._sampling is not None:
            self._sampling = agreed_sampling_state(self._sampling)
        restore_(model, keep_lean=self.plan is None)
        self._converted = False

    def _check_resumed(self, known: Mapping[str, Any] | None, step: int, model: nn.Module) -> None:
        if known is None:
            raise InputError(
                f"{self.checkpoint_argument}: the run up to step {step} was trained without {type(self).__name__}; "
                "load its weights into a new run, or resume without the callback"
            )
        if known["args"].get("lean", False) != self.lean:
            raise InputError(
                f"{self.checkpoint_argument}: the run was trained with lean={known['args'].get('lean', False)!r}, "
                f"and is now to be trained with lean={self.lean!r}"
            )
        if known["args"].get("scores", "row-norms") != self.scores:
            theirs = known["args"].get("scores", "row-norms")
            raise InputError(
                f"{self.checkpoint_argument}: the run was trained with scores={theirs!r}, "
                f"and is now to be trained with scores={self.scores!r}"
            )
        if self._memory is not None:
            logger.warning(
                "wtacrs: what scores=%r remembered is not in the checkpoint: it is learned anew", self._memory.kind
            )
        self._refuse_other(known["attributes"]["conversion"])
        sampling = known["attributes"].get("_sampling")
        if sampling is not None:  # a run from before layers had draws of their own has none
            self._sampling = sampling
            load_sampling_state(model, sampling)

    def _refuse_other(self, known: dict[str, list[Any]]) -> None:
        theirs = {name: LayerConversion(*entry) for name, entry in known.items()}
        ours = self.conversion
        for name in [*theirs, *ours]:
            if theirs.get(name) != ours.get(name):
                raise InputError(
                    f"{self.checkpoint_argument}: layer {name!r} was trained {_told(theirs.get(name))}, "
                    f"and is now to be trained {_told(ours.get(name))}"
                )

    def _specs(self) -> list[str]:
        return list(dict.fromkeys(entry.spec for entry in self.conversion.values()))


def _choices(plan: Plan | BlockChoices | Mapping[str, Any] | None) -> BlockChoices | None:
    """What is done, also as a checkpoint of Trainer keeps it."""
    if isinstance(plan, Mapping):
        return BlockChoices.model_validate(plan)
    return plan.does if isinstance(plan, Plan) else plan


def _to_log(found: KeptBytes) -> dict[str, float]:
    return {
        "wtacrs_layers": len(found.layers),
        "wtacrs_kept_bytes": found.kept,
        "wtacrs_exact_bytes": found.exact,
        "wtacrs_kept_share": found.share,
    }


def _conversion_of(layer: EstimatedWeightGrad | LeanHead) -> LayerConversion:
    if isinstance(layer, LeanHead):  # which goes by labels, not masks, and shares no input
        return LayerConversion(repr(layer.estimator), layer.min_elements, min_rows=layer.min_rows)
    return LayerConversion(
        repr(layer.estimator),
        layer.min_elements,
        layer.mask_floor,
        layer.share_inputs,
        layer.min_rows,
        layer.budget_of,
    )


def _among(names: Container[str], layer: nn.Module, name: str) -> bool:
    del layer
    return name in names


# what is said of a conversion only where it differs
_USUAL = {"min_rows": 0, "mask_floor": MASK_FLOOR, "share_inputs": True, "budget_of": "all-rows"}


def _told(entry: LayerConversion | None) -> str:
    if entry is None:
        return "exactly"
    told = f"by {entry.spec}, min_elements={entry.min_elements}"
    for name, usual in _USUAL.items():
        if (value := getattr(entry, name)) != usual:
            told += f", {name}={value!r}"
    return told
