"""ComfyUI's nodes, with a stand-in for ComfyUI's modules: it is in no package index."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from tests.conftest import ROOT
from tests.toy_views import toy_views


class ProcessingInterruptedError(Exception):
    pass


class StandIn:
    """The functions of ComfyUI that the nodes call, by its published interface."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.bars: list[list[float]] = []
        self.steps_until_cancel = 10_000

    def modules(self) -> dict[str, ModuleType | None]:
        comfy, utils, management, paths = (
            ModuleType(n)
            for n in ("comfy", "comfy.utils", "comfy.model_management", "folder_paths")
        )
        stand_in = self

        class ProgressBar:
            def __init__(self, total: int) -> None:
                self.seen: list[float] = []
                self.total = total
                stand_in.bars.append(self.seen)

            def update_absolute(self, value: int, total: int | None = None, preview: Any = None):
                self.seen.append(value / (total or self.total))

            def update(self, value: int) -> None:
                self.seen.append((self.seen[-1] if self.seen else 0) + value / self.total)

        utils.ProgressBar = ProgressBar
        management.get_torch_device = lambda: torch.device("cpu")
        management.throw_exception_if_processing_interrupted = self.throw_if_interrupted
        paths.get_filename_list = lambda kind: ["other.safetensors"]
        paths.get_full_path = lambda kind, name: str(self.output / name)
        paths.get_output_directory = lambda: str(self.output)
        paths.get_save_image_path = lambda prefix, folder: (
            folder,
            Path(prefix).name,
            7,
            "",
            prefix,
        )
        comfy.utils, comfy.model_management = utils, management
        named = {m.__name__: m for m in (comfy, utils, management, paths)}
        mesh = ModuleType("comfy_api.latest")
        mesh.Types = SimpleNamespace(MESH=lambda vertices, faces: (vertices, faces))
        return {**named, "comfy_api": ModuleType("comfy_api"), "comfy_api.latest": mesh}

    def throw_if_interrupted(self) -> None:
        self.steps_until_cancel -= 1
        if self.steps_until_cancel < 0:
            raise ProcessingInterruptedError


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn(tmp_path)
    for name, module in stand_in.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("sys.path", [*sys.path])
    return stand_in


@pytest.fixture
def nodes(comfyui: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, type]:
    """The classes of the nodes, loaded as ComfyUI loads a link in `custom_nodes`."""
    link = tmp_path / "custom_nodes" / "syncdreamer"
    link.parent.mkdir()
    link.symlink_to(ROOT / "comfyui")
    spec = spec_from_file_location("linked", link / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "linked", module)
    spec.loader.exec_module(module)
    assert sys.path[-1] == str(ROOT)
    assert module.NODE_CLASS_MAPPINGS.keys() == module.NODE_DISPLAY_NAME_MAPPINGS.keys()
    yield module.NODE_CLASS_MAPPINGS
    sys.modules.pop("linked.nodes")


def first_output(node: Any, **given: Any) -> tuple[Any, ...]:
    """Call a node as ComfyUI does: no others than its inputs, in inference mode."""
    inputs = node.INPUT_TYPES()
    assert (
        set(inputs["required"])
        <= set(given)
        <= set(inputs["required"] | inputs.get("optional", {}))
    )
    with torch.inference_mode():
        result = getattr(node, node.FUNCTION)(**given)
    result = result["result"] if isinstance(result, dict) else result
    assert len(result) == len(node.RETURN_TYPES)
    return result


def load_image() -> tuple[torch.Tensor, torch.Tensor]:
    """IMAGE and MASK as Load Image gives them; the mask is 1 - alpha."""
    pixels = np.asarray(Image.open(ROOT / "testset" / "cactus.png").convert("RGBA"), np.float32)
    pixels = torch.from_numpy(pixels / 255)[None]
    return pixels[..., :3], 1 - pixels[..., 3]


@pytest.mark.integration
def test_image_and_mask_become_the_views_of_the_api_with_a_stand_in(
    nodes: dict[str, type], comfyui: StandIn
):
    loader = nodes["SyncDreamerLoad"]()
    choices = loader.INPUT_TYPES()["required"]["checkpoint"][0]
    assert choices[1:] == ["other.safetensors"]
    (model,) = first_output(loader, checkpoint=choices[0], dtype="fp32")
    image, mask = load_image()
    given = {
        "model": model, "image": image, "mask": mask, "elevation": 20.0, "seed": 3, "steps": 2,
        "guidance_scale": 1.0, "solver": "ddim",
    }  # fmt: skip
    node = nodes["SyncDreamerViews"]()
    _, images, transforms = first_output(node, **given)
    expected = model.generate(
        ROOT / "testset" / "cactus.png", 20, seed=3, steps=2, guidance_scale=1.0
    )
    assert images.shape == (16, 64, 64, 3)
    assert np.array_equal((images * 255).round().byte().numpy(), expected.images)
    assert len(json.loads(transforms)["frames"]) == 16
    assert comfyui.bars == [[0.5, 1.0]]

    comfyui.steps_until_cancel = 1
    with pytest.raises(ProcessingInterruptedError):
        first_output(node, **given)
    assert len(comfyui.bars[1]) == 1

    comfyui.steps_until_cancel = 10_000
    (degrees,) = first_output(
        nodes["SyncDreamerElevation"](), model=model, image=image, mask=mask, seed=3
    )
    assert -10 <= degrees <= 45
    assert comfyui.bars[2][-1] == pytest.approx(1)


@pytest.mark.slow
def test_the_best_sample_becomes_a_mesh_with_a_stand_in(nodes: dict[str, type], comfyui: StandIn):
    from multiview.cameras import orbit_cameras
    from syncdreamer import MultiviewImages

    good = (toy_views(0).views * 255).round().astype(np.uint8)
    bad = np.concatenate([good[:8], (toy_views(1).views[8:] * 255).astype(np.uint8)])
    samples = [MultiviewImages(v, orbit_cameras(16, 30, 1.5, 64), 30.0, 0) for v in (bad, good)]
    best, images, score = first_output(
        nodes["SyncDreamerRank"](), views_1=samples[0], views_2=samples[1]
    )
    assert best is samples[1]
    assert torch.equal(images, torch.from_numpy(good.astype(np.float32) / 255))
    assert 0.5 < score <= 1

    (vertices, faces), path = first_output(
        nodes["SyncDreamerMesh"](), views=best, preset="fast", filename_prefix="3d/toy"
    )
    assert path == str(comfyui.output / "toy_00007_.glb")
    mesh = trimesh.Trimesh(vertices[0].numpy(), faces[0].numpy())
    assert mesh.is_volume
    assert np.allclose(mesh.bounds, trimesh.load(path).bounds)
    assert comfyui.bars[-1] == sorted(comfyui.bars[-1])
    assert comfyui.bars[-1][-1] == 1
