"""What `lean_` is asked for beyond the neighbours of linear layers, as one value that is written, read and compared.

>>> LeanOptions.parse("attention-again,head")
LeanOptions(attention='again', head='forward', bits=None, dropout='stock')
>>> str(LeanOptions(bits=8))
'8-bit'
>>> str(LeanOptions())
'neighbours'
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from wtacrs.estimators.core.errors import InputError

AttentionMode = Literal["keep", "again"]
"""`keep`: q, k, v are kept, and no probabilities. `again`: what q, k, v are projected from is kept in their place."""
HeadMode = Literal["forward", "again"]
"""`forward`: gradients of the output layer are computed in the forward pass. `again`: its logits are computed twice."""
Bits = Literal[8, 4]
DropoutMode = Literal["stock", "quick"]
"""`stock`: masks are those of the stock model, bit for bit. `quick`: masks of the same law, cheaper to draw."""

NEIGHBOURS = "neighbours"
_WORDS: dict[str, tuple[str, Any]] = {
    "attention": ("attention", "keep"),
    "attention-again": ("attention", "again"),
    "head": ("head", "forward"),
    "head-again": ("head", "again"),
    "8-bit": ("bits", 8),
    "4-bit": ("bits", 4),
    "quick-dropout": ("dropout", "quick"),
}


@dataclass(frozen=True)
class LeanOptions:
    """Options of `lean_`: norms, dropout, activations and recipes always, and what is named here.

    Attributes:
        attention: how attention is lean; None leaves it stock.
        head: how output layers with their loss are lean; None leaves them stock.
        bits: of the unbiased codes of derivatives of activations; None keeps them exactly.
        dropout: how masks are drawn.

    Raises:
        InputError: on another value.
    """

    attention: AttentionMode | None = None
    head: HeadMode | None = None
    bits: Bits | None = None
    dropout: DropoutMode = "stock"

    def __post_init__(self) -> None:
        _check("attention", self.attention, AttentionMode, optional=True)
        _check("head", self.head, HeadMode, optional=True)
        _check("bits", self.bits, Bits, optional=True)
        _check("dropout", self.dropout, DropoutMode)

    def __str__(self) -> str:
        values = asdict(self)
        words = [word for word, (name, value) in _WORDS.items() if values[name] == value]
        return ",".join(words) or NEIGHBOURS

    @classmethod
    def parse(cls, text: str, argument: str = "lean") -> LeanOptions:
        """Read what `str` writes: words joined by commas.

        Args:
            text: such as "attention-again,head-again,8-bit"; "neighbours" stands for no word.
            argument: that an error names.

        Raises:
            InputError: on an unknown word, and on two words for one option.
        """
        found: dict[str, Any] = {}
        for word in (part.strip() for part in text.split(",")):
            if word == NEIGHBOURS:
                continue
            if word not in _WORDS:
                near = difflib.get_close_matches(word, [*_WORDS, NEIGHBOURS], n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                accepted = ", ".join([NEIGHBOURS, *_WORDS])
                raise InputError(f"{argument}={text!r}: {word!r} is none of {accepted}{hint}")
            name, value = _WORDS[word]
            if found.setdefault(name, value) != value:
                raise InputError(f"{argument}={text!r} asks for two kinds of {name}")
        return cls(**found)

    @classmethod
    def of(cls, value: bool | str | LeanOptions, argument: str = "lean") -> LeanOptions | None:
        """The options that an argument stands for; None for False.

        Raises:
            InputError: on what is no flag, text or options.
        """
        if isinstance(value, LeanOptions):
            return value
        if isinstance(value, str):
            return cls.parse(value, argument)
        if isinstance(value, bool):
            return cls() if value else None
        raise InputError(
            f"{argument}={value!r} must be True, False, words such as 'attention,head', or LeanOptions"
        )

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `lean_`."""
        return asdict(self)


def _check(name: str, value: object, kind: Any, *, optional: bool = False) -> None:
    accepted = get_args(kind)
    if (optional and value is None) or any(type(value) is type(a) and value == a for a in accepted):
        return
    words = ", ".join(map(str, accepted))
    raise InputError(
        f"{name}={value!r} must be {'None, ' if optional else ''}{' or '.join(words.rsplit(', ', 1))}"
    )
