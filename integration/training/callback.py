"""Estimators in transformers' own `Trainer` and `Seq2SeqTrainer`: one more callback.

    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments
    from wtacrs.integration import WtacrsCallback

    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments("runs/t5", num_train_epochs=3),
        train_dataset=train,
        callbacks=[WtacrsCallback("wta_crs(budget=0.3)")],  # this line is all
    )
    trainer.train()

Gradient accumulation, bf16, activation checkpointing, generation at evaluation and `resume_from_checkpoint` work as they
do without it. Estimators keep no state and draw from torch's generators, whose state Trainer saves: a run that is resumed
goes on bit by bit.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Container, Sequence
from functools import partial
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from wtacrs.estimators import Estimator, InputError, WtacrsWarning, make
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.estimated_weight_grad import MIN_ELEMENTS, EstimatedWeightGrad
from wtacrs.integration.layers.least_elements import checked_min_elements
from wtacrs.integration.layers.linear_layers import filter_of
from wtacrs.integration.measure.layer_bytes import LayerBytes, LayerBytesProbe

logger = logging.getLogger(__name__)

Conversion = dict[str, tuple[str, int]]
"""Name of a layer → spec of its estimator, and its `min_elements`."""


class WtacrsCallback(TrainerCallback, ExportableState):
    """Converts the model when training begins, and gives it back stock.

    Parameters keep their identity, so that it does not matter that Trainer has made its optimizer by then. The stock
    classes are back wherever Trainer evaluates or saves, and when training ends; checkpoints are those of a run without
    the callback. After an exception `wtacrs.integration.restore_` brings them back.

    Every `measure_every` steps the bytes that the layers keep are measured, in the first forward pass of the step, and
    entered into the next training log, hence into `trainer_state.json`: `wtacrs_layers`, `wtacrs_stored_bytes`,
    `wtacrs_exact_bytes` (what exact layers would keep together, an input that several read counted once) and
    `wtacrs_stored_share`. `measured` has them by layer. TensorBoard's own callback has read the log by then; progress
    bar and printer come later and show them. The measurement draws from a generator of its own and leaves the run as it
    is.

    Which estimators train which layers is kept in the checkpoint, and must be the same when training is resumed.

    Args:
        estimator: a spec such as `"wta_crs(budget=0.3)"`, or None for a model that `approximate_` has converted already,
            each layer perhaps in its own way.
        layers: patterns of the names of the layers that are converted (`*`, `?`, `[]`); None for all.
        min_elements: inputs with fewer numbers than this take the exact path (see `EstimatedWeightGrad`).
        measure_every: steps between measurements; None for none.

    Attributes:
        conversion: the converted layers.
        measured: bytes by layer, of the last measurement.

    Raises:
        InputError: on an unusable spec or number, here; when training begins, if there is nothing to convert, if the
            checkpoint was trained otherwise, or if the model is replicated in one process (`nn.DataParallel`).
    """

    def __init__(
        self,
        estimator: str | Estimator | None,
        *,
        layers: Sequence[str] | None = None,
        min_elements: int = MIN_ELEMENTS,
        measure_every: int | None = 500,
    ) -> None:
        if measure_every is not None and measure_every < 1:
            raise InputError(f"measure_every={measure_every}: an integer from 1, or None, is needed")
        if estimator is None and layers is not None:
            raise InputError("layers: need an estimator; without one the model's own conversion is kept")
        self.estimator = None if estimator is None else repr(make(estimator))
        self.layers = None if layers is None else list(layers)
        self.min_elements = checked_min_elements(min_elements)
        self.measure_every = measure_every
        self.conversion: Conversion = {}
        self.measured: dict[str, LayerBytes] = {}
        self._probe: LayerBytesProbe | None = None
        self._converted = False
        self._to_log: dict[str, float] = {}

    def state(self) -> dict[str, Any]:
        """What Trainer keeps in the checkpoint."""
        arguments = ("estimator", "layers", "min_elements", "measure_every")
        return {
            "args": {name: getattr(self, name) for name in arguments},
            "attributes": {"conversion": {name: list(entry) for name, entry in self.conversion.items()}},
        }

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Convert."""
        if args.n_gpu > 1:
            raise InputError(
                f"n_gpu={args.n_gpu}: nn.DataParallel is not supported; start one process per GPU with torchrun"
            )
        model = kwargs["model"]
        self._convert_first(model)
        if state.global_step > 0:
            self._check_resumed(state)
        logger.info("wtacrs: %d layers by %s", len(self.conversion), " and ".join(self._specs()))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Convert again after an evaluation or a checkpoint, and measure when it is time to."""
        self._convert(kwargs["model"])
        if self.measure_every is not None and state.global_step % self.measure_every == 0:
            self._probe = LayerBytesProbe(kwargs["model"])

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take what was measured."""
        if self._probe is not None:
            self._probe.remove()
            self.measured, self._probe = self._probe.layers, None
            self._to_log = self._summary()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stock classes for what comes now, if anything looks at the model."""
        if control.should_save or control.should_evaluate:
            self._restore(kwargs["model"])

    on_epoch_end = on_step_end

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Enter the last measurement into the log of the training loss."""
        if logs is None or "loss" not in logs or not self._to_log:
            return
        logs.update(self._to_log)
        state.log_history[-1].update(self._to_log)
        self._to_log = {}

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give the stock model back."""
        self._restore(kwargs["model"])

    def _convert_first(self, model: nn.Module) -> None:
        if self.estimator is not None:
            filter_fn = filter_of(model, self.layers)
            approximate_(model, self.estimator, filter_fn=filter_fn, min_elements=self.min_elements)
        self.conversion = {
            name: (repr(layer.estimator), layer.min_elements)
            for name, layer in model.named_modules()
            if isinstance(layer, EstimatedWeightGrad)
        }
        if not self.conversion:
            raise InputError(
                "estimator=None, and no layer of the model is converted: give one, or call approximate_ before"
            )
        # taken off and put on once more, so that the first step runs as every later one
        restore_(model)
        self._converted = False
        self._convert(model)

    def _convert(self, model: nn.Module) -> None:
        if self._converted:
            return
        for spec, least in dict.fromkeys(self.conversion.values()):
            wanted = {name for name, entry in self.conversion.items() if entry == (spec, least)}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", WtacrsWarning)  # of the first conversion, said then
                approximate_(model, spec, filter_fn=partial(_among, wanted), min_elements=least)
        self._converted = True

    def _restore(self, model: nn.Module) -> None:
        restore_(model)
        self._converted = False

    def _check_resumed(self, state: TrainerState) -> None:
        stored = state.stateful_callbacks.get(type(self).__name__)
        if isinstance(stored, list):
            stored = stored[-1]
        if stored is None:
            raise InputError(
                f"resume_from_checkpoint: the run up to step {state.global_step} was trained without WtacrsCallback; "
                "load its weights into a new run, or resume without the callback"
            )
        theirs = stored["attributes"]["conversion"]
        ours = json.loads(json.dumps(self.conversion))
        for name in [*theirs, *ours]:
            if theirs.get(name) != ours.get(name):
                raise InputError(
                    f"resume_from_checkpoint: layer {name!r} was trained {_told(theirs.get(name))}, "
                    f"and is now to be trained {_told(ours.get(name))}"
                )

    def _summary(self) -> dict[str, float]:
        stored = sum(entry.stored for entry in self.measured.values())
        exact = sum(entry.exact_alone for entry in self.measured.values())
        return {
            "wtacrs_layers": len(self.conversion),
            "wtacrs_stored_bytes": stored,
            "wtacrs_exact_bytes": exact,
            "wtacrs_stored_share": stored / exact if exact else 1.0,
        }

    def _specs(self) -> list[str]:
        return list(dict.fromkeys(spec for spec, _ in self.conversion.values()))


def _among(names: Container[str], layer: nn.Module, name: str) -> bool:
    del layer
    return name in names


def _told(entry: list[Any] | None) -> str:
    return "exactly" if entry is None else f"by {entry[0]}, min_elements={entry[1]}"
