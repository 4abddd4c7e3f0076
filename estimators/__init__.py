"""The estimator zoo: one file per method, two verbs, one registry.

>>> import torch
>>> from wtacrs.estimators import make
>>> estimator = make("wta_crs(budget=0.3)")
>>> x, dy = torch.randn(100, 16), torch.randn(100, 8)
>>> saved = estimator.compress(x)          # forward pass: keep 30 of 100 rows
>>> estimator.contract(saved, dy).shape    # backward pass: estimate dy.T @ x
torch.Size([8, 16])
"""

from wtacrs.estimators.composites.basis_state import BasisState
from wtacrs.estimators.composites.control_variate import ControlVariate
from wtacrs.estimators.composites.hadamard_rotation import HadamardRotation
from wtacrs.estimators.composites.mixed_precision_rows import MixedPrecisionRows
from wtacrs.estimators.composites.quantized_rows import QuantizedRows
from wtacrs.estimators.composites.recommended import recommended
from wtacrs.estimators.core.base import Estimator, Traits, saved_bytes
from wtacrs.estimators.core.errors import InputError, NoClosedForm
from wtacrs.estimators.core.registry import available, lookup, make, register, spec
from wtacrs.estimators.core.scores import joint_norms, row_norms, sampling_scores
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.projections.low_rank import LowRank
from wtacrs.estimators.projections.pamm import PAMM
from wtacrs.estimators.projections.prac import PRAC
from wtacrs.estimators.projections.random_projection import RandomProjection
from wtacrs.estimators.projections.velora import VeLoRA
from wtacrs.estimators.rounding.fp8 import FP8
from wtacrs.estimators.rounding.stochastic_rounding import StochasticRounding
from wtacrs.estimators.rows.bernoulli import Bernoulli
from wtacrs.estimators.rows.conditional_poisson import ConditionalPoisson
from wtacrs.estimators.rows.crs import CRS
from wtacrs.estimators.rows.exact import Exact
from wtacrs.estimators.rows.pivotal import Pivotal
from wtacrs.estimators.rows.priority import Priority
from wtacrs.estimators.rows.row_estimator import RowEstimator, RowMoments, RowPlan, SavedRows
from wtacrs.estimators.rows.sampford import Sampford
from wtacrs.estimators.rows.systematic import Systematic
from wtacrs.estimators.rows.topk import TopK
from wtacrs.estimators.rows.uniform import Uniform
from wtacrs.estimators.rows.wta_crs import WTACRS
from wtacrs.estimators.sketches.count_sketch import CountSketch
from wtacrs.estimators.sketches.gaussian_sketch import GaussianSketch
from wtacrs.estimators.sketches.rademacher_sketch import RademacherSketch
from wtacrs.estimators.sketches.srht import SRHT

__all__ = [
    "CRS",
    "FP8",
    "PAMM",
    "PRAC",
    "SRHT",
    "WTACRS",
    "BasisState",
    "Bernoulli",
    "ConditionalPoisson",
    "ControlVariate",
    "CountSketch",
    "Estimator",
    "Exact",
    "GaussianSketch",
    "HadamardRotation",
    "InputError",
    "LowRank",
    "MixedPrecisionRows",
    "NoClosedForm",
    "Pivotal",
    "Priority",
    "QuantizedRows",
    "RademacherSketch",
    "RandomProjection",
    "RowEstimator",
    "RowMoments",
    "RowPlan",
    "Sampford",
    "SavedRows",
    "StochasticRounding",
    "Systematic",
    "TopK",
    "Traits",
    "Uniform",
    "VeLoRA",
    "available",
    "joint_norms",
    "lookup",
    "make",
    "recommended",
    "register",
    "row_norms",
    "rows_for",
    "sampling_scores",
    "saved_bytes",
    "spec",
]
