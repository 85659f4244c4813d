from __future__ import annotations

from pathlib import Path

import pytest

from common.files import sha256
from pipeline.selection.ranking import SampleScore
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


@pytest.fixture
def quick_jobs(quick_meshes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the scoring of the samples, too, which takes most of a job's time."""
    score = SampleScore(score=0.5)
    monkeypatch.setattr("pipeline.selection.ranking.score_sample", lambda *_: score)
