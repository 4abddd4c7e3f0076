"""`wtacrs predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.evaluate import EvalBatchSizeOption, ModelFolderArgument, RunMaxLengthOption
from wtacrs.integration.cli.options import DeviceOption, device_from
from wtacrs.integration.cli.output import wrote
from wtacrs.integration.cli.subject_options import EncodingOption, Text2Option


@app.command(as_json=False, dry=False)
def predict(
    folder: ModelFolderArgument,
    file: Annotated[
        Path,
        typer.Option(
            "--input", metavar="FILE", help="Rows to predict: .csv, .tsv, .jsonl, .parquet, or a folder."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Predictions: .jsonl, .csv or .tsv; - for JSON lines on the terminal."),
    ],
    text: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of the text. Default: as in training on own files."),
    ] = None,
    text2: Text2Option = None,
    encoding: EncodingOption = None,
    batch_size: EvalBatchSizeOption = 64,
    max_length: RunMaxLengthOption = None,
    max_target_length: Annotated[
        int | None,
        typer.Option(min=1, help="Longest written answer, in tokens. Default: the longest in training, or 128."),
    ] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Predict with a fine-tuned model, a row for every row of a file, in its order.

    A row holds the texts, the prediction (name of a class, number or text), and the probability of the class.
    """
    from wtacrs.integration.studies.predict import predict_study

    shown = str(out) == "-"
    content = predict_study(
        folder,
        file,
        None if shown else out,
        text=text,
        text2=text2,
        encoding=encoding,
        max_length=max_length,
        answer_length=max_target_length,
        batch_size=batch_size,
        device=device_from(device),
    )
    if shown:
        sys.stdout.write(content)
    else:
        wrote(out)
