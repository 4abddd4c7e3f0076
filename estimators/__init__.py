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
from wtacrs.estimators.budget import rows_for
from wtacrs.estimators.crs import CRS
from wtacrs.estimators.errors import InputError, NoClosedForm
from wtacrs.estimators.exact import Exact
from wtacrs.estimators.registry import available, lookup, make, register, spec
from wtacrs.estimators.rows import RowEstimator, RowMoments, RowPlan, SavedRows
from wtacrs.estimators.scores import joint_norms, row_norms, sampling_scores
from wtacrs.estimators.systematic import Systematic
from wtacrs.estimators.topk import TopK
from wtacrs.estimators.wta_crs import WTACRS

__all__ = [
    "CRS",
    "WTACRS",
    "Estimator",
    "Exact",
    "InputError",
    "NoClosedForm",
    "RowEstimator",
    "RowMoments",
    "RowPlan",
    "SavedRows",
    "Systematic",
    "TopK",
    "Traits",
    "available",
    "joint_norms",
    "lookup",
    "make",
    "register",
    "row_norms",
    "rows_for",
    "sampling_scores",
    "saved_bytes",
    "spec",
]
