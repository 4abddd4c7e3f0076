"""Bytes by owner: what is held alone and what is shared adds up, by whatever owners are told apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wtacrs.validation.records.owners import (
    By,
    KeptStorage,
    Owner,
    freed_by,
    owner_bytes,
    shared_bytes,
    within,
)

OWNERS = st.builds(
    Owner,
    module=st.sampled_from(["a.0", "a.1", "a.1.b", "c"]),
    type=st.sampled_from(["Linear", "ReLU"]),
    operation=st.sampled_from(["MulBackward0", "ReluBackward0"]),
)
STORAGES = st.lists(
    st.builds(
        KeptStorage,
        bytes=st.integers(1, 100),
        shape=st.just([1]),
        dtype=st.just("float32"),
        owners=st.lists(OWNERS, min_size=1, max_size=4, unique_by=str),
    ),
    max_size=12,
)


@given(STORAGES, st.sampled_from(["module", "pattern", "operation", "type"]))
def test_alone_and_shared_add_up(kept: list[KeptStorage], by: By) -> None:
    found = owner_bytes(kept, by)
    assert sum(entry.alone for entry in found) + shared_bytes(kept, by) == sum(entry.bytes for entry in kept)
    assert [entry.held for entry in found] == sorted((entry.held for entry in found), reverse=True)
    assert all((entry.storages > 0) == (entry.held > 0) for entry in found)
    assert freed_by(kept) == sum(entry.bytes for entry in kept)
    for entry in found:
        if by in ("operation", "type"):
            assert freed_by(kept, **{by: entry.name}) == entry.alone
        elif by == "pattern":
            assert freed_by(kept, entry.name) >= entry.alone  # modules within count too


def test_patterns_name_modules_and_those_within() -> None:
    assert within("a.1.b", "a.1")
    assert not within("a.10.b", "a.1")
    assert within("a.1.b", "*.b")
    names = [Owner(module=name, type="Linear", operation="x") for name in ("a.0.b", "a.1.b")]
    kept = [KeptStorage(bytes=8, shape=[2], dtype="float32", owners=names)]
    (entry,) = owner_bytes(kept, "pattern")
    assert (entry.name, entry.alone, entry.shared, entry.storages) == ("a.*.b", 8, 0, 1)
    assert [(found.alone, found.shared) for found in owner_bytes(kept)] == [(0, 8), (0, 8)]
    assert (freed_by(kept, "a.0"), freed_by(kept, "a")) == (0, 8)
