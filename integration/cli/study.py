"""`wtacrs study`: questions that take several runs or several models to answer."""

from __future__ import annotations

from wtacrs.integration.cli.app import App, app

study = App(
    help="Answer questions that take several runs or models: gradient norms, scores, accuracy at every budget, transfer, "
    "the limit of memory reduction, the number of winners.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(study, name="study")
