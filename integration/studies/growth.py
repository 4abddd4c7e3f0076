"""Are larger models more compressible? New models of many sizes learn from one text, and are measured on their way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor

from wtacrs.estimators import InputError, make
from wtacrs.figures.plots import growth as growth_figure
from wtacrs.integration.measure.capture import chosen_layers, of_batch, recording
from wtacrs.integration.models.loading import load_tokenizer
from wtacrs.integration.models.text_models import check_size, corpus_tokenizer, text_model
from wtacrs.integration.studies.output import keep
from wtacrs.integration.tasks.span_corruption import corpus_files, read_pieces
from wtacrs.validation.arguments import checked_integer
from wtacrs.validation.dry_run import is_dry_run
from wtacrs.validation.files import check_folder
from wtacrs.validation.layers.captures import LayerCapture
from wtacrs.validation.layers.growth import model_measures
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.growth import Family, GrowthPoint, GrowthResult
from wtacrs.validation.runner import Runner, Task, TaskOutput
from wtacrs.validation.seeds import checked_seed
from wtacrs.validation.summaries.growth import growth_trends

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LEVEL = 0.05
FAMILIES: tuple[Family, ...] = get_args(Family)
ESTIMATORS = (
    "crs(budget=0.1)",
    "crs(budget=0.3)",
    "wta_crs(budget=0.1)",
    "wta_crs(budget=0.3)",
    "dithered_rows(slots=0.74)",
)
PART = 0.25
"""Share of a batch that is also measured by itself, for what fewer rows change."""
_VALID_PIECES = 256
_WARM_UP = 20


@dataclass(frozen=True)
class GrowthConfig:
    """Sizes, training and measurement; checked when it is made (`InputError`).

    `widths` are trained at depth `base_depth`, `depths` at width `base_width`, each from `seeds` seeds. Models are
    measured after so many `steps` of AdamW, on `batches` batches that they have not seen. A batch holds `batch_size`
    pieces; a decoder predicts every token of a piece of `length` tokens, a T5 reads `length` tokens and writes as many
    that follow. (Span corruption predicts a seventh of the tokens, and models so small do not learn to read their encoder
    by it.) Four draws suffice where there is no closed form: a gradient has thousands of directions.
    """

    families: Sequence[Family] = FAMILIES
    widths: Sequence[int] = (64, 96, 128, 192, 256)
    depths: Sequence[int] = (2, 4, 8)
    base_width: int = 128
    base_depth: int = 4
    steps: Sequence[int] = (50, 150, 400)
    seeds: int = 3
    seed: int = 0
    batch_size: int = 16
    length: int = 64
    batches: int = 4
    lr: float = 1e-3
    vocabulary: int = 2000
    estimators: Sequence[str] = ESTIMATORS
    draws: int = 4

    def __post_init__(self) -> None:
        for family in self.families:
            if family not in FAMILIES:
                raise InputError(f"family={family!r} must be one of {', '.join(FAMILIES)}")
        for name in ("families", "widths", "depths", "steps", "estimators"):
            if not getattr(self, name):
                raise InputError(f"{name}: at least one is needed")
        for width, depth in self.sizes:
            check_size(width, depth)
        for step in self.steps:
            checked_integer(step, "step", least=0)
        checked_integer(self.batches, "batches", least=3)
        checked_integer(self.batch_size, "batch_size", least=4)
        checked_integer(self.seeds, "seeds", least=1)
        checked_integer(self.draws, "draws", least=3)
        checked_integer(self.length, "length", least=2)
        checked_seed(self.seed + self.seeds - 1)
        for one in self.estimators:
            make(one)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Width and depth of every model."""
        wide = [(width, self.base_depth) for width in self.widths]
        return list(dict.fromkeys([*wide, *((self.base_width, depth) for depth in self.depths)]))

    def piece(self, family: Family) -> int:
        """Tokens of a piece of text."""
        return 2 * self.length if family == "t5" else self.length


def growth_study(config: GrowthConfig, corpus: Path, out: Path, *, runner: Runner | None = None) -> GrowthResult:
    """Train every model and measure it on its way: `growth.json`, `growth.png`.

    An interrupted study goes on with the models that are not trained yet. Seeds come one after the other, so that
    all sizes of a seed are there first.

    Args:
        config: sizes, training, measurement.
        corpus: folder with one `*train*.txt[.gz]` and one `*valid*.txt[.gz]`, a paragraph per line.
        out: folder of the result; its `tokenizer` is the vocabulary, made from the text.
        runner: processes, progress and resumption.

    Raises:
        InputError: on a text that is too short, or an unusable folder.
    """
    check_folder("out", out)
    files = corpus_files(corpus)
    vocabulary = out / "tokenizer"
    if not is_dry_run() and not vocabulary.exists():
        corpus_tokenizer(files[0], config.vocabulary).save_pretrained(str(vocabulary))
    told = {
        key: value for key, value in asdict(config).items() if key not in ("families", "widths", "depths", "seeds")
    }
    tasks = [
        Task(
            key=f"growth {family} {width} {depth} {seed} {told} {[file.name for file in files]}",
            work=measured_model,
            arguments=(family, width, depth, seed, config, files, vocabulary),
            label=f"{family}, width {width}, depth {depth}, seed {seed}",
        )
        for seed in range(config.seed, config.seed + config.seeds)
        for family in config.families
        for width, depth in config.sizes
    ]
    runner = replace(runner or Runner(), folder=out)
    points = runner.run(GrowthPoint, tasks)
    trends = growth_trends(points, base_width=config.base_width, base_depth=config.base_depth, level=LEVEL)
    inputs = {"corpus": corpus.name, "lr": str(config.lr), "vocabulary": str(config.vocabulary)}
    found = GrowthResult(
        stamp=stamp(seed=config.seed, inputs=inputs),
        base_width=config.base_width,
        base_depth=config.base_depth,
        batch_size=config.batch_size,
        length=config.length,
        batches=config.batches,
        level=LEVEL,
        trends=trends,
        points=points,
    )
    keep(found, out, "growth.json", runner, {"growth.png": partial(growth_figure.draw, found)})
    return found


