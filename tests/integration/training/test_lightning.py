"""The callback of Lightning: converted while it trains, stock while it validates, resumed bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from wtacrs.estimators import InputError
from wtacrs.integration.layers.linear import ApproxLinear

L = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed: pip install lightning")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).square())


class Module(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = Net()
        self.seen: list[bool] = []
        self.converted: list[bool] = []

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        self.converted.append(any(isinstance(m, ApproxLinear) for m in self.modules()))
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        self.seen.append(any(isinstance(m, ApproxLinear) for m in self.modules()))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def loader() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(128, 16, generator=generator)
    return DataLoader([(row, int(row[0] > 0)) for row in x], batch_size=32)


def trainer(folder: Path, callback: Any, epochs: int, **options: Any) -> Any:
    return L.Trainer(
        max_epochs=epochs,
        callbacks=[callback],
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        **options,
    )


def callback(**options: Any) -> Any:
    from wtacrs.integration.training.lightning import WtacrsLightningCallback

    return WtacrsLightningCallback("crs(budget=0.4)", min_elements=0, seed=5, **options)


def test_it_trains_by_estimates_and_validates_stock(tmp_path: Path) -> None:
    module, ours = Module(), callback()
    trainer(tmp_path, ours, 2, num_sanity_val_steps=0).fit(module, loader(), loader())
    assert module.converted == [True] * 8
    assert module.seen == [False] * 8
    assert not any(isinstance(m, ApproxLinear) for m in module.modules())
    assert set(ours.conversion) == {"first", "second"}
    assert ours.receipt is not None
    assert ours.receipt.layers == 2
    assert set(ours.measured) == {"first", "second"}


def test_a_resumed_run_ends_as_a_whole_one(tmp_path: Path) -> None:
    whole, part, resumed = Module(), Module(), Module()
    trainer(tmp_path / "whole", callback(), 2).fit(whole, loader())
    stopped = trainer(tmp_path / "part", callback(), 1)
    stopped.fit(part, loader())
    stopped.save_checkpoint(tmp_path / "late.ckpt")
    path = next((tmp_path / "part").rglob("*.ckpt"))
    trainer(tmp_path / "again", callback(), 2).fit(resumed, loader(), ckpt_path=path)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    other = callback(mask_floor=0.2)
    with pytest.raises(InputError, match=r"ckpt_path: layer 'first' was trained by crs"):
        trainer(tmp_path / "other", other, 2).fit(Module(), loader(), ckpt_path=path)


def test_draws_matter(tmp_path: Path) -> None:
    """Power of the test before: without the state of the draws the end is another."""
    one, two = Module(), Module()
    trainer(tmp_path / "one", callback(), 1).fit(one, loader())
    other = callback()
    other.seed = 6
    trainer(tmp_path / "two", other, 1).fit(two, loader())
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_an_exception_gives_the_stock_model_back(tmp_path: Path) -> None:
    module = Module()
    module.training_step = lambda *_: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        trainer(tmp_path, callback(), 1).fit(module, loader())
    assert not any(isinstance(m, ApproxLinear) for m in module.modules())


def test_a_part_that_is_named(tmp_path: Path) -> None:
    module, ours = Module(), callback(module="net.first")
    trainer(tmp_path, ours, 1).fit(module, loader())
    assert list(ours.conversion) == [""]
    with pytest.raises(InputError, match="module='head': Module has no such part; its children are net"):
        trainer(tmp_path, callback(module="head"), 1).fit(Module(), loader())
