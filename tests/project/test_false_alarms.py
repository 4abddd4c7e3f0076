"""The accounts of the false-alarm budget balance."""

from __future__ import annotations

import re

from support.false_alarms import BUDGET, SHARES
from support.paths import TESTS


def claims() -> list[str]:
    sources = (path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py"))
    return [name for source in sources for name in re.findall(r'\bshare\(\s*"([^"]+)"', source)]


def test_shares_do_not_exceed_the_budget():
    assert all(level > 0 for level in SHARES.values())
    assert sum(SHARES.values()) <= BUDGET * (1 + 1e-12)


def test_every_share_is_claimed_exactly_once():
    assert sorted(claims()) == sorted(SHARES)
