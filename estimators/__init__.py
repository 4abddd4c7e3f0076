"""The estimator zoo: one file per method, two verbs, one registry.

>>> import torch
>>> from wtacrs.estimators import make
>>> estimator = make("wta_crs(budget=0.3)")
>>> x, dy = torch.randn(100, 16), torch.randn(100, 8)
>>> saved = estimator.compress(x)          # forward pass: keep 30 of 100 rows
>>> estimator.contract(saved, dy).shape    # backward pass: estimate dy.T @ x
torch.Size([8, 16])
"""

from wtacrs.estimators.base import Estimator, Traits, saved_bytes
from wtacrs.estimators.basis_state import BasisState
from wtacrs.estimators.bernoulli import Bernoulli
from wtacrs.estimators.budget import rows_for
from wtacrs.estimators.conditional_poisson import ConditionalPoisson
from wtacrs.estimators.control_variate import ControlVariate
from wtacrs.estimators.count_sketch import CountSketch
from wtacrs.estimators.crs import CRS
from wtacrs.estimators.errors import InputError, NoClosedForm
from wtacrs.estimators.exact import Exact
from wtacrs.estimators.fp8 import FP8
from wtacrs.estimators.gaussian_sketch import GaussianSketch
from wtacrs.estimators.hadamard_rotation import HadamardRotation
from wtacrs.estimators.low_rank import LowRank
from wtacrs.estimators.mixed_precision_rows import MixedPrecisionRows
from wtacrs.estimators.pamm import PAMM
from wtacrs.estimators.pivotal import Pivotal
from wtacrs.estimators.prac import PRAC
from wtacrs.estimators.priority import Priority
from wtacrs.estimators.quantized_rows import QuantizedRows
from wtacrs.estimators.rademacher_sketch import RademacherSketch
from wtacrs.estimators.random_projection import RandomProjection
from wtacrs.estimators.recommended import recommended
from wtacrs.estimators.registry import available, lookup, make, register, spec
from wtacrs.estimators.rows import RowEstimator, RowMoments, RowPlan, SavedRows
from wtacrs.estimators.sampford import Sampford
from wtacrs.estimators.scores import joint_norms, row_norms, sampling_scores
from wtacrs.estimators.srht import SRHT
from wtacrs.estimators.stochastic_rounding import StochasticRounding
from wtacrs.estimators.systematic import Systematic
from wtacrs.estimators.topk import TopK
from wtacrs.estimators.uniform import Uniform
from wtacrs.estimators.velora import VeLoRA
from wtacrs.estimators.wta_crs import WTACRS

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
