from __future__ import annotations

from pathlib import Path

import pytest

from common.files import sha256
from renderer.reconstruction import ReconstructionResult
from tests.fakes import fake_reconstruct


@pytest.fixture
def quick_meshes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the reconstruction by placeholder files; returns the SHA-256 of each strip."""
    strips: list[str] = []

    def reconstruct(image: Path, *given) -> ReconstructionResult:
        strips.append(sha256(image))
        return fake_reconstruct(image, *given)

    monkeypatch.setattr("pipeline.image_to_3d.reconstruct", reconstruct)
    return strips
