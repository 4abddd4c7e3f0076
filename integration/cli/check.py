"""`wtacrs check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wtacrs.estimators import InputError
from wtacrs.integration.cli.app import app, console, progress_bar, wrote
from wtacrs.integration.cli.options import LayersOption, SeedOption


@app.command()
def check(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="SPEC|PATH.py:NAME",
            help="As in 'crs(budget=0.3)', or external code: PATH.py:NAME or package.module:NAME.",
        ),
    ],
    kind: Annotated[
        str, typer.Option(help="What PATH.py:NAME is: auto, estimator, product or linear; see above.")
    ] = "auto",
    captures: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also test the mean on captured layers, at their real size."),
    ] = None,
    layers: LayersOption = None,
    draws: Annotated[int, typer.Option(min=30, help="Draws per captured layer.")] = 2000,
    level: Annotated[float, typer.Option(help="Probability that a sound estimator fails any test.")] = 1e-6,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write the verdicts there, as JSON.")
    ] = None,
    seed: SeedOption = 0,
) -> int:
    """Check an estimator, or an external product or linear layer; exit code 1 if it breaks a property.

    A SPEC is checked against every property its traits promise. PATH.py:NAME imports the file, which runs it, and takes
    NAME for one of these:

    estimator: an Estimator, its class, or a function without arguments that returns one.

    product: f(x, dy), f(x, dy, generator=…) or f(x, dy, k), an estimate [m, d] of dyᵀx for x [n, d] and dy [n, m];
    xᵀdy [d, m] is told apart by its shape. k is 0.3 n.

    linear: an nn.Module class or a function build(in_features, out_features) whose module has weight [out, in]; or an
    autograd Function or a function linear(x, weight, bias). The estimate is weight.grad after a backward pass.

    With --kind auto a class decides by itself, and a function by the name of its second argument: dy, y, grad,
    grad_output and the like make it a product, weight or w a linear, out_features or out a builder of one.
    """
    from wtacrs.estimators import make
    from wtacrs.estimators.core.references import is_reference
    from wtacrs.integration.studies.check import check_study, result_file
    from wtacrs.integration.tables.check import check_table
    from wtacrs.validation.layers.captures import load_captures
    from wtacrs.validation.properties.external_kinds import KINDS, external_from

    if kind not in KINDS:
        raise InputError(f"--kind {kind!r} must be one of {', '.join(KINDS)}")
    if is_reference(spec):
        estimator = external_from(spec, kind)
    elif kind != "auto":
        raise InputError(f"--kind {kind} is for external code, PATH.py:NAME; {spec!r} is a spec")
    else:
        estimator = make(spec)
    if layers and captures is None:
        raise InputError(f"--layers {layers[0]!r} chooses among captured layers: it needs --captures FILE")
    opened = None if captures is None else load_captures(captures)
    with progress_bar("checking") as report:
        result = check_study(
            estimator, out, captures=opened, layers=layers, draws=draws, level=level, seed=seed, report=report
        )
    console.print(check_table(result))
    if out is not None:
        wrote(result_file(out, estimator))
    return 0 if result.passed else 1
