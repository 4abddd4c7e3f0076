"""Plug an estimator into real models: autograd, Hugging Face models, capture, training, the command line.

>>> from torch import nn
>>> from wtacrs.integration import approximate_, restore_
>>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
>>> approximate_(model, {"0": "wta_crs(budget=0.3)"})
['0']
>>> restore_(model)
['0']

The names below are imported when they are first asked for: the package itself loads neither transformers nor matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wtacrs.estimators.core.lazy_names import lazy_names

if TYPE_CHECKING:
    from wtacrs.integration.context.forward_context import ForwardContext as ForwardContext
    from wtacrs.integration.context.sampling_state import load_sampling_state as load_sampling_state
    from wtacrs.integration.context.sampling_state import sampling_state as sampling_state
    from wtacrs.integration.layers.convert import approximate_ as approximate_
    from wtacrs.integration.layers.convert import restore_ as restore_
    from wtacrs.integration.layers.lean.convert import lean_ as lean_
    from wtacrs.integration.layers.lean.options import LeanOptions as LeanOptions
    from wtacrs.integration.layers.linear import ApproxLinear as ApproxLinear
    from wtacrs.integration.layers.planned import load_plan as load_plan
    from wtacrs.integration.measure.capture import capture as capture
    from wtacrs.integration.measure.simulation.step import measure_step as measure_step
    from wtacrs.integration.measure.simulation.step import simulate_step as simulate_step
    from wtacrs.integration.measure.track_memory import track_memory as track_memory
    from wtacrs.integration.models.opening import Subject as Subject
    from wtacrs.integration.models.opening import open_model as open_model
    from wtacrs.integration.studies.capture import capture_study as capture_study
    from wtacrs.integration.studies.compare import comparison_study as comparison_study
    from wtacrs.integration.studies.finetune import finetune_study as finetune_study
    from wtacrs.integration.studies.layer_tests import layer_test_study as layer_test_study
    from wtacrs.integration.studies.noise import noise_study as noise_study
    from wtacrs.integration.studies.sweep import sweep_study as sweep_study
    from wtacrs.integration.tables.kinds import tables_of as tables_of
    from wtacrs.integration.tasks.base import Example as Example
    from wtacrs.integration.tasks.base import TaskData as TaskData
    from wtacrs.integration.tasks.base import task_data as task_data
    from wtacrs.integration.tasks.loading import load_task as load_task
    from wtacrs.integration.tasks.own_files import OwnFiles as OwnFiles
    from wtacrs.integration.tasks.own_files import own_task as own_task
    from wtacrs.integration.training.callback import WtacrsCallback as WtacrsCallback
    from wtacrs.integration.training.config import FinetuneConfig as FinetuneConfig
    from wtacrs.integration.training.lightning import WtacrsLightningCallback as WtacrsLightningCallback
    from wtacrs.integration.training.predict import load_finetuned as load_finetuned
    from wtacrs.integration.training.predict import predict as predict
    from wtacrs.integration.training.run import finetune as finetune

# public name to the module that holds it, which is imported when the name is first used
_HOMES = {
    "ApproxLinear": "layers.linear",
    "Example": "tasks.base",
    "FinetuneConfig": "training.config",
    "ForwardContext": "context.forward_context",
    "LeanOptions": "layers.lean.options",
    "OwnFiles": "tasks.own_files",
    "Subject": "models.opening",
    "TaskData": "tasks.base",
    "WtacrsCallback": "training.callback",
    "WtacrsLightningCallback": "training.lightning",
    "approximate_": "layers.convert",
    "capture": "measure.capture",
    "capture_study": "studies.capture",
    "comparison_study": "studies.compare",
    "finetune": "training.run",
    "finetune_study": "studies.finetune",
    "layer_test_study": "studies.layer_tests",
    "lean_": "layers.lean.convert",
    "load_finetuned": "training.predict",
    "load_plan": "layers.planned",
    "load_sampling_state": "context.sampling_state",
    "load_task": "tasks.loading",
    "measure_step": "measure.simulation.step",
    "noise_study": "studies.noise",
    "open_model": "models.opening",
    "own_task": "tasks.own_files",
    "predict": "training.predict",
    "restore_": "layers.convert",
    "sampling_state": "context.sampling_state",
    "simulate_step": "measure.simulation.step",
    "sweep_study": "studies.sweep",
    "tables_of": "tables.kinds",
    "task_data": "tasks.base",
    "track_memory": "measure.track_memory",
}

__all__ = sorted(_HOMES)

if not TYPE_CHECKING:  # hidden from type checkers, for which it would make every misspelt name valid
    __getattr__, __dir__ = lazy_names(globals(), _HOMES)
