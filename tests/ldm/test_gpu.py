"""What only a CUDA device can show: the same numbers as on the CPU, and its memory."""

from __future__ import annotations

import math

import pytest
import torch

from ldm.checkpoint.load import load_model
from ldm.config import SamplerConfig, SyncDreamerConfig
from ldm.model import SyncDreamer
from ldm.sampling.sampler import sample
from tests.conftest import cast, relative_error, seeded_model
from tests.reference.seeded_weights import seeded_image, seeded_noise

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def four_steps(model: SyncDreamer, views_at_once: int = 8) -> torch.Tensor:
    """Four steps from fixed noise, on the model's device; latents on the CPU."""
    config, device = model.config, model.azimuth.device
    draws = iter(range(100))

    def draw(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.from_numpy(seeded_noise(f"gpu-{next(draws)}", shape)).to(device)

    image = torch.from_numpy(seeded_image("gpu", config.cameras.image_size))[None].to(device)
    with torch.inference_mode():
        features, sampler = model.encode_image(image), SamplerConfig(steps=4)
        return sample(model, features, math.radians(20.0), sampler, draw, views_at_once).cpu()


@pytest.fixture(autouse=True)
def exact_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.05), (torch.float16, 0.01)]
)
def test_a_trajectory_on_the_gpu_is_the_one_on_the_cpu(tiny_model, dtype, tolerance):
    expected = four_steps(tiny_model)
    found = four_steps(cast(tiny_model, dtype).to("cuda"))
    assert relative_error(found, expected.numpy()) < tolerance


def test_the_pictures_on_the_gpu_are_those_on_the_cpu(tiny_model):
    latents, on_gpu = four_steps(tiny_model), cast(tiny_model, torch.float32).to("cuda")
    with torch.inference_mode():
        found, expected = on_gpu.decode(latents.cuda()).cpu(), tiny_model.decode(latents)
    assert relative_error(found, expected.numpy()) < 1e-3


def test_a_checkpoint_loads_to_the_gpu_in_half_precision(tiny_config, tiny_checkpoint):
    model = load_model(tiny_config, tiny_checkpoint, torch.device("cuda"), torch.bfloat16)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cuda"}
    assert next(model.unet.parameters()).dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "gigabytes"), [(torch.float32, 10), (torch.bfloat16, 6)])
def test_one_sample_with_four_views_at_once_fits_in_memory(dtype, gigabytes):
    model = cast(seeded_model(SyncDreamerConfig()), dtype).to("cuda")
    torch.cuda.reset_peak_memory_stats()
    latents = four_steps(model, views_at_once=4)
    with torch.inference_mode():
        model.decode(latents.cuda(), 4)
    assert torch.cuda.max_memory_allocated() < gigabytes * 1e9
