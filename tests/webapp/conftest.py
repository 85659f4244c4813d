from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipeline.paths import EXPORTED
from renderer.config import RendererConfig
from renderer.output_dir import CHECKPOINT
from renderer.reconstruction import ReconstructionOptions, ReconstructionResult


@pytest.fixture
def quick_meshes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the reconstruction by placeholder files; returns the SHA-256 of each strip."""
    strips: list[str] = []

    def reconstruct(
        image: Path, folder: Path, config: RendererConfig, options: ReconstructionOptions
    ) -> ReconstructionResult:
        strip = image.read_bytes()
        strips.append(hashlib.sha256(strip).hexdigest())
        (folder / CHECKPOINT).parent.mkdir(parents=True, exist_ok=True)
        (folder / CHECKPOINT).touch()
        for fraction in (0.0, 0.5, 1.0):
            options.progress("training", fraction)
        for name in EXPORTED:
            (folder / name).write_bytes(b"glTF" + strips[-1].encode())
        (folder / "metrics.json").write_text("{}")
        return ReconstructionResult({}, None)

    monkeypatch.setattr("pipeline.image_to_3d.reconstruct", reconstruct)
    return strips
