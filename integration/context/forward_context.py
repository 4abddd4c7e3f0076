"""`ForwardContext`: what the layers of a model may know of the forward pass that they run in.

Hooks on the model, and on the modules inside that take masks, read the arguments that Hugging Face models take, and make
a `ForwardPass` of them. Its parts come from files of their own: masks, tokens, example ids, random numbers. Layers look
the pass up, also when activation checkpointing runs them again (`Recomputation`).
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wtacrs.estimators.core.errors import InputError, WtacrsWarning
from wtacrs.integration.context.draws import Draws, check_draws
from wtacrs.integration.context.forward_pass import ForwardPass, Frame
from wtacrs.integration.context.freed_bytes import FreedBytes
from wtacrs.integration.context.mask_watch import MaskWatch, check_misled
from wtacrs.integration.context.masks import TARGET_ARGUMENTS, as_mask, mask_sources
from wtacrs.integration.context.module_calls import EXAMPLE_IDS, ModuleCalls, takes_masks
from wtacrs.integration.context.recomputation import Recomputation, tensors_with_gradient
from wtacrs.integration.context.score_memory_protocol import NOT_COMPILED, ScoreMemory
from wtacrs.integration.context.streams import is_encoder_decoder
from wtacrs.integration.context.tokens import tokens_from_arguments


class _Call(NamedTuple):
    """A call under way in this thread, whether the forward pass that it belongs to began with it, and its depth."""

    call: ModuleCalls
    within: ForwardPass
    began: bool
    depth: int


class _Thread(threading.local):
    """What belongs to the thread that runs a forward pass."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.given: list[tuple[Frame, Tensor | None]] = []


