"""Hooks around calls: arguments by name, example ids taken away, and an end for every begin."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wtacrs.integration.context.module_calls import EXAMPLE_IDS, ModuleCalls, takes_masks


class Told:
    """What a listener was told."""

    def __init__(self, fails: bool = False) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.fails = fails

    def begins(self, call: ModuleCalls, module: nn.Module, arguments: dict[str, Any]) -> None:
        self.told.append(("begins", call, sorted(arguments)))
        if self.fails:
            raise ZeroDivisionError

    def ends(self, call: ModuleCalls, output: Any) -> None:
        self.told.append(("ends", call, output))


class Takes(nn.Module):
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, *, labels: Any = None) -> Any:
        return (input_ids, attention_mask, labels)


class TakesIds(nn.Module):
    def forward(self, input_ids: Tensor, example_ids: Tensor) -> Tensor:
        return example_ids


class TakesAny(nn.Module):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs


class Peft(TakesAny):
    def get_base_model(self) -> nn.Module:
        return Takes()


A, B, IDS = torch.zeros(1), torch.ones(1), torch.arange(2)


def test_arguments_are_named_however_they_are_given() -> None:
    module, told = Takes(), Told()
    call = ModuleCalls(module, told, outermost=True)
    module(A, B)
    module(A, labels=3)
    module(attention_mask=B, input_ids=A)
    begun = [names for what, _, names in told.told if what == "begins"]
    assert begun == [["attention_mask", "input_ids"], ["input_ids", "labels"], ["attention_mask", "input_ids"]]
    assert [entry[0] for entry in told.told] == ["begins", "ends"] * 3
    assert all(entry[1] is call for entry in told.told)
    assert told.told[1][2] == (A, B, None)


def test_example_ids_are_taken_away_unless_the_model_takes_them() -> None:
    told = Told()
    takes, takes_ids, takes_any = Takes(), TakesIds(), TakesAny()
    for module in (takes, takes_ids, takes_any):
        ModuleCalls(module, told, outermost=True)
    assert takes(A, example_ids=IDS) == (A, None, None)
    assert takes_ids(A, example_ids=IDS) is IDS
    assert takes_any(A, example_ids=IDS, other=1) == ((A,), {"other": 1})
    assert all(EXAMPLE_IDS in entry[2] for entry in told.told if entry[0] == "begins")


@pytest.mark.parametrize("where", ["listener", "hook", "forward"])
def test_every_call_that_fails_is_ended(where: str) -> None:
    told = Told(fails=where == "listener")
    module = Takes()
    ModuleCalls(module, told, outermost=True)

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    if where == "hook":
        module.register_forward_pre_hook(fail)
    with pytest.raises(TypeError if where == "forward" else ZeroDivisionError):
        module(A, B, A, A) if where == "forward" else module(A)
    assert [entry[0] for entry in told.told] == ["begins", "ends"]
    assert told.told[1][2] is None


def test_a_module_inside_is_told_of_if_it_is_given_a_mask_of_rows() -> None:
    """By position or by name; blocks that get theirs with more axes, or none, are not worth the while."""
    told, module, rows = Told(), Takes(), torch.ones(2, 3)
    ModuleCalls(module, told, outermost=False)
    module(A), module(A, torch.ones(2, 1, 3, 3)), module(A, attention_mask="causal")
    assert [entry for entry in told.told if entry[0] == "begins"] == []
    module(A, rows), module(A, attention_mask=rows)
    assert len([entry for entry in told.told if entry[0] == "begins"]) == 2


def test_hooks_are_taken_off_and_known_to_be() -> None:
    module, told = Takes(), Told()
    call = ModuleCalls(module, told, outermost=True)
    assert call.hooked
    other = copy.deepcopy(module)
    call.remove()
    assert not call.hooked
    assert not module._forward_pre_hooks
    assert not module._forward_hooks
    module(A)
    assert told.told == []
    assert not copy.deepcopy(call).hooked
    (hook,) = other._forward_pre_hooks.values()
    assert hook.__self__.hooked
    assert hook.__self__ is not call


def test_which_modules_take_masks() -> None:
    assert takes_masks(Takes())
    assert takes_masks(Peft())
    assert not takes_masks(TakesAny())
    assert not takes_masks(TakesIds())
    assert not takes_masks(nn.Linear(2, 2))
    assert not takes_masks(torch.jit.script(nn.Linear(2, 2)))
