from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from multiview.segmentation import u2net


def iou(alpha: np.ndarray, true: np.ndarray) -> float:
    return float(((alpha >= 0.5) & (true >= 0.5)).sum() / ((alpha >= 0.5) | (true >= 0.5)).sum())


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any network's file, and no package that holds one."""
    for name in ("U2NET_HOME", "REMBG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setattr(u2net, "WEIGHTS_FOLDER", tmp_path / "ckpt")
    monkeypatch.setattr(
        u2net, "U2NET_DISTRIBUTIONS", {"u2net.onnx": "no-such-package", "u2netp.onnx": "pytest"}
    )
    return tmp_path
