"""A vocabulary from a text: the same every time, with the sentinels that its pieces need."""

from __future__ import annotations

from pathlib import Path

import pytest

from wtacrs.estimators import InputError
from wtacrs.integration.models.text_models import corpus_tokenizer
from wtacrs.integration.tasks.span_corruption import sentinels_of

TALE = "the sea was calm and old ships came home with salt wood iron rope for women men dogs of every harbour"


def test_the_same_text_gives_the_same_vocabulary(tmp_path: Path) -> None:
    file = tmp_path / "tales.txt"
    file.write_text("\n".join(TALE[4 * (i % 7) :] for i in range(50)), encoding="utf-8")
    one, same = (corpus_tokenizer(file, 300, 5) for _ in range(2))
    assert one.get_vocab() == same.get_vocab()
    assert len(sentinels_of(one)) == 5
    assert one.decode(one("old ships")["input_ids"], skip_special_tokens=True) == "old ships"


def test_what_it_refuses(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="text"):
        corpus_tokenizer(empty, 300)
    with pytest.raises(InputError, match="vocab_size"):
        corpus_tokenizer(empty, 20)
