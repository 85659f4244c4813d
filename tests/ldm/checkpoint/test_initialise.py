"""The weights that training begins with."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ldm.checkpoint import initialise
from ldm.checkpoint.initialise import (
    CLIP_IN_ZERO123,
    CLIP_PREFIX,
    FIRST_LAYER,
    init_model,
    load_pretrained,
)
from ldm.checkpoint.load import empty_model, fingerprint
from ldm.config import SyncDreamerConfig
from ldm.model import SyncDreamer
from ldm.networks.clip import CLIPConfig, CLIPVisual

NEW = (
    "time_embed.", "spatial_volume.", "model.diffusion_model.middle_conditions.",
    "model.diffusion_model.output_conditions.",
)  # fmt: skip
IGNORED_SCHEDULE = (
    "alphas_cumprod_prev", "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod", "posterior_mean_coef1", "posterior_mean_coef2",
)  # fmt: skip


def zero123_names(model: SyncDreamer) -> dict[str, Tensor]:
    """A file with the names of zero123-xl.ckpt: 1938 with those of the moving average."""
    state = model.state_dict()
    own = ("alphas", "poses", "Ks", "azimuth")
    kept = [n for n in state if not n.startswith((*NEW, CLIP_PREFIX)) and n not in own]
    file = {name: state[name].clone() + 0.25 for name in kept}
    file.update({name: torch.zeros(1000) for name in IGNORED_SCHEDULE})
    clip = [name for name in state if name.startswith(CLIP_PREFIX)]
    for name in clip:
        file[CLIP_IN_ZERO123 + name.removeprefix(CLIP_PREFIX)] = state[name].clone() - 0.5
    for name in [n for n in kept if n.startswith("model.diffusion_model.")]:
        file["model_ema." + name.removeprefix("model.").replace(".", "")] = torch.zeros(1)
    return {**file, "model_ema.decay": torch.zeros(()), "model_ema.num_updates": torch.zeros(())}


@pytest.fixture
def model(small_config: SyncDreamerConfig) -> SyncDreamer:
    return init_model(small_config, seed=1)


def saved(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save({"state_dict": state, "epoch": 3}, path)
    return path


def test_the_names_of_zero123_are_counted_as_in_the_published_code():
    model = empty_model(SyncDreamerConfig())
    names = zero123_names(model)
    assert len(names) == 1938
    assert len([name for name in model.state_dict() if name in names]) == 942


def test_what_zero123_has_is_taken_and_the_rest_is_fresh(model: SyncDreamer, tmp_path: Path):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    file = zero123_names(model)
    report = load_pretrained(model, saved(tmp_path / "zero123.ckpt", file), "auto")
    after = model.state_dict()
    assert not report.adapted
    for name, tensor in after.items():
        clip = CLIP_IN_ZERO123 + name.removeprefix(CLIP_PREFIX)
        if name in file:
            assert name in report.loaded
        elif not name.startswith(CLIP_PREFIX):
            assert name in report.initialised
        assert torch.equal(tensor, file.get(name, file.get(clip, before[name])))
    assert report.clip.endswith("zero123.ckpt")
    loaded, initialised, *_ = report.lines()
    assert loaded.startswith(f"{len(report.loaded)} tensors loaded")
    assert initialised.startswith(f"{len(report.initialised)} tensors initialised")


def test_the_first_layer_of_a_file_with_four_channels_is_widened(model, tmp_path: Path):
    file = zero123_names(model)
    file[FIRST_LAYER] = file[FIRST_LAYER][:, :4].clone()
    report = load_pretrained(model, saved(tmp_path / "sd.ckpt", file), "auto")
    assert report.adapted == [FIRST_LAYER]
    layer = model.unet.input_blocks[0][0].weight
    assert torch.equal(layer[:, :4], file[FIRST_LAYER])
    assert not layer[:, 4:].any()


@pytest.mark.integration
def test_a_checkpoint_of_ours_gives_every_name(small_model, model, tmp_path: Path):
    path = saved(tmp_path / "ours.ckpt", small_model.state_dict())
    report = load_pretrained(model, path, "auto")
    assert len(report.loaded) == len(model.state_dict())
    assert not report.initialised
    assert fingerprint(model.state_dict()) == fingerprint(small_model.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: {"a.b": torch.zeros(3)}, "none of its names"),
        (lambda file: {k: v for k, v in file.items() if k != FIRST_LAYER}, "no model.diffusion"),
        (lambda file: {**file, FIRST_LAYER: torch.zeros(32, 9, 3, 3)}, "another shape.*blocks"),
        (lambda file: {**file, "cc_projection.weight": torch.zeros(2, 2)}, "cc_projection.weight"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(model, tmp_path: Path, change, message: str):
    path = saved(tmp_path / "wrong.ckpt", change(zero123_names(model)))
    with pytest.raises(ValueError, match=message) as error:
        load_pretrained(model, path, "auto")
    assert str(path) in str(error.value)


def test_fresh_weights_follow_from_the_seed(small_config):
    one, two, other = (init_model(small_config, seed).time_embed[0].weight for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.fixture
def no_clip_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither the working directory nor the project has CLIP's file; returns the project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(initialise, "PROJECT", tmp_path / "project")
    return tmp_path / "project"


@pytest.mark.parametrize("whole", [True, False])
def test_clip_is_needed_as_a_whole_and_the_message_names_its_file(
    model, tmp_path: Path, no_clip_file, whole: bool
):
    state = model.state_dict()
    lost = CLIP_PREFIX if whole else f"{CLIP_PREFIX}visual.proj"
    state = {name: tensor for name, tensor in state.items() if not name.startswith(lost)}
    with pytest.raises(FileNotFoundError, match=r"part\.ckpt.*ViT-L-14\.pt.*run\.clip_from"):
        load_pretrained(model, saved(tmp_path / "part.ckpt", state), "auto")
    assert load_pretrained(model, None, "random").clip == "random"


def test_clip_s_file_in_the_project_is_found_from_any_working_directory(
    model, tmp_path: Path, no_clip_file: Path
):
    state = {name: torch.randn(t.shape) for name, t in clip_tower(model).items()}
    file = no_clip_file / "ckpt" / "ViT-L-14.pt"
    file.parent.mkdir(parents=True)
    torch.save({"state_dict": state}, file)
    assert load_pretrained(model, None, "auto").clip == str(file)
    for name, tensor in state.items():
        assert torch.equal(clip_tower(model)[name], tensor)
    own = tmp_path / "ckpt" / "ViT-L-14.ckpt"
    own.parent.mkdir()
    torch.save({"state_dict": state}, own)  # the working directory comes first
    assert load_pretrained(model, None, "auto").clip == "ckpt/ViT-L-14.ckpt"


def clip_tower(model: SyncDreamer) -> dict[str, Tensor]:
    return model.clip_image_encoder.model.state_dict()


class Tower(CLIPVisual):
    """OpenAI's file has the text tower, too."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__(config)
        self.transformer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x


def torchscript_file(path: Path, module: nn.Module) -> Path:
    torch.jit.save(torch.jit.trace(module, torch.zeros(2)), str(path))
    return path


def allow(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this file count as OpenAI's."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(initialise, "OPENAI_SHA256", digest)
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_clip_comes_out_of_its_torchscript_file(model, tmp_path: Path, monkeypatch):
    tower = Tower(model.config.clip).half().eval()
    path = allow(torchscript_file(tmp_path / "ViT-L-14.pt", tower), monkeypatch)
    assert load_pretrained(model, None, str(path)).clip == str(path)
    for name, tensor in clip_tower(model).items():
        assert torch.equal(tensor, tower.state_dict()[name].float())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_no_torchscript_file_but_openai_s_is_loaded(model, tmp_path: Path, monkeypatch):
    path = torchscript_file(tmp_path / "other.pt", nn.Linear(2, 2))
    with monkeypatch.context() as patch:
        patch.setattr(torch.jit, "load", None)
        with pytest.raises(ValueError, match=r"other\.pt: refused.*SHA-256 is"):
            load_pretrained(model, None, str(path))
    with pytest.raises(ValueError, match="does not hold CLIP's weights"):
        load_pretrained(model, None, str(allow(path, monkeypatch)))
