from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from multiview.segmentation import SegmentationUnavailableError, clean_alpha, open_segmenter


def test_auto_without_anything_says_what_to_do(bare_machine: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "carvekit", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SegmentationUnavailableError, match=r"python -m multiview\.segmentation"):
        open_segmenter("auto")
    with pytest.raises(SegmentationUnavailableError, match="pip install carvekit"):
        open_segmenter("carvekit")
    (bare_machine / "ckpt").mkdir()
    (bare_machine / "ckpt" / "u2netp.onnx").touch()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SegmentationUnavailableError, match="pip install onnxruntime"):
        open_segmenter("auto")


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match=r"'sam', expected one of auto, u2net, carvekit, white"):
        open_segmenter("sam")


def test_clean_alpha_takes_away_haze_that_no_object_is_in():
    alpha = np.zeros((20, 20), np.float32)
    alpha[2:8, 2:8] = 0.3  # connected to the object
    alpha[4:6, 4:6] = 0.98
    alpha[15:, 15:] = 0.4  # not connected
    alpha[:, 0] = 0.05
    clean = clean_alpha(alpha)
    assert clean[4, 4] == 1
    assert clean[2, 2] == np.float32(0.3)
    assert clean[12:].max() == 0
    assert clean[:, 0].max() == 0
    assert clean_alpha(np.full((3, 3), 0.4)).max() == 0
