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
do without it. The checkpoint holds what the draws of the layers depend on: a run that is resumed goes on bit by bit.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from wtacrs.estimators import InputError
from wtacrs.integration.training.conversion import TrainingConversion


class WtacrsCallback(TrainingConversion, TrainerCallback, ExportableState):
    """Converts the model when training begins, and gives it back stock.

    Parameters keep their identity, so that it does not matter that Trainer has made its optimizer by then. The stock
    classes are back wherever Trainer evaluates or saves, and when training ends; checkpoints are those of a run without
    the callback. After an exception `wtacrs.integration.restore_` brings them back.

    Every `measure_every` steps the first forward pass of the step is measured, and entered into the next training log,
    hence into `trainer_state.json`: `wtacrs_layers` (converted layers that train by estimates), `wtacrs_kept_bytes` (what
    the whole model keeps for its backward pass, parameters, buffers and the batch left out), `wtacrs_exact_bytes` (what
    the stock model would keep; with lean neighbours what stock linear layers, which keep their inputs, would keep beside
    the same lean neighbours) and `wtacrs_kept_share`, above 1 where the conversion costs. `measured` has the layers:
    what each keeps, and what of its input it frees, 0 where something else keeps the input anyway. TensorBoard's own
    callback has read the log by then; progress bar and printer come later and show them. Nothing is computed twice, and
    the run is left as it is. What cannot be measured is said once (see `KeptBytesProbe`).

    Which estimators train which layers is kept in the checkpoint, and must be the same when training is resumed.

    Arguments, attributes and errors are those of `TrainingConversion`. A model that is replicated in one process
    (`nn.DataParallel`) is refused when training begins.
    """

    def state(self) -> dict[str, Any]:
        """What Trainer keeps in the checkpoint."""
        return self.conversion_state()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Convert."""
        if args.n_gpu > 1:
            raise InputError(
                f"n_gpu={args.n_gpu}: nn.DataParallel is not supported; start one process per GPU with torchrun"
            )
        known = state.stateful_callbacks.get(type(self).__name__)
        if isinstance(known, list):
            known = known[-1]
        self.begin(kwargs["model"], args.seed, step=state.global_step, known=known)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Convert again after an evaluation or a checkpoint, and measure when it is time to."""
        self.begin_step(kwargs["model"], state.global_step)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take what was measured."""
        self.take_measurement()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stock classes for what comes now, if anything looks at the model."""
        if control.should_save or control.should_evaluate:
            self.take_off(kwargs["model"], agree=control.should_save)

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
        if logs is None or "loss" not in logs:
            return
        entries = self.log_entries(kwargs.get("model"))
        logs.update(entries)
        state.log_history[-1].update(entries)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give the stock model back."""
        self.end(kwargs["model"])
