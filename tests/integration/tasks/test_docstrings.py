"""The docstrings task: balanced, deterministic, the answer not written in the text, nothing on both sides."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.tasks.docstring_text import MASK, mask_names, normalised, plain_sentences
from wtacrs.integration.tasks.docstrings import LIBRARIES, Sentence, docstrings, in_dev, load_sentences

Split = tuple[list[Sentence], list[Sentence]]


@pytest.fixture(scope="module")
def split() -> Split:
    """The whole task in its default size."""
    return load_sentences()


@pytest.fixture(scope="module")
def both(split: Split) -> list[Sentence]:
    """Train and dev in one list."""
    return split[0] + split[1]


def test_sizes_and_balance(split: Split) -> None:
    train, dev = split
    assert Counter(s.library for s in train) == dict.fromkeys(LIBRARIES, 2000)
    assert Counter(s.library for s in dev) == dict.fromkeys(LIBRARIES, 120)


def test_every_fifth_sentence_is_of_one_library(split: Split) -> None:
    for side in split:
        for index, library in enumerate(LIBRARIES):
            assert {s.library for s in side[index :: len(LIBRARIES)]} == {library}


def test_no_sentence_occurs_twice(both: list[Sentence]) -> None:
    texts = Counter(normalised(s.text) for s in both)
    assert max(texts.values()) == 1


def test_no_library_is_named(both: list[Sentence]) -> None:
    named = re.compile(r"torch|numpy|scipy|matplotlib|python|pyplot|\b(?:np|plt|mpl)\b", re.IGNORECASE)
    assert [s.text for s in both if named.search(s.text)] == []


def test_the_mask_alone_does_not_give_the_answer(both: list[Sentence]) -> None:
    masked = Counter(s.library for s in both if MASK in s.text.split())
    assert len(masked) == len(LIBRARIES)
    assert sum(masked.values()) < 0.25 * len(both)


def test_no_object_on_both_sides(split: Split) -> None:
    train, dev = ({s.name.strip("_").casefold() for s in side} for side in split)
    assert train.isdisjoint(dev)
    assert not any(in_dev(name) for name in train)
    assert all(in_dev(name) for name in dev)


def test_no_near_duplicate_on_both_sides(split: Split) -> None:
    """By comparing every pair; the extraction takes a short cut through the rarest words."""
    bags = CountVectorizer(binary=True, lowercase=False, token_pattern=r"\S+")
    bags.fit([normalised(s.text) for s in split[0] + split[1]])
    train, dev = (bags.transform([normalised(s.text) for s in side]).astype(float) for side in split)
    common = (dev @ train.T).toarray()
    union = dev.sum(axis=1).reshape(-1, 1) + train.sum(axis=1).reshape(1, -1) - common
    assert (common / np.asarray(union)).max() < 0.7


def test_sentences_are_plain_text(both: list[Sentence]) -> None:
    assert all(8 <= len(s.text.split()) <= 40 for s in both)
    assert all(s.text[0].isupper() and s.text[-1] in ".!?" for s in both)
    assert not any("\n" in s.text or ">>>" in s.text or "``" in s.text for s in both)


def test_a_second_call_gives_new_lists_of_the_same(split: Split) -> None:
    again = load_sentences()
    assert again == split
    again[0].clear()
    assert load_sentences() == split


def test_another_process_gives_the_same() -> None:
    """Sets and hashes of strings differ between processes: nothing may depend on them."""
    program = "from wtacrs.integration.tasks.docstrings import load_sentences; print(ascii(load_sentences(20, 4)))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ascii(load_sentences(20, 4)) + "\n"


@pytest.mark.parametrize(("train", "dev", "named"), [(0, 5, "train_per_library=0"), (5, -1, "dev_per_library=-1")])
def test_quota_below_one(train: int, dev: int, named: str) -> None:
    with pytest.raises(InputError, match=named):
        load_sentences(train, dev)


def test_share_of_names_in_dev() -> None:
    share = sum(in_dev(f"function_{i}") for i in range(4000)) / 4000
    assert abs(share - 0.08) < 5 * math.sqrt(0.08 * 0.92 / 4000)


def test_private_and_public_name_fall_on_one_side() -> None:
    assert all(in_dev(f"_{name}") == in_dev(name) == in_dev(name.upper()) for name in ("fit", "relu", "solve_it"))


def test_docstrings_of_a_source_text() -> None:
    source = '''"""Module."""
class A:
    """Class."""
    def f(self):
        """Method."""
add_docstr(module.g, r"""
g(x) attached""")
add_newdoc("module", "h", "h of x attached")
'''
    assert sorted(docstrings(source, "m")) == [
        ("A", "Class."),
        ("f", "Method."),
        ("g", "\ng(x) attached"),
        ("h", "h of x attached"),
        ("m", "Module."),
    ]


def test_plain_sentences_leave_out_tables_code_and_directives() -> None:
    text = """Return the sum of all the elements along the given axis.

    Parameters
    ----------
    x : array
        The array whose elements are summed along the axis given here.

    Notes
    -----
    The result of :func:`~numpy.sum` is the same as ``torch.sum`` for arrays of integers, e.g. for indices.

    .. math:: This formula is no sentence although it looks a lot like one here.

    >>> the_output_of_code(is_no_sentence_although_it_ends_like_one).
    """
    assert list(plain_sentences(text)) == [
        "Return the sum of all the elements along the given axis.",
        "The result of sum is the same as library for arrays of integers, e.g. for indices.",
    ]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("A NumPy array and a torch.Tensor", "A library array and a library"),
        ("uses np.dot or scipy.linalg, in Python.", "uses library or library, in library."),
        ("the numbers of a simple plot", "the numbers of a simple plot"),
    ],
)
def test_mask_names(text: str, masked: str) -> None:
    assert mask_names(text) == masked
