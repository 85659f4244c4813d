"""Training may start from Zero123 in diffusers' layout; the reference is diffusers itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ldm.checkpoint.diffusers_folder import read_diffusers_folder
from ldm.checkpoint.initialise import CLIP_PREFIX, init_model, load_pretrained
from ldm.config import SyncDreamerConfig
from tests.conftest import ROOT, relative_error, thin_out
from tests.reference.seeded_weights import seeded_image, seeded_noise, seeded_tensor

GOLDENS = np.load(ROOT / "tests" / "data" / "zero123_diffusers.npz")
PROJECTION = "clip_camera_projection"
FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "image_encoder": "model.safetensors",
    PROJECTION: "diffusion_pytorch_model.bin",
}
Parts = dict[str, dict[str, Tensor]]


def seeded_parts() -> Parts:
    shapes = json.loads(str(GOLDENS["small"]))
    return {
        part: {n: torch.from_numpy(seeded_tensor(f"{part}.{n}", s)) for n, s in of_part.items()}
        for part, of_part in shapes.items()
    }


def written(folder: Path, parts: Parts) -> Path:
    for part, state in parts.items():
        (folder / part).mkdir(parents=True)
        save = torch.save if FILES[part].endswith(".bin") else save_file
        save(state, folder / part / FILES[part])
    return folder


def noise(label: str, *shape: int) -> Tensor:
    return torch.from_numpy(seeded_noise(label, shape))


def test_every_tensor_of_the_full_size_gets_its_name_and_shape(tmp_path: Path):
    shapes = json.loads(str(GOLDENS["full"]))
    # one value in memory for each tensor
    parts = {
        part: {n: torch.zeros(()).expand(s) for n, s in of_part.items()}
        for part, of_part in shapes.items()
    }
    for part in parts:
        (tmp_path / part).mkdir()
        torch.save(parts[part], tmp_path / part / "weights.bin")
    found = read_diffusers_folder(tmp_path)
    lines = (ROOT / "tests" / "data" / "state_dict_keys.tsv").read_text().splitlines()
    model = dict(line.split("\t")[:2] for line in lines)
    for name, tensor in found.items():
        own = name.replace("cond_stage_model.model.", CLIP_PREFIX)
        assert "x".join(map(str, tensor.shape)) == model.pop(own), name
    new = ("spatial_volume.", "time_embed.", "model.diffusion_model.middle_conditions.",
           "model.diffusion_model.output_conditions.")  # fmt: skip
    rest = [name for name in model if not name.startswith(new)]
    assert len(found) == 686 + 248 + 296 + 2
    assert len(rest) == 10 + 6  # the schedule and cameras, and CLIP's unused text parameters


@torch.no_grad()
def test_the_networks_compute_what_diffusers_does(tiny_config: SyncDreamerConfig, tmp_path: Path):
    folder = written(tmp_path / "zero123", seeded_parts())
    model = init_model(tiny_config, seed=1).eval()
    report = load_pretrained(model, folder, "auto")
    assert report.clip == str(folder)
    assert all(name.startswith("cond_stage_model.") for name in report.ignored)  # CLIP's
    assert len(report.loaded) == 686 + 248 + 2

    sizes = ((16, 16), (16, 8), (32, 4), (32, 2))
    frustums = [noise(str(s), 2, f, 16, s, s) for f, s in sizes]  # new layers add nothing yet
    outputs = {
        "noise": model.unet(
            noise("x", 2, 8, 16, 16), torch.tensor([981, 321]), noise("t", 2, 1, 64), frustums
        ),
        "latents": model.first_stage_model.encode(
            torch.from_numpy(seeded_image("vae", 64))[None]
        ).mean,
        "image": model.first_stage_model.decode(noise("z", 1, 4, 8, 8)),
        "token": model.clip_image_encoder.model.visual(noise("p", 2, 3, 56, 56)),
    }
    for name, output in outputs.items():
        assert relative_error(thin_out(output.numpy()), GOLDENS[name]) < 1e-4, name
    projection = seeded_parts()[PROJECTION]
    assert torch.equal(model.cc_projection.weight, projection["proj.weight"])


def test_the_names_of_older_diffusers_and_half_precision_are_read(tmp_path: Path):
    parts = seeded_parts()
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for name in [n for n in parts["vae"] if "attentions" in n]:
        tensor = parts["vae"].pop(name)
        for new, old in older.items():
            name = name.replace(new, old)
        parts["vae"][name] = tensor
    ids = {"vision_model.embeddings.position_ids": torch.arange(17)[None]}
    parts["image_encoder"].update(ids)
    halves = {
        part: {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
        for part, state in parts.items()
    }
    now = read_diffusers_folder(written(tmp_path / "now", seeded_parts()))
    then = read_diffusers_folder(written(tmp_path / "then", halves))
    assert set(now) == set(then)
    for name, tensor in now.items():
        assert torch.equal(then[name], tensor.half())


def test_of_several_files_the_one_without_moving_average_is_taken(tmp_path: Path):
    folder = written(tmp_path, seeded_parts())
    for name in ("diffusion_pytorch_model.fp16_ema.safetensors", "diffusion_pytorch_model.bin"):
        (folder / "unet" / name).write_bytes(b"not read")
    assert len(read_diffusers_folder(folder)) == 686 + 248 + 32 + 2


@pytest.mark.parametrize("part", FILES)
def test_a_wrong_folder_is_refused_by_name(tmp_path: Path, part: str):
    parts = seeded_parts()
    parts[part] = {"something.else": torch.zeros(2)}
    if part != PROJECTION:
        with pytest.raises(ValueError, match=rf"{part}.*'something.else' is no tensor of"):
            read_diffusers_folder(written(tmp_path / "other", parts))
    del parts[part]
    with pytest.raises(FileNotFoundError, match=f"in its folder '{part}'"):
        read_diffusers_folder(written(tmp_path / "missing", parts))
