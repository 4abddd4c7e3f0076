"""Every kind of published defect is found by its law; sound pieces raise no alarm."""

from __future__ import annotations

import pytest
from published_defects.measured import COARSE, found_by_its_law
from published_defects.pieces import POOLED, Piece, all_pieces
from support.false_alarms import share

from wtacrs.validation.properties.checks import check_estimator
from wtacrs.validation.properties.external import EXTERNAL_PROPERTIES
from wtacrs.validation.properties.means import MEAN_PROPERTIES

pytestmark = pytest.mark.usefixtures("unchecked")

DEFECTS = [piece for piece in all_pieces().values() if piece.law]
SOUND = [piece for piece in all_pieces().values() if not piece.law]
SEEDS = (100, 101)
# where products cancel, rounding alone may be a third of their sum in bf16
HIDDEN_BY_BF16 = {"mean: rows that cancel"}
LEVEL = share("properties: means", len(SOUND))


@pytest.mark.parametrize("piece", DEFECTS, ids=lambda piece: piece.name)
def test_its_law_finds_a_defect(piece: Piece) -> None:
    """Another seed for every second piece; the audit takes twenty for each."""
    found = found_by_its_law(piece, SEEDS[DEFECTS.index(piece) % 2])
    assert (found.name, found.status) == (piece.law, "broken")


@pytest.mark.parametrize(
    "piece",
    [pytest.param(one, marks=pytest.mark.slow if i % 3 else []) for i, one in enumerate(SOUND)],
    ids=lambda piece: piece.name,
)
def test_a_sound_piece_raises_no_alarm(piece: Piece) -> None:
    """Every mean is tested, and holds, unless the precision of the piece forbids it."""
    verdicts = check_estimator(piece.load(), bias=COARSE, level=LEVEL, seed=SEEDS[0])
    assert [v.name for v in verdicts] == list(EXTERNAL_PROPERTIES)
    hidden = HIDDEN_BY_BF16 if piece.name == "sound_in_bf16" else set()
    for verdict in verdicts:
        if verdict.name in MEAN_PROPERTIES and verdict.name != POOLED:
            assert verdict.status == ("not applicable" if verdict.name in hidden else "holds"), verdict.name


def test_there_are_many_kinds() -> None:
    assert len(DEFECTS) >= 18
    assert len({piece.group for piece in DEFECTS}) == 5
    assert len({piece.description for piece in all_pieces().values()}) == len(all_pieces())
    assert {piece.law for piece in DEFECTS} >= {name for name in MEAN_PROPERTIES if "cancel" not in name} - {
        POOLED
    }