class ForwardContext:
    """Owns the hooks on a model, and the forward passes under way; `given` states masks and ids by hand.

    A forward pass belongs to the thread that runs it. Outside of any nothing is known of the layers, unless activation
    checkpointing runs them again (see `Recomputation`). The hook takes the argument `example_ids` away before the model
    sees it: `[batch]`, the positions of the examples in their data set, for scores that are remembered by example.

    Compiled code has the masks of the model's own arguments, and nothing else.

    Args:
        model: the module to hook; its `forward` is where the arguments arrive.
        seed: of the layers' random numbers (see `Draws`).

    Attributes:
        draws: the layers' random numbers.
        watch: layers that masks mislead.
        score_memory: what the scores of the layers are remembered in, if they are.
        told_uncounted: whether it was said that live rows are not counted (see `EstimatedWeightGrad`).
        after_first_backward: runs when the first backward pass of layers that draw is over; copies do without.
    """

    def __init__(self, model: nn.Module, *, seed: int | None = None) -> None:
        self.draws = Draws(seed)
        self.watch = MaskWatch()
        self.score_memory: ScoreMemory | None = None
        self._thread = _Thread()
        self._compiled: ForwardPass | None = None
        self.told_uncounted = False
        self.after_first_backward: Callable[[], None] | None = None
        self._balanced = False
        self._recomputation = Recomputation(self.draws)
        self._calls = [ModuleCalls(model, self, outermost=True)]
        self.hook_inside(model)

    def hook_inside(self, model: nn.Module) -> None:
        """Hook the modules inside that take masks, those that are not hooked yet."""
        for module in model.modules():
            hooked = any(call.listener is self for call in ModuleCalls.on(module))
            if not hooked and takes_masks(module):
                self._calls.append(ModuleCalls(module, self, outermost=False))

    @staticmethod
    def of(model: nn.Module) -> ForwardContext | None:
        """The context whose outermost hooks sit on this very module, or None."""
        listeners = (call.listener for call in ModuleCalls.on(model) if call.outermost)
        return next((found for found in listeners if isinstance(found, ForwardContext)), None)

    @staticmethod
    def leave(model: nn.Module) -> None:
        """Take off this very module the hooks of all contexts, and those of its own context off everything inside."""
        context = ForwardContext.of(model)
        if context is not None:
            context.remove()
        for call in ModuleCalls.on(model):  # of a model around it, which may be gone
            call.remove()

    @property
    def hooked(self) -> bool:
        """Whether the hooks are on a model: not after `remove`, and not in a copy of a layer without its model."""
        return self._calls[0].hooked

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to threads and backward passes."""
        state = dict(self.__dict__)
        for name in ("_thread", "_compiled", "_recomputation"):
            state.pop(name)
        return {**state, "after_first_backward": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _thread=_Thread(), _compiled=None)
        self._recomputation = Recomputation(self.draws)

    def remove(self) -> None:
        """Take the hooks off the model."""
        for call in self._calls:
            call.remove()

    @property
    def current(self) -> ForwardPass | None:
        """The forward pass under way in this thread, or the one that is being recomputed.

        Outside of both it is a new pass of which nothing is known. In compiled code it is None there.
        """
        if torch.compiler.is_compiling():
            return self._compiled
        known = self._known()
        return ForwardPass(self.draws, known=False) if known is None else known

    @contextmanager
    def given(
        self, *, source: Tensor | None = None, target: Tensor | None = None, ids: Tensor | None = None
    ) -> Iterator[None]:
        """State masks and ids by hand around a forward pass, before all that its arguments say.

        Args:
            source: `[batch, positions]`, True or 1 for a row that may carry a gradient, of the sequence that is read.
            target: the same of the decoder's sequence.
            ids: int64 `[batch]`, positions of the examples in their data set.

        Raises:
            InputError: if a mask is no such tensor.
        """
        masks = [
            _stated(name, mask) for name, mask in (("source", source), ("target", target)) if mask is not None
        ]
        self._thread.given.append((Frame(masks), ids))
        try:
            yield
        finally:
            self._thread.given.pop()

    def state_dict(self) -> dict[str, Any]:
        """What the next draws of this process depend on: numbers and texts alone, as JSON holds them.

        `seed` and `passes` of the draws, and in `misled` the layers that use no mask any more.
        """
        return {**self.draws.state_dict(), "misled": self.watch.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            InputError: if it is no such state.
        """
        check_draws(state)
        check_misled(state.get("misled"))
        self.draws.load_state_dict(dict(state))
        self.watch.load_state_dict(state["misled"])

    def begins(self, call: ModuleCalls, module: nn.Module, arguments: dict[str, Any]) -> None:
        """Begin a forward pass, or enter the call into the one under way."""
        if torch.compiler.is_compiling() and self.score_memory is None:
            if call.outermost:
                self._compiled = self._begun(call, module, arguments, None)
            return
        self._begins(call, module, arguments)

    def ends(self, call: ModuleCalls, output: Any) -> None:
        """Leave the call; a forward pass ends with the call that it began with."""
        if torch.compiler.is_compiling() and self.score_memory is None:
            if call.outermost:
                self._compiled = None
            return
        self._ends(call, output)

    @torch.compiler.disable(reason=NOT_COMPILED)  # type: ignore[untyped-decorator]
    def _begins(self, call: ModuleCalls, module: nn.Module, arguments: dict[str, Any]) -> None:
        if getattr(module, "_is_replica", False):
            raise InputError(
                f"model={type(module).__name__}: nn.DataParallel over several devices replicates it at every call, which "
                "estimated layers do not support; start one process per device with torchrun"
            )
        depth = _stack_depth()
        self._thread.calls = [entry for entry in self._thread.calls if entry.depth < depth]
        known = self._recomputed() if call.outermost else self._known()
        if known is None:
            self._recomputation.forget()
            self.watch.enter()
            ids = self.score_memory.ids if self.score_memory is not None else None
            begun = self._begun(call, module, arguments, ids)
            begun.freed = None if self._balanced else FreedBytes()
            self._thread.calls.append(_Call(call, begun, True, depth))
        else:
            known.enter(_frame(call, module, arguments))
            self._thread.calls.append(_Call(call, known, False, depth))

    def _begun(
        self, call: ModuleCalls, module: nn.Module, arguments: dict[str, Any], ids: Tensor | None
    ) -> ForwardPass:
        given = [] if torch.compiler.is_compiling() else self._thread.given
        by_hand = next((stated for _, stated in reversed(given) if stated is not None), ids)
        begun = ForwardPass(self.draws, ids=arguments.get(EXAMPLE_IDS, by_hand))
        begun.give([frame for frame, _ in reversed(given)])
        begun.enter(_frame(call, module, arguments))
        return begun

    @torch.compiler.disable(reason=NOT_COMPILED)  # type: ignore[untyped-decorator]
    def _ends(self, call: ModuleCalls, output: Any) -> None:
        calls = self._thread.calls
        if not calls or calls[-1].call is not call:
            return  # another hook failed before this call was entered
        _, within, began, _ = calls.pop()
        within.leave()
        if began:
            within.forget_calls()
            self._recomputation.watch(within, output)
            self._balance(within, output)

    def _balance(self, ended: ForwardPass, output: Any) -> None:
        """See, when the backward pass of the first pass that draws begins, whether the conversion frees anything."""
        freed, ended.freed = ended.freed, None
        if freed is None or not freed.calls or self._balanced:
            return

        def tell(_: Tensor) -> None:
            if self._balanced:
                return
            self._balanced = True
            told = freed.told()
            if told is not None:
                warnings.warn(told, WtacrsWarning, stacklevel=2)
            if self.after_first_backward is not None:
                torch.autograd.Variable._execution_engine.queue_callback(self.after_first_backward)

        for tensor in tensors_with_gradient(output):
            tensor.register_hook(tell)

    def _known(self) -> ForwardPass | None:
        calls = self._thread.calls
        if calls:
            return calls[-1].within
        recomputed = self._recomputation.current
        if recomputed is None and self._thread.given:
            return self._by_hand()
        return recomputed

    def _recomputed(self) -> ForwardPass | None:
        """The pass that checkpointing around the whole model runs again: not a new one, with draws of its own."""
        recomputed = None if self._thread.calls else self._recomputation.current
        return recomputed if recomputed is not None and recomputed.known else None

    def _by_hand(self) -> ForwardPass:
        """A layer that runs by itself within `given`."""
        alone = ForwardPass(self.draws, ids=self._thread.given[-1][1], known=False)
        alone.give([frame for frame, _ in reversed(self._thread.given)])
        return alone


def _stated(name: str, mask: object) -> Tensor:
    found = as_mask(mask)
    if found is None:
        told = list(mask.shape) if isinstance(mask, Tensor) else repr(mask)
        raise InputError(
            f"{name}={told} must be a tensor [batch, positions], True for a row that may carry a gradient"
        )
    return found


def _stack_depth() -> int:
    """How deep in calls of Python this is: what lies as deep and is not over was interrupted (Ctrl-C), and is gone."""
    frame, depth = sys._getframe(), 0
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    return depth


def _frame(call: ModuleCalls, module: nn.Module, arguments: Mapping[str, Any]) -> Frame:
    two_halves = is_encoder_decoder(module)
    told = any(arguments.get(name) is not None for name in TARGET_ARGUMENTS)
    sources = mask_sources(two_halves, arguments)
    return Frame(
        [mask for _, mask in sources],
        tokens_from_arguments(two_halves, arguments),
        [argument for argument, _ in sources],
        open=two_halves and call.takes(TARGET_ARGUMENTS) and not told,
    )
