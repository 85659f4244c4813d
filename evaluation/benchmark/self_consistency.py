"""Self-consistency of views without truth, as MVGBench measures it (arXiv 2507.00006).

The even and the odd views are reconstructed on their own. Where the views show one object, both
reconstructions have one shape and look alike from every camera.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from common.cli import SEED
from evaluation.image_metrics import psnr
from evaluation.mesh_metrics import chamfer, visible_points
from renderer.config import RendererConfig
from renderer.export import final_mesh, render_view
from renderer.methods.base import Method, Views
from renderer.reconstruction import build_method
from renderer.trainer import Training
from renderer.views import read_input


def self_consistency(
    path: Path, config: RendererConfig, device: torch.device
) -> tuple[float, float]:
    """Compare the reconstructions of the even and of the odd views.

    Args:
        path: the views, a folder or a strip.
        config: of the reconstructions.
        device: to reconstruct on.

    Returns:
        Chamfer distance of the visible surfaces, and mean PSNR in dB of one reconstruction seen by
        the cameras of all views against the other.

    Raises:
        FileNotFoundError, ValueError: see `read_input`, or a half has no surface.
    """
    views, _ = read_input(path, config, str(device))
    methods: list[Method] = []
    points = []
    for first, name in enumerate(("even", "odd")):
        half = views.subset(np.arange(first, len(views.images), 2))
        try:
            methods.append(_fit(half, config, device))
            mesh = final_mesh(methods[-1])
        except ValueError as error:
            raise ValueError(f"{path}: no surface from the {name} views ({error})") from error
        points.append(visible_points(mesh, device))
    even, odd = (_render(method, views, device) for method in methods)
    return chamfer(*points), float(psnr(even, odd).mean())


def _fit(views: Views, config: RendererConfig, device: torch.device) -> Method:
    training = Training(build_method(config, views, device, SEED), SEED)
    while not training.finished:
        training.train_step()
    training.check_finite()
    return training.method


def _render(method: Method, views: Views, device: torch.device) -> np.ndarray:
    """Render the cameras of all views, (N, S, S, 3) in [0, 1]."""
    size = views.size
    rendered = [
        render_view(method, views.cameras, index, size, device).color.reshape(size, size, 3)
        for index in range(len(views.images))
    ]
    return torch.stack(rendered).clamp(0, 1).cpu().numpy()
