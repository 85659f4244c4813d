from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiview.segmentation import SegmentationUnavailableError, open_segmenter
from multiview.segmentation.carvekit import CARVEKIT_WEIGHTS


class FakeHiInterface:
    """Stands for carvekit's interface: the left half is the object."""

    def __init__(self, **settings: object) -> None:
        self.settings = settings

    def __call__(self, images: list[Image.Image]) -> list[Image.Image]:
        rgba = images[0].convert("RGBA")
        alpha = np.zeros((rgba.height, rgba.width), np.uint8)
        alpha[:, : rgba.width // 2] = 255
        rgba.putalpha(Image.fromarray(alpha))
        return [rgba]


@pytest.fixture
def fake_carvekit(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that looks like carvekit, and files of the names of its weights."""
    high = types.ModuleType("carvekit.api.high")
    high.HiInterface = FakeHiInterface
    download = types.ModuleType("carvekit.utils.download_models")
    download.MODELS_CHECKSUMS = {"tracer_b7.pth": "right", "fba_matting.pth": "right"}
    download.sha512_checksum_calc = Path.read_text
    package = types.ModuleType("carvekit")
    package.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "carvekit", package)
    others = [types.ModuleType(name) for name in ("carvekit.api", "carvekit.utils")]
    for module in (high, download, *others):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    folder = bare_machine / ".cache" / "carvekit" / "checkpoints"
    for name in CARVEKIT_WEIGHTS:
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("right")
    return folder


def test_carvekit_is_asked_as_the_published_script_asks_it_and_auto_prefers_it(fake_carvekit):
    segmenter = open_segmenter("auto", "cpu")
    trimap = {"trimap_prob_threshold": 231, "trimap_dilation": 30, "trimap_erosion_iters": 5}
    sizes = {"seg_mask_size": 640, "matting_mask_size": 2048, "fp16": False, "device": "cpu"}
    batches = {"object_type": "object", "batch_size_seg": 5, "batch_size_matting": 1}
    assert segmenter.interface.settings == {**trimap, **sizes, **batches}
    alpha = segmenter(np.zeros((4, 6, 3), np.float32))
    assert alpha.dtype == np.float32
    assert np.array_equal(alpha, np.tile(np.float32([1, 1, 1, 0, 0, 0]), (4, 1)))


def test_carvekit_without_its_weights_names_them_and_downloads_nothing(fake_carvekit: Path):
    path = fake_carvekit / "tracer_b7" / "tracer_b7.pth"
    path.write_text("wrong")
    with pytest.raises(SegmentationUnavailableError, match=r"tracer_b7\.pth: not the weights"):
        open_segmenter("carvekit", "cpu")
    assert path.exists()
    path.unlink()
    with pytest.raises(SegmentationUnavailableError, match=r"tracer_b7\.pth"):
        open_segmenter("carvekit", "cpu")


@pytest.mark.slow
def test_the_real_carvekit_constructs_and_runs_with_untrained_weights(bare_machine, monkeypatch):
    """The trained weights are a download; this shows that the package is called rightly."""
    pytest.importorskip("carvekit")
    import hashlib

    import torch
    from carvekit.ml.wrap.fba_matting import FBAMatting
    from carvekit.ml.wrap.tracer_b7 import TracerUniversalB7
    from carvekit.utils import download_models

    folder = bare_machine / ".cache" / "carvekit" / "checkpoints"
    monkeypatch.setattr(download_models.downloader, "cache_dir", folder)
    networks = (
        TracerUniversalB7(load_pretrained=False, model_path="none"),
        FBAMatting(load_pretrained=False),
    )
    for name, network in zip(CARVEKIT_WEIGHTS, networks, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True)
        torch.save(network.state_dict(), path)
        checksum = hashlib.sha512(path.read_bytes()).hexdigest()
        monkeypatch.setitem(download_models.MODELS_CHECKSUMS, path.name, checksum)
    alpha = open_segmenter("carvekit", "cpu")(np.zeros((48, 64, 3), np.float32))
    assert alpha.shape == (48, 64)
    assert 0 <= alpha.min() <= alpha.max() <= 1
