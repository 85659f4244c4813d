"""Reconstruction of the bundled example's true views: time and scores of every preset."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch

from benchmarks.gpu.rows import Row, first_line
from benchmarks.gpu.timing import Bench, set_tf32
from common.cli import project_file
from renderer.config import Preset, load_renderer_config

EXAMPLE = Path("eval_examples/locomotive-gt")
MESH = Path("eval_examples/locomotive-mesh/meshes/model.obj")
_TINY = ("grid.resolution=32", "grid.steps=10")


def measure_reconstruction(bench: Bench, part: str) -> None:
    """Measure each preset once; without the packages of the evaluation there are no scores."""
    set_tf32("fp32")
    for preset in ("fast",) if bench.tiny else get_args(Preset):
        row = Row(part, f"16 views, {preset}", "fp32", "eager")
        with bench.attempt(row) as timely:
            if timely:
                with tempfile.TemporaryDirectory() as folder:
                    measure_preset(bench, row, preset, Path(folder))


def measure_preset(bench: Bench, row: Row, preset: Preset, folder: Path) -> None:
    """Reconstruct and compare with the true mesh."""
    from renderer.reconstruction import ReconstructionOptions, reconstruct

    changes = _TINY if bench.tiny else ()
    config = load_renderer_config(project_file("configs/neus.yaml"), preset, changes)
    on_gpu = bench.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(bench.device)
    start = time.perf_counter()
    options = ReconstructionOptions(0, bench.device, preset)
    reconstruct(project_file(EXAMPLE), folder / "result", config, options)
    seconds = time.perf_counter() - start
    memory = float(torch.cuda.max_memory_allocated(bench.device)) if on_gpu else None
    row = replace(row, seconds=seconds, memory=memory)
    try:
        from evaluation.mesh_metrics import evaluate_mesh

        mesh, truth = folder / "result" / "mesh.ply", project_file(EXAMPLE)
        scores = evaluate_mesh(mesh, project_file(MESH), truth, 0.0, bench.device)
        note = f"Chamfer distance {scores.chamfer:.4f}, volume IoU {scores.iou:.3f}"
    except (ImportError, ValueError, RuntimeError) as error:
        note = f"no scores: {first_line(error)}"
    bench.emit(replace(row, note=note))
