from __future__ import annotations

from pathlib import Path

import pytest

from tests.renderer.formats.toy import write_toy


@pytest.fixture(scope="package")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mesh.glb of a textured toy, closed and manifold."""
    return write_toy(tmp_path_factory.mktemp("toy"))
