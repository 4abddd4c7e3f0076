"""Predictions of a fine-tuned model for the rows of a file, written in their order."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from wtacrs.estimators import InputError
from wtacrs.integration.tasks.loading import named_input
from wtacrs.integration.tasks.own_files import input_of, require_column
from wtacrs.integration.tasks.own_rows import read_rows
from wtacrs.integration.training.predict import Prediction, load_finetuned, predict
from wtacrs.integration.training.run_settings import RunSettings, find_settings, model_folder
from wtacrs.validation.records.results import write_text

ENDS = (".jsonl", ".csv", ".tsv")
"""How the name of the file of predictions may end."""
ANSWER_LENGTH = 128
"""Tokens of a written answer, where neither the user nor the run says it."""


def predict_study(
    folder: Path,
    file: Path,
    out: Path | None,
    *,
    text: str | None = None,
    text2: str | None = None,
    encoding: str | None = None,
    max_length: int | None = None,
    answer_length: int | None = None,
    batch_size: int = 64,
    device: str = "cpu",
) -> str:
    """Predict, and write a row for every row of the file: its texts, `prediction`, and what else the model says.

    That is `probability` of the class for a head, `answer` for a model that writes the name of a class or a number.

    Args:
        folder: of a run, whose `best/` is taken, or of a model.
        file: rows with texts, as `read_rows` takes them.
        out: file to write, whole or not at all (`ENDS`); None for none.
        text: column of the text; None for that of the run.
        text2: column of the second text; likewise.
        encoding: of a text file.
        max_length: longest input, in tokens; None for that of the run, or 128.
        answer_length: tokens of a written answer, at most; None for those of the run's longest, or `ANSWER_LENGTH`.
        batch_size: rows at a time.
        device: where the model runs.

    Returns:
        What is written; JSON lines without `out`.

    Raises:
        InputError: if something cannot be loaded, or naming the line of a row without a text.
    """
    if out is not None and out.suffix not in ENDS:
        raise InputError(f"--out {out} must end in {', '.join(ENDS)}, or be - for JSON lines on the terminal")
    place, told = model_folder(folder), find_settings(folder)
    if told is not None and told.files is not None and text is None:
        text, text2 = told.files.text, text2 or told.files.text2
    if text is None:
        raise InputError("--text COLUMN is needed: the column of the text")
    columns = [text] if text2 is None else [text, text2]
    rows = read_rows("--input", file, encoding, columns)
    for option, column in zip(("--text", "--text2"), columns, strict=False):
        require_column(option, column, rows, file)
    inputs = [_input(told, *input_of(row, text, text2)) for row in rows.rows]
    model, tokenizer, task = load_finetuned(place, told)
    found = predict(
        model.to(device),
        tokenizer,
        task,
        inputs,
        max_length=max_length or (128 if told is None else told.max_length),
        answer_length=answer_length or (told.answers.length if told is not None else None) or ANSWER_LENGTH,
        batch_size=batch_size,
    )
    table = [
        dict(zip(columns, parts, strict=True)) | _told(prediction)
        for (_, parts), prediction in zip(inputs, found, strict=True)
    ]
    content = _json_lines(table) if out is None or out.suffix == ".jsonl" else _csv(table, out)
    if out is not None:
        write_text(out, content)
    return content


def _input(told: RunSettings | None, text: str, parts: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """As in training: a named task has titles of its own for the texts of text-to-text models."""
    if told is None or told.files is not None:
        return text, parts
    return named_input(told.subject().task, parts), parts


def _told(found: Prediction) -> dict[str, object]:
    told: dict[str, object] = {"prediction": found.prediction}
    others = {"probability": found.probability, "answer": found.answer}
    return told | {name: value for name, value in others.items() if value is not None}


def _json_lines(table: Sequence[dict[str, object]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table)


def _csv(table: Sequence[dict[str, object]], out: Path) -> str:
    columns = list(dict.fromkeys(name for row in table for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, delimiter="\t" if out.suffix == ".tsv" else ",", lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()
