from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    import torch

GOLDENS = Path(__file__).parents[1] / "data" / "renderer_goldens.npz"


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """What the published code computes."""
    torch = pytest.importorskip("torch")
    with np.load(GOLDENS) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """More do not help so small fields, and fight for the cores with whatever else runs."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def strip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.renderer.small_runs import write_strip

    return write_strip(tmp_path_factory.mktemp("strip") / "0.png")
