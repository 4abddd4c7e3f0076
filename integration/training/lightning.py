"""Estimators in Lightning's `Trainer`: one more callback.

    import lightning as L
    from wtacrs.integration.training.lightning import WtacrsLightningCallback

    trainer = L.Trainer(max_epochs=3, callbacks=[WtacrsLightningCallback("wta_crs(budget=0.3)")])
    trainer.fit(module, loader)

Needs `lightning` or `pytorch_lightning`, whichever the program has imported; `pip install lightning`.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any

import torch
from torch import nn

from wtacrs.estimators import InputError, WtacrsWarning
from wtacrs.integration.training.conversion import TrainingConversion


def _callback_class() -> type:
    """Lightning's `Callback`, of the package that is in use: the two have classes of their own."""
    for loaded in (True, False):
        for name in ("lightning.pytorch", "pytorch_lightning"):
            if loaded and name not in sys.modules:
                continue
            try:
                return importlib.import_module(name).Callback
            except ModuleNotFoundError:
                continue
    raise InputError("neither lightning nor pytorch_lightning is installed: pip install lightning")


_Callback: Any = _callback_class()


class WtacrsLightningCallback(TrainingConversion, _Callback):
    """Converts the model when training begins, and gives it back stock.

    The stock classes are back wherever Lightning validates, and when training ends, also by an exception. Checkpoints
    hold what the draws of the layers depend on; their weights are those of a run without the callback.

    Masks are seen, and bytes measured, in calls of the converted module itself. It is `module`, or the one child of the
    LightningModule that holds all parameters; where neither is there, the whole LightningModule is converted, whose own
    `forward` the training step must call for that.

    Measurements are logged as `wtacrs_layers`, `wtacrs_kept_bytes`, `wtacrs_exact_bytes` and `wtacrs_kept_share`.

    Args:
        estimator: as in `TrainingConversion`.
        module: name of the part that is converted, as in `"model"`.
        options: further arguments of `TrainingConversion`.

    Raises:
        InputError: as `TrainingConversion`, and when training begins if there is no such part.
    """

    checkpoint_argument = "ckpt_path"

    def __init__(self, estimator: Any = None, *, module: str | None = None, **options: Any) -> None:
        super().__init__(estimator, **options)
        self.module = module
        self._known: dict[str, Any] | None = None
        self._part: nn.Module | None = None

    def state_dict(self) -> dict[str, Any]:
        """What Lightning keeps in the checkpoint."""
        part = self._part
        if part is not None:  # taken off and put on again, which notes what the draws depend on
            on = self._converted
            self.take_off(part, agree=True)
            if on:
                self.convert(part)
        return self.conversion_state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember what the checkpoint holds until training begins."""
        self._known = state_dict

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Convert."""
        self._part = self._converted_part(pl_module)
        seed = torch.initial_seed() % 2**31
        self.begin(self._part, seed, step=trainer.global_step, known=self._known)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Convert again after a validation, and measure when it is time to."""
        if self._part is not None and self._probe is None:
            self.begin_step(self._part, trainer.global_step)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Take what was measured, and log it."""
        self.take_measurement()
        entries = self.log_entries(self._part)
        if entries:
            pl_module.log_dict({name: float(value) for name, value in entries.items()})

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Stock classes for the validation."""
        if self._part is not None:
            self.take_off(self._part)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Give the stock model back."""
        self._finish()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Give the stock model back."""
        self._finish()

    def _finish(self) -> None:
        if self._part is not None:
            self.end(self._part)
            self._part = None

    def _converted_part(self, pl_module: nn.Module) -> nn.Module:
        if self.module is not None:
            parts = dict(pl_module.named_modules())
            if self.module not in parts:
                raise InputError(
                    f"module={self.module!r}: {type(pl_module).__name__} has no such part; its children are "
                    f"{', '.join(name for name, _ in pl_module.named_children())}"
                )
            return parts[self.module]
        every = {id(parameter) for parameter in pl_module.parameters()}
        for child in pl_module.children():
            if {id(parameter) for parameter in child.parameters()} == every:
                return child
        warnings.warn(
            f"{type(pl_module).__name__} has no single part with all parameters: masks are not seen and bytes not "
            "measured unless its training step calls its forward; module= names a part",
            WtacrsWarning,
            stacklevel=2,
        )
        return pl_module
