"""The estimator zoo: one file per method, two verbs, one registry.

>>> import torch
>>> from wtacrs.estimators import make
>>> estimator = make("wta_crs(budget=0.3)")
>>> x, dy = torch.randn(100, 16), torch.randn(100, 8)
>>> saved = estimator.compress(x)          # forward pass: keep 30 of 100 rows
>>> estimator.contract(saved, dy).shape    # backward pass: estimate dy.T @ x
torch.Size([8, 16])
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wtacrs.estimators.composites.basis_state import BasisState as BasisState
    from wtacrs.estimators.composites.control_variate import ControlVariate as ControlVariate
    from wtacrs.estimators.composites.dithered_rows import DitheredRows as DitheredRows
    from wtacrs.estimators.composites.hadamard_rotation import HadamardRotation as HadamardRotation
    from wtacrs.estimators.composites.mixed_precision_rows import MixedPrecisionRows as MixedPrecisionRows
    from wtacrs.estimators.composites.quantized_rows import QuantizedRows as QuantizedRows
    from wtacrs.estimators.composites.recommended import recommended as recommended
    from wtacrs.estimators.composites.subsampled import Subsampled as Subsampled
    from wtacrs.estimators.core.base import Estimator as Estimator
    from wtacrs.estimators.core.base import Published as Published
    from wtacrs.estimators.core.base import Traits as Traits
    from wtacrs.estimators.core.base import saved_bytes as saved_bytes
    from wtacrs.estimators.core.errors import InputError as InputError
    from wtacrs.estimators.core.errors import NoClosedForm as NoClosedForm
    from wtacrs.estimators.core.errors import WtacrsWarning as WtacrsWarning
    from wtacrs.estimators.core.registry import available as available
    from wtacrs.estimators.core.registry import lookup as lookup
    from wtacrs.estimators.core.registry import make as make
    from wtacrs.estimators.core.registry import register as register
    from wtacrs.estimators.core.registry import spec as spec
    from wtacrs.estimators.core.row_design import RowPlan as RowPlan
    from wtacrs.estimators.core.scores import joint_norms as joint_norms
    from wtacrs.estimators.core.scores import row_norms as row_norms
    from wtacrs.estimators.core.scores import sampling_scores as sampling_scores
    from wtacrs.estimators.core.sizing import rows_for as rows_for
    from wtacrs.estimators.projections.dropit import DropIT as DropIT
    from wtacrs.estimators.projections.low_rank import LowRank as LowRank
    from wtacrs.estimators.projections.pamm import PAMM as PAMM
    from wtacrs.estimators.projections.prac import PRAC as PRAC
    from wtacrs.estimators.projections.random_projection import RandomProjection as RandomProjection
    from wtacrs.estimators.projections.velora import VeLoRA as VeLoRA
    from wtacrs.estimators.rounding.actnn import ActNN as ActNN
    from wtacrs.estimators.rounding.fp8 import FP8 as FP8
    from wtacrs.estimators.rounding.stochastic_rounding import StochasticRounding as StochasticRounding
    from wtacrs.estimators.rows.bernoulli import Bernoulli as Bernoulli
    from wtacrs.estimators.rows.conditional_poisson import ConditionalPoisson as ConditionalPoisson
    from wtacrs.estimators.rows.crs import CRS as CRS
    from wtacrs.estimators.rows.exact import Exact as Exact
    from wtacrs.estimators.rows.pivotal import Pivotal as Pivotal
    from wtacrs.estimators.rows.priority import Priority as Priority
    from wtacrs.estimators.rows.row_estimator import RowEstimator as RowEstimator
    from wtacrs.estimators.rows.row_estimator import RowMoments as RowMoments
    from wtacrs.estimators.rows.row_estimator import SavedRows as SavedRows
    from wtacrs.estimators.rows.sampford import Sampford as Sampford
    from wtacrs.estimators.rows.systematic import Systematic as Systematic
    from wtacrs.estimators.rows.topk import TopK as TopK
    from wtacrs.estimators.rows.uniform import Uniform as Uniform
    from wtacrs.estimators.rows.vcas import VCAS as VCAS
    from wtacrs.estimators.rows.wta_crs import WTACRS as WTACRS
    from wtacrs.estimators.sketches.count_sketch import CountSketch as CountSketch
    from wtacrs.estimators.sketches.gaussian_sketch import GaussianSketch as GaussianSketch
    from wtacrs.estimators.sketches.lbp_wht import LBPWHT as LBPWHT
    from wtacrs.estimators.sketches.rademacher_sketch import RademacherSketch as RademacherSketch
    from wtacrs.estimators.sketches.srht import SRHT as SRHT
    from wtacrs.estimators.sketches.xconv import XConv as XConv

# public name to the module that holds it, which is imported when the name is first used
_HOMES = {
    "BasisState": "composites.basis_state",
    "ControlVariate": "composites.control_variate",
    "DitheredRows": "composites.dithered_rows",
    "HadamardRotation": "composites.hadamard_rotation",
    "MixedPrecisionRows": "composites.mixed_precision_rows",
    "QuantizedRows": "composites.quantized_rows",
    "recommended": "composites.recommended",
    "Subsampled": "composites.subsampled",
    "Estimator": "core.base",
    "Published": "core.base",
    "Traits": "core.base",
    "saved_bytes": "core.base",
    "InputError": "core.errors",
    "WtacrsWarning": "core.errors",
    "NoClosedForm": "core.errors",
    "available": "core.registry",
    "lookup": "core.registry",
    "make": "core.registry",
    "register": "core.registry",
    "spec": "core.registry",
    "joint_norms": "core.scores",
    "row_norms": "core.scores",
    "sampling_scores": "core.scores",
    "rows_for": "core.sizing",
    "LowRank": "projections.low_rank",
    "PAMM": "projections.pamm",
    "PRAC": "projections.prac",
    "RandomProjection": "projections.random_projection",
    "VeLoRA": "projections.velora",
    "DropIT": "projections.dropit",
    "FP8": "rounding.fp8",
    "StochasticRounding": "rounding.stochastic_rounding",
    "ActNN": "rounding.actnn",
    "Bernoulli": "rows.bernoulli",
    "ConditionalPoisson": "rows.conditional_poisson",
    "CRS": "rows.crs",
    "Exact": "rows.exact",
    "Pivotal": "rows.pivotal",
    "Priority": "rows.priority",
    "RowEstimator": "rows.row_estimator",
    "RowMoments": "rows.row_estimator",
    "RowPlan": "core.row_design",
    "SavedRows": "rows.row_estimator",
    "Sampford": "rows.sampford",
    "Systematic": "rows.systematic",
    "TopK": "rows.topk",
    "Uniform": "rows.uniform",
    "WTACRS": "rows.wta_crs",
    "VCAS": "rows.vcas",
    "CountSketch": "sketches.count_sketch",
    "GaussianSketch": "sketches.gaussian_sketch",
    "RademacherSketch": "sketches.rademacher_sketch",
    "SRHT": "sketches.srht",
    "LBPWHT": "sketches.lbp_wht",
    "XConv": "sketches.xconv",
}

__all__ = sorted([*_HOMES, "__version__"])


if TYPE_CHECKING:
    __version__: str
else:  # hidden from type checkers, for which it would make every misspelt name valid

    def __getattr__(name: str) -> Any:
        """A public name on its first use (PEP 562); `__version__` is that of the installed distribution."""
        if name == "__version__":
            return version("wtacrs")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
