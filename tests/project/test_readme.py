"""What the README shows runs, and what it links to is there."""

from __future__ import annotations

import re

import pytest
from support.paths import ROOT

from wtacrs.estimators import available

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("unchecked")
def test_the_python_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(examples[0].splitlines()) <= 20
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})
    assert "torch.Size([32, 64])" in capsys.readouterr().out


def test_files_it_links_to_exist() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)


def test_every_estimator_is_in_its_table() -> None:
    assert all(f"| `{name}" in README for name in available())
