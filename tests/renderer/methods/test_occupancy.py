from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from multiview.cameras import orbit_cameras
from renderer.methods.occupancy import (
    OccupancyConfig,
    OccupancyGrid,
    PackedSamples,
    accumulate_along_rays,
    distortion_loss,
    render_visibility,
    render_weights,
)
from renderer.rays import pixel_grid, pixel_rays

LENGTH = 0.02
SMALL = OccupancyConfig(resolution=12)


def some_rays() -> tuple[Tensor, Tensor]:
    camera = orbit_cameras(1, image_size=16)
    rig = (torch.from_numpy(a[0]) for a in (camera.intrinsics, camera.world_to_camera))
    origins, directions = pixel_rays(pixel_grid(16, 16).double(), *rig, 0.5)
    return origins.float(), directions.float()


def some_cells() -> Tensor:
    cells = torch.zeros(12, 12, 12, dtype=torch.bool)
    cells[2:4, 5:9, 3] = True
    cells[8, 4, 6:9] = True
    return cells


def packed(counts: list[int]) -> PackedSamples:
    rays = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    ranks = torch.cat([torch.arange(count) for count in counts])
    return PackedSamples(rays, ranks, 1.0 + LENGTH * ranks, len(counts))


@pytest.mark.parametrize("length", [0.02, 0.003, 0.2])
@pytest.mark.parametrize("size", [12, 48])
def test_rays_visit_exactly_the_occupied_cells_in_order_and_lose_no_sample(size, length):
    cells = some_cells().repeat_interleave(size // 12, 0).repeat_interleave(size // 12, 1)
    cells = cells.repeat_interleave(size // 12, 2)
    grid = OccupancyGrid(OccupancyConfig(resolution=size), length, cells)
    origins, directions = some_rays()
    shifts = torch.rand(len(origins), generator=torch.Generator().manual_seed(0))
    samples = grid.march(origins, directions, shifts)

    depths = (torch.arange(int(4 / length)) + shifts[:, None]) * length  # all that there could be
    points = origins[:, None] + directions[:, None] * depths[..., None]
    kept = grid.contains(points)
    assert 0 < len(samples) == kept.sum() < 0.1 * kept.numel()
    assert_close(samples.depths, depths[kept], atol=1e-5, rtol=0)
    rays, _ = kept.nonzero(as_tuple=True)
    assert torch.equal(samples.rays, rays)
    assert torch.equal(samples.ranks, (kept.cumsum(dim=1) - 1)[kept])
    assert_close(samples.points(origins, directions), points[kept], atol=1e-5, rtol=0)


def test_the_cells_next_to_candidates_are_occupied_and_no_others():
    grid = OccupancyGrid(SMALL, LENGTH, some_cells())
    near = F.conv3d(some_cells().float()[None, None], torch.ones(1, 1, 3, 3, 3), padding=1) > 0
    assert torch.equal(grid.occupied, near[0, 0])
    axis = -0.6 + (torch.arange(12) + 0.5) * 0.1
    centres = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    assert torch.equal(grid.contains(centres), near[0, 0])
    assert_close(grid.box, torch.tensor([[-0.5, -0.3, -0.4], [0.4, 0.4, 0.4]]))
    assert not grid.contains(torch.tensor([[0.7, 0.0, 0.0], [0.0, 0.0, -0.601]])).any()


def test_without_candidates_all_of_the_cube_is_sampled():
    grid = OccupancyGrid(SMALL, LENGTH)
    origins = torch.tensor([[-2.0, 0.01, 0.02], [-2.0, 0.9, 0.0]])
    samples = grid.march(origins, torch.tensor([[1.0, 0.0, 0.0]] * 2))
    assert_close(samples.depths, 1.41 + LENGTH * torch.arange(60), atol=1e-5, rtol=0)
    assert (samples.rays == 0).all()


def test_an_empty_grid_gives_no_samples_and_one_of_another_size_is_refused():
    grid = OccupancyGrid(SMALL, LENGTH, torch.zeros(12, 12, 12))
    samples = grid.march(*some_rays())
    assert (len(samples), samples.num_rays) == (0, 256)
    weights, transmittance = render_weights(samples, samples.depths)
    assert len(weights) == len(transmittance) == 0
    assert_close(accumulate_along_rays(samples, weights), torch.zeros(256))
    with pytest.raises(ValueError, match="candidates of shape"):
        OccupancyGrid(SMALL, LENGTH, torch.ones(3, 3, 3))


def ball_density(points: Tensor) -> Tensor:
    return 20.0 * (points.norm(dim=-1) < 0.3)


def test_a_renewed_grid_holds_what_is_dense_and_forgets_what_is_not():
    grid = OccupancyGrid(OccupancyConfig(resolution=24, decay=0.5), LENGTH)
    for turn in range(5):
        grid.update(ball_density, turn)
    axis = -0.6 + (torch.arange(24) + 0.5) * 0.05
    radii = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).norm(dim=-1)
    assert grid.occupied[radii < 0.3].all()
    assert not grid.occupied[radii > 0.3 + 2.5 * 0.05 * math.sqrt(3)].any()


def test_parts_of_a_grid_take_turns_and_come_round():
    config = OccupancyConfig(resolution=12, parts=3)
    grid = OccupancyGrid(config, LENGTH, torch.zeros(12, 12, 12))
    shares = []
    for turn in range(4):
        grid.update(lambda points: torch.full_like(points[:, 0], 100.0), turn)
        shares.append((grid.remembered > 0).float().mean().item())
    assert shares == pytest.approx([1 / 3, 2 / 3, 1, 1])


def test_weights_of_packed_samples_worked_out_by_hand():
    samples = packed([3, 0, 2])
    alpha = torch.tensor([0.3, 0.8, 0.5, 1.0, 0.4], dtype=torch.float64)
    weights, transmittance = render_weights(samples, -torch.log1p(-alpha.clamp_max(1 - 1e-12)))
    expected = torch.tensor([1.0, 0.7, 0.14, 1.0, 0.0], dtype=torch.float64)
    assert_close(transmittance, expected, atol=1e-9, rtol=0)
    assert_close(weights, expected * alpha, atol=1e-9, rtol=0)
    sums = torch.tensor([0.3 + 0.56 + 0.07, 0.0, 1.0], dtype=torch.float64)
    assert_close(accumulate_along_rays(samples, weights), sums, atol=1e-9, rtol=0)


def test_the_spread_of_weights_is_the_sum_over_all_pairs():
    samples = packed([4, 0, 1, 3])
    weights = torch.rand(8, generator=torch.Generator().manual_seed(0))
    expected = []
    for k in range(4):
        w, t = weights[samples.rays == k], samples.depths[samples.rays == k]
        pairs = (w[:, None] * w * (t[:, None] - t).abs()).sum()
        expected.append(pairs + (w**2).sum() * LENGTH / 3)
    assert_close(
        distortion_loss(samples, weights, LENGTH), torch.stack(expected), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("slab", [1, 4, 64])
def test_visible_samples_are_those_that_light_reaches_whatever_the_slab(slab: int):
    samples = packed([40, 0, 7, 33, 1])
    density = 100 * torch.rand(len(samples), generator=torch.Generator().manual_seed(1))
    starts = torch.tensor([0, 40, 40, 47, 80])
    evaluated = []

    def look_up(part: PackedSamples) -> Tensor:
        index = starts[part.rays] + part.ranks
        evaluated.append(index)
        return density[index]

    found, optical_depths = render_visibility(samples, look_up, LENGTH, 5.0, slab)
    _, transmittance = render_weights(samples, density * LENGTH)
    seen = transmittance > math.exp(-5.0)
    assert 0 < seen.sum() < len(samples)
    assert torch.equal(found, seen)
    assert_close(optical_depths, density[seen] * LENGTH)
    assert len(torch.cat(evaluated).unique()) == len(torch.cat(evaluated))  # each at most once
    assert len(torch.cat(evaluated)) <= seen.sum() + 5 * slab


def test_a_budget_of_samples_keeps_whole_rays():
    samples = packed([3, 4, 0, 5])
    assert samples.within(12) is samples
    for budget, rays, count in [(11, 3, 7), (7, 3, 7), (6, 1, 3), (1, 1, 3)]:
        kept = samples.within(budget)
        assert (kept.num_rays, len(kept)) == (rays, count)
