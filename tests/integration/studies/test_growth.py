"""The study of growth: models of many sizes from one text, resumed, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import refused

from wtacrs.integration.cli import main
from wtacrs.integration.models.loading import train_tokenizer
from wtacrs.integration.models.text_models import text_model
from wtacrs.integration.studies import growth as module
from wtacrs.validation.records.growth import GrowthResult
from wtacrs.validation.records.results import load_result

WORDS = [
    "the",
    "sea",
    "was",
    "calm",
    "and",
    "old",
    "ships",
    "came",
    "home",
    "with",
    "salt",
    "wood",
    "iron",
    "rope",
    "for",
    "women",
    "men",
    "dogs",
    "of",
    "every",
    "harbour",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for part, lines in (("train", 500), ("valid", 80)):
        text = [" ".join(WORDS[(7 * i + j * j + len(part)) % len(WORDS)] for j in range(14)) for i in range(lines)]
        (folder / f"tales_{part}.txt").write_text("\n".join(text), encoding="utf-8")
    return folder


def arguments(corpus: Path, out: Path) -> list[str]:
    sizes = "--width 32 --width 64 --depth 1 --depth 2 --base-width 32 --base-depth 1 --step 1 --step 2 --seeds 2"
    shapes = "--family decoder --batches 3 --batch-size 4 --length 24 --vocabulary 300 --estimator crs(budget=0.2)"
    return ["study", "growth", str(corpus), *sizes.split(), *shapes.split(), "--out", str(out)]


def test_one_result_that_goes_on_where_it_stopped(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    make = module.text_model

    def counted(family, width: int, *args, **options):
        trained.append(width)
        if len(trained) == 3:
            raise module.InputError("power cut")
        return make(family, width, *args, **options)

    monkeypatch.setattr(module, "text_model", counted)
    out = tmp_path / "out"
    assert main(arguments(corpus, out)) == 2
    assert main(arguments(corpus, out)) == 0
    assert len(trained) == 6 + 1
    result = load_result(out / "growth.json")
    assert isinstance(result, GrowthResult)
    assert len({(p.family, p.width, p.depth, p.seed) for p in result.points}) == 6
    assert len(result.points) == 6 * 3  # a part of the rows at the last step
    for point in result.points:
        assert 0 < point.rows_needed <= 1
        assert 0 < point.effective <= 1
        assert point.noise[0].ratio * point.minibatch == pytest.approx(point.noise[0].relative)
    assert {t.axis for t in result.trends} == {"width", "depth", "rows", "progress"}
    assert (out / "growth.png").exists()
    assert "per doubling" in " ".join(capsys.readouterr().out.split())


def test_t5_is_measured_too(corpus: Path, tmp_path: Path) -> None:
    config = module.GrowthConfig(
        families=("t5",), widths=(32,), depths=(1,), base_width=32, base_depth=1, steps=(1,), seeds=1, batches=3,
        batch_size=4, length=24, vocabulary=300, estimators=("crs(budget=0.2)",),
    )  # fmt: skip
    (point, part) = module.growth_study(config, corpus, tmp_path / "out").points
    assert (point.family, point.part, part.part) == ("t5", 1.0, module.PART)
    assert point.rows == 4 * 24  # of the encoder, whose input has the length
    assert part.rows == point.rows / 4


def test_weights_are_a_function_of_the_seed() -> None:
    tokenizer = train_tokenizer([" ".join(WORDS)] * 3, 300)
    for family in ("t5", "decoder"):
        one, same, other = (text_model(family, 32, 1, tokenizer, length=16, seed=s) for s in (3, 3, 4))
        weights = [dict(model.named_parameters()) for model in (one, same, other)]
        name = next(name for name, weight in weights[0].items() if weight.dim() == 2)
        assert (weights[0][name] == weights[1][name]).all()
        assert (weights[0][name] != weights[2][name]).any()


def test_what_it_refuses(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["study", "growth", corpus, "--out", tmp_path / "out"]
    assert "multiple of 32" in refused(capsys, *base, "--width", "48")
    assert "family" in refused(capsys, *base, "--family", "rnn")
    assert "pieces" in refused(capsys, *base, "--step", "5000", "--width", "32", "--vocabulary", "300")
    assert "corpus" in refused(capsys, "study", "growth", tmp_path, "--out", tmp_path / "out")
