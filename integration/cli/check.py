"""`wtacrs check`."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wtacrs.estimators import InputError
from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.options import LayersOption, SeedOption, device_from
from wtacrs.integration.cli.output import progress_bar, show

if TYPE_CHECKING:
    from wtacrs.estimators import Estimator

EXIT_CODES = {"holds": 0, "broken": 1, "undecided": 3}
# of several estimators the worst counts
_SEVERITY = (0, 3, 1)


@app.command(dry=False)
def check(
    specs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SPEC|PATH.py:NAME …",
            help="As in 'crs(budget=0.3)', or external code, as in mine.py:f or 'package.module:Mine(budget=0.3)'.",
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every registered estimator.")] = False,
    kind: Annotated[
        str, typer.Option(help="What PATH.py:NAME is: auto, estimator, product or linear; see above.")
    ] = "auto",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A hyperparameter, as in k=100 or mode='\"fast\"'. Repeatable."
        ),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=2, help="Rows of x that a product or layer is checked on.")
    ] = None,
    in_features: Annotated[
        int | None,
        typer.Option("--in-features", "--in", min=1, help="Columns of x. Default: the least that work."),
    ] = None,
    out_features: Annotated[
        int | None, typer.Option("--out-features", min=1, help="Columns of dy. Default: the least that work.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where a product or layer runs: cpu, cuda, cuda:1 …")] = "cpu",
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where it prints to. Default: a file beside the verdicts with --out, else a temporary one.",
        ),
    ] = None,
    captures: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also test the mean on captured layers, at their real size."),
    ] = None,
    layers: LayersOption = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Only the properties of these names, as in 'mean*'. Repeatable."),
    ] = None,
    bias: Annotated[float, typer.Option(help="Bias to rule out along every direction, as a share.")] = 0.1,
    power: Annotated[float, typer.Option(help="Probability of seeing a bias of that size.")] = 0.99,
    limit: Annotated[
        float, typer.Option(help="Seconds for the whole check; what is left by then is undecided.")
    ] = 60.0,
    level: Annotated[float, typer.Option(help="Probability that a sound estimator fails any test.")] = 1e-6,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write the verdicts there, as JSON.")
    ] = None,
    seed: SeedOption = 0,
) -> int:
    """Check estimators, or external products or linear layers.

    Every property holds, is broken, or stays undecided. Draws are added until a mean is rejected, or until a bias of
    --bias along every direction tested would have been seen with --power, or until --limit is over. Three times --bias
    is asked for where one row dominates. Only means, whether an estimate is unbiased: --only 'mean*'.

    Exit codes: 0 holds, 1 broken, 3 undecided, 2 could not be run.

    A SPEC is checked against every property its traits promise. PATH.py:NAME imports the file, which runs it, and takes
    NAME for one of these; values follow, as in 'mine.py:Mine(k=100)', or --set gives them. What needs no other
    arguments is called, and what it returns is examined:

    estimator: an Estimator, its class, or a function that returns one.

    product: f(x, dy), f(x, dy, generator=…) or f(x, dy, k), an estimate [m, d] of dyᵀx for x [n, d] and dy [n, m];
    xᵀdy [d, m] is told apart by its shape. k is 0.3 n.

    linear: an nn.Module class or a function build(in_features, out_features) whose module has weight [out, in], or
    [in, out] as Conv1D of GPT-2; or an autograd Function or a function linear(x, weight, bias). The estimate is
    weight.grad after a backward pass.

    With --kind auto a class decides by itself, and a function by the name of its second argument: dy, y, grad,
    grad_output and the like make it a product, weight or w a linear, out_features or out a builder of one.
    """
    from wtacrs.integration.cli.their_output import printing_to
    from wtacrs.integration.studies.check import check_study, registered_estimators, result_files
    from wtacrs.integration.tables.check import check_table, checks_table
    from wtacrs.validation.layers.captures import load_captures
    from wtacrs.validation.properties.external_kinds import KINDS, reference_stem
    from wtacrs.validation.statistics.staged_means import Demand

    if kind not in KINDS:
        raise InputError(f"--kind {kind!r} must be one of {', '.join(KINDS)}")
    if layers and captures is None:
        raise InputError(f"--layers {layers[0]!r} chooses among captured layers: it needs --captures FILE")
    demand = Demand(level=level, bias=bias, power=power, limit=limit)
    options = {
        "rows": rows,
        "in_features": in_features,
        "out_features": out_features,
        "device": device_from(device),
    }
    values = values_from(set_)
    if bool(specs) == all_:
        raise InputError("check needs a SPEC or PATH.py:NAME, or --all, and not both")
    named = specs or []
    place = out / f"check-{reference_stem(named[0])}.log" if log is None and out is not None and named else log
    opened = None if captures is None else load_captures(captures)
    with progress_bar("checking") as report, printing_to(place) as printed:
        chosen = [_estimator(text, kind, values, options) for text in named] or registered_estimators()
        places = result_files(out, chosen)
        results = [
            check_study(
                estimator,
                file,
                captures=opened,
                layers=layers,
                demand=demand,
                only=only,
                seed=seed,
                report=report,
            )
            for estimator, file in zip(chosen, places, strict=True)
        ]
    show(
        results[0] if len(results) == 1 else results,
        tables=(check_table(results[0]) if len(results) == 1 else checks_table(results),),
        files=(file for file in places if file is not None),
    )
    printed.name_it()
    return max((EXIT_CODES[result.outcome] for result in results), key=_SEVERITY.index)


def _estimator(spec: str, kind: str, values: dict[str, Any], options: dict[str, Any]) -> Estimator:
    from wtacrs.estimators import make
    from wtacrs.estimators.core.references import is_reference
    from wtacrs.validation.properties.external_kinds import external_from

    if is_reference(spec):
        return external_from(spec, kind, given=values, **options)
    if kind != "auto":
        raise InputError(f"--kind {kind} is for external code, PATH.py:NAME; {spec!r} is a spec")
    for name, value in options.items():
        if value not in (None, "cpu"):
            raise InputError(
                f"--{name.replace('_', '-')} {value} is for external products and layers; {spec!r} is a spec"
            )
    return make(spec, **values)


def values_from(texts: Sequence[str] | None) -> dict[str, Any]:
    """What `--set NAME=VALUE` says; values are literals of Python.

    Raises:
        InputError: on what is not of this form, and a name that is given twice.
    """
    values: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name.isidentifier():
            raise InputError(f"--set {text!r} must be NAME=VALUE, as in k=100")
        if name in values:
            raise InputError(f"--set {name} is given twice")
        try:
            values[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise InputError(
                f"--set {text!r}: {value!r} is no number, True, False, None, list or quoted string; "
                f"a string is written as {name}='\"{value}\"'"
            ) from None
    return values
