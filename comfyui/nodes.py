"""The nodes. ComfyUI's tensors are IMAGE (B, H, W, 3) in [0, 1] and MASK (B, H, W).

Progress goes to ComfyUI's bar, and its Cancel button ends a node after the current step.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch

from common.cli import SEED
from ldm.sampling.config import Solver
from multiview.transforms_json import TRANSFORMS
from pipeline.selection.elevation import ElevationConfig
from pipeline.selection.elevation_drafts import draft_sampler
from pipeline.selection.ranking import score_sample
from renderer.config import Preset
from syncdreamer import MultiviewImages, SyncDreamerPipeline, reconstruct_mesh

BUNDLED = "published weights in ckpt/, else the small model"
SEED_INPUT = {"default": SEED, "min": 0, "max": 2**62, "control_after_generate": True}
MASK_HELP = "1 where the object is not, as Load Image has it; without, the background is removed"


def _image(image: torch.Tensor, mask: torch.Tensor | None) -> tuple[np.ndarray, dict[str, Any]]:
    """The first image of a batch as uint8, and its mask or segmentation as options of the API."""
    pixels = (image[0, ..., :3].clamp(0, 1) * 255).round().byte().cpu().numpy()
    if mask is None or not bool((mask[0] > 0).any()):
        return pixels, {"backend": "auto"}
    return pixels, {"mask": ((1 - mask[0].clamp(0, 1)) * 255).round().byte().cpu().numpy()}


def _steps_bar(total: int) -> Callable[[Any], None]:
    """A callback for `total` denoising steps."""
    bar = comfy.utils.ProgressBar(total)

    def on_step(_: object) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update(1)

    return on_step


def _as_batch(views: MultiviewImages) -> torch.Tensor:
    return torch.from_numpy(views.images.astype(np.float32) / 255)


class Load:
    """Load the weights."""

    CATEGORY, FUNCTION = "SyncDreamer", "load"
    RETURN_TYPES, RETURN_NAMES = ("SYNCDREAMER",), ("model",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """Inputs of the node."""
        files = [BUNDLED, *folder_paths.get_filename_list("checkpoints")]
        return {"required": {"checkpoint": (files,), "dtype": (["auto", "fp32", "bf16", "fp16"],)}}

    def load(self, checkpoint: str, dtype: str) -> tuple[SyncDreamerPipeline]:
        """Run the node."""
        named = checkpoint != BUNDLED
        path = folder_paths.get_full_path("checkpoints", checkpoint) if named else None
        device = str(comfy.model_management.get_torch_device())
        return (SyncDreamerPipeline.load(path, device=device, dtype=dtype),)


class Elevation:
    """Estimate the elevation of the image's camera, from six drafts of the views."""

    CATEGORY, FUNCTION = "SyncDreamer", "estimate"
    RETURN_TYPES, RETURN_NAMES = ("FLOAT",), ("elevation",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Inputs of the node."""
        return {
            "required": {
                "model": ("SYNCDREAMER",),
                "image": ("IMAGE",),
                "seed": ("INT", SEED_INPUT),
            },
            "optional": {"mask": ("MASK", {"tooltip": MASK_HELP})},
        }

    def estimate(
        self,
        model: SyncDreamerPipeline,
        image: torch.Tensor,
        seed: int,
        mask: torch.Tensor | None = None,
    ) -> tuple[float]:
        """Run the node."""
        pixels, options = _image(image, mask)
        drafts = len(ElevationConfig().drafts_at)
        on_step = _steps_bar(drafts * draft_sampler(model.config.sampler).steps)
        return (model.estimate_elevation(pixels, seed=seed, on_step=on_step, **options),)


class Views:
    """Generate 16 views of the object in an image, as a batch, with their cameras."""

    CATEGORY, FUNCTION = "SyncDreamer", "generate"
    RETURN_TYPES = ("SYNCDREAMER_VIEWS", "IMAGE", "STRING")
    RETURN_NAMES = ("views", "images", "transforms_json")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Inputs of the node."""
        degrees = {"default": 20.0, "min": -90.0, "max": 90.0, "step": 0.5}
        return {
            "required": {
                "model": ("SYNCDREAMER",),
                "image": ("IMAGE",),
                "elevation": ("FLOAT", {**degrees, "tooltip": "degrees the camera looks down"}),
                "seed": ("INT", SEED_INPUT),
                "steps": ("INT", {"default": 0, "max": 1000, "tooltip": "0: the model's own"}),
                "guidance_scale": ("FLOAT", {"default": 2.0, "min": 0.0, "max": 20.0, "step": 0.1}),
                "solver": (["ddim", "dpm++", "dpm++sde", "unipc"],),
            },
            "optional": {"mask": ("MASK", {"tooltip": MASK_HELP})},
        }

    def generate(
        self,
        model: SyncDreamerPipeline,
        image: torch.Tensor,
        elevation: float,
        seed: int,
        steps: int,
        guidance_scale: float,
        solver: Solver,
        mask: torch.Tensor | None = None,
    ) -> tuple[MultiviewImages, torch.Tensor, str]:
        """Run the node."""
        pixels, options = _image(image, mask)
        views = model.generate(
            pixels,
            elevation,
            seed=seed,
            steps=steps or None,
            guidance_scale=guidance_scale,
            solver=solver,
            on_step=_steps_bar(steps or model.config.sampler.steps),
            **options,
        )
        with tempfile.TemporaryDirectory() as temporary:
            cameras = (views.save_views(temporary) / TRANSFORMS).read_text()
        return views, _as_batch(views), cameras


class Rank:
    """Choose the sample whose views fit together best."""

    CATEGORY, FUNCTION = "SyncDreamer", "rank"
    RETURN_TYPES = ("SYNCDREAMER_VIEWS", "IMAGE", "FLOAT")
    RETURN_NAMES = ("best", "images", "score")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Inputs of the node."""
        more = {f"views_{n}": ("SYNCDREAMER_VIEWS",) for n in (2, 3, 4)}
        return {"required": {"views_1": ("SYNCDREAMER_VIEWS",)}, "optional": more}

    def rank(self, **samples: MultiviewImages) -> tuple[MultiviewImages, torch.Tensor, float]:
        """Run the node."""
        scores = {name: score_sample(views.images).score for name, views in samples.items()}
        best = max(scores, key=lambda name: scores[name])
        return samples[best], _as_batch(samples[best]), scores[best]


class Mesh:
    """Reconstruct a textured mesh from views; writes a GLB into ComfyUI's output folder."""

    CATEGORY, FUNCTION, OUTPUT_NODE = "SyncDreamer", "reconstruct", True
    RETURN_TYPES, RETURN_NAMES = ("MESH", "STRING"), ("mesh", "glb")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Inputs of the node."""
        return {
            "required": {
                "views": ("SYNCDREAMER_VIEWS",),
                "preset": (["fast", "default", "best"], {"default": "default"}),
                "filename_prefix": ("STRING", {"default": "3d/SyncDreamer"}),
            }
        }

    def reconstruct(
        self, views: MultiviewImages, preset: Preset, filename_prefix: str
    ) -> dict[str, Any]:
        """Run the node."""
        bar = comfy.utils.ProgressBar(100)
        start = {"training": 0.0, "mesh": 0.7, "video": 0.9, "end": 1.0}
        ends = dict(zip(start, list(start.values())[1:], strict=False))

        def on_progress(stage: str, share: float) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            done = start[stage] + share * (ends[stage] - start[stage])
            bar.update_absolute(round(100 * done), 100)

        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
        target = Path(folder, f"{name}_{counter:05}_.glb")
        device = str(comfy.model_management.get_torch_device())
        with tempfile.TemporaryDirectory() as temporary, torch.inference_mode(False):
            made = reconstruct_mesh(
                views, Path(temporary, "mesh"), preset, device=device, on_progress=on_progress
            )
            shutil.copyfile(made, target)
        shown = [{"filename": target.name, "subfolder": subfolder, "type": "output"}]
        return {"ui": {"3d": shown}, "result": (_mesh(target), str(target))}


def _mesh(path: Path) -> Any:
    """ComfyUI's MESH: vertices (1, V, 3) and faces (1, F, 3); None where it has no such type."""
    try:
        from comfy_api.latest import Types
    except ImportError:
        return None
    import trimesh

    loaded: Any = trimesh.load(path, force="mesh")
    loaded.merge_vertices(merge_tex=True, merge_norm=True)  # the texture's seams split them
    vertices = torch.from_numpy(np.asarray(loaded.vertices, dtype=np.float32))
    return Types.MESH(vertices[None], torch.from_numpy(np.asarray(loaded.faces))[None].long())


NODE_CLASS_MAPPINGS = {
    "SyncDreamerLoad": Load,
    "SyncDreamerElevation": Elevation,
    "SyncDreamerViews": Views,
    "SyncDreamerRank": Rank,
    "SyncDreamerMesh": Mesh,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "SyncDreamerLoad": "Load SyncDreamer",
    "SyncDreamerElevation": "SyncDreamer: estimate elevation",
    "SyncDreamerViews": "SyncDreamer: image to 16 views",
    "SyncDreamerRank": "SyncDreamer: best of several samples",
    "SyncDreamerMesh": "SyncDreamer: views to mesh",
}
