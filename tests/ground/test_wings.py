"""The wings' public names: each is there, and none costs an import before it is used."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

WINGS = (
    "encoders", "runs", "prompts", "geometry", "tifa", "unet", "alignment", "drawing", "scores",
    "methods", "attacks", "evaluation",
)  # fmt: skip


@pytest.mark.parametrize("wing", WINGS)
def test_public_names_are_there_and_stay_there(wing: str) -> None:
    package = importlib.import_module(f"sage_core.{wing}")
    assert 3 <= len(package.__all__) < 12
    for _ in range(2):
        # The second time all modules are imported, and none may stand in a name's place.
        for name in package.__all__:
            value = getattr(package, name)
            assert type(value).__name__ != "module", f"{wing}.{name} is the module of that name"
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


def test_wings_cost_nothing_before_they_are_used() -> None:
    lines = [*(f"import sage_core.{wing}" for wing in WINGS), "import sys"]
    lines.append("print([name for name in ('torch', 'numpy', 'transformers', 'matplotlib') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