def measured_model(
    family: Family,
    width: int,
    depth: int,
    seed: int,
    config: GrowthConfig,
    files: tuple[Path, Path],
    vocabulary: Path,
) -> TaskOutput[GrowthPoint]:
    """Train one model and measure it after the chosen steps: one piece of the study."""
    tokenizer = load_tokenizer(str(vocabulary))
    text = _Text(family, seed, config, files, tokenizer)
    model = text_model(family, width, depth, tokenizer, length=config.length, seed=seed)
    found: list[GrowthPoint] = []
    for step in _trained(model, text, config):
        captures, loss = _captured(model, text.unseen()), _loss(model, text.valid())
        for part in (1.0, PART) if step == max(config.steps) else (1.0,):
            measures = model_measures(_part(captures, part), config.estimators, draws=config.draws, seed=seed)
            found.append(
                GrowthPoint(
                    family=family,
                    width=width,
                    depth=depth,
                    seed=seed,
                    step=step,
                    loss=loss,
                    parameters=model.num_parameters(),
                    part=part,
                    **measures._asdict(),
                )
            )
    return TaskOutput(tuple(found))


class _Text:
    """Batches of a text: for training, in the order that the seed gives; unseen ones, to measure on; valid ones."""

    def __init__(
        self,
        family: Family,
        seed: int,
        config: GrowthConfig,
        files: tuple[Path, Path],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        trained = max(config.steps) * config.batch_size
        needed = trained + config.batches * config.batch_size
        length = config.piece(family)
        # seeds read other parts of the text, as far as it goes
        pieces = read_pieces(files[0], tokenizer, length, limit=needed * (seed + 1))
        if len(pieces) < needed:
            raise InputError(
                f"corpus={files[0]} has {len(pieces):,} pieces of {length} tokens; {max(config.steps)} steps and "
                f"{config.batches} batches of {config.batch_size} need {needed:,}"
            )
        order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(seed))
        pieces = pieces[order[:needed]]
        held_out = read_pieces(files[1], tokenizer, length, limit=_VALID_PIECES)
        self._parts = [_batches(part, config) for part in (pieces[:trained], pieces[trained:], held_out)]

    def training(self) -> Iterator[dict[str, Tensor]]:
        return iter(self._parts[0])

    def unseen(self) -> Sequence[dict[str, Tensor]]:
        return self._parts[1]

    def valid(self) -> Sequence[dict[str, Tensor]]:
        return self._parts[2]


def _batches(pieces: Tensor, config: GrowthConfig) -> list[dict[str, Tensor]]:
    """Batches of whole pieces: a T5 reads the first half of each and writes the second, a decoder writes all of it."""
    found = []
    for start in range(0, len(pieces) - config.batch_size + 1, config.batch_size):
        tokens = pieces[start : start + config.batch_size]
        ids = tokens[:, : config.length].contiguous()
        labels = tokens[:, -config.length :].contiguous()
        found.append({"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)})
    return found


def _trained(model: PreTrainedModel, text: _Text, config: GrowthConfig) -> Iterator[int]:
    """Train, and stop where the model is to be measured; the rate is constant after its warm-up.

    A rate that falls would make a step's noise depend on how many steps are still to come.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.01)
    batches = text.training()
    for step in range(max(config.steps) + 1):
        if step in config.steps:
            yield step
        if step == max(config.steps):
            return
        optimizer.param_groups[0]["lr"] = config.lr * min(1.0, (step + 1) / _WARM_UP)
        model.train()
        model(**next(batches)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def _captured(model: PreTrainedModel, batches: Sequence[Mapping[str, Tensor]]) -> dict[str, LayerCapture]:
    """Every linear layer but the output layer, whose size is that of the vocabulary and not of the model."""
    head = model.get_output_embeddings()
    layers = chosen_layers(model, lambda layer, _: layer is not head)
    with recording(model, layers) as recorded:
        captured: dict[str, LayerCapture] = {}
        for number, batch in enumerate(batches):
            captured |= of_batch(number, recorded.run(batch))
        return captured


def _part(captures: Mapping[str, LayerCapture], share: float) -> dict[str, LayerCapture]:
    """The first rows of every entry: whole pieces, since a batch's rows lie piece by piece."""
    return {
        entry: LayerCapture(*(whole[: round(share * len(whole))] for whole in (one.x, one.dy, one.mask)))
        for entry, one in captures.items()
    }


@torch.no_grad()
def _loss(model: PreTrainedModel, batches: Sequence[Mapping[str, Tensor]]) -> float:
    """Nats per token."""
    losses = [float(model(**batch).loss) for batch in batches]
    return sum(losses) / len(losses)
