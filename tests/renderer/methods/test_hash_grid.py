from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.testing import assert_close

from renderer.methods.hash_grid import (
    SPHERICAL_HARMONICS,
    HashGrid,
    HashGridConfig,
    hashed_corners,
    spherical_harmonics,
)


def some_points(num: int = 500) -> Tensor:
    return torch.rand(num, 3, generator=torch.Generator().manual_seed(0))


def test_resolutions_grow_geometrically_from_the_coarsest_to_the_finest():
    resolutions = HashGridConfig().resolutions
    assert len(resolutions) == 16
    assert (resolutions[0], resolutions[-1]) == (16, 128)
    exact = 16 * 8 ** (np.arange(16) / 15)
    assert (np.abs(np.array(resolutions) - exact) <= 1).all()
    assert HashGridConfig(levels=1, base_resolution=8, max_resolution=8).resolutions == (8,)


def test_levels_that_fit_in_the_table_are_lattices_and_the_others_share_its_entries():
    grid = HashGrid(HashGridConfig(4, 2, log2_table=10, base_resolution=4, max_resolution=32))
    assert [tuple(lattice.shape) for lattice in grid.lattices] == [(2, 5, 5, 5), (2, 9, 9, 9)]
    assert [tuple(table.shape) for table in grid.tables] == [(1024, 2), (1024, 2)]
    assert grid(some_points()).shape == (500, 8)


def test_a_linear_function_on_a_lattice_is_interpolated_exactly():
    grid = HashGrid(HashGridConfig(1, 2, base_resolution=7, max_resolution=7))
    axis = torch.arange(8) / 7
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    grid.lattices[0].data = torch.stack([2 * x - 3 * y + z + 0.5, z])
    points = torch.cat([some_points(), torch.eye(3), torch.zeros(1, 3), torch.ones(1, 3)])
    expected = points @ torch.tensor([[2.0, 0.0], [-3.0, 0.0], [1.0, 1.0]])
    expected = expected + torch.tensor([0.5, 0.0])
    assert_close(grid(points), expected, atol=1e-5, rtol=0)


def test_a_hashed_level_interpolates_a_linear_function_where_nothing_collides():
    resolution, entries = 4, 2**20
    axis = torch.arange(resolution + 1) / resolution
    corners = torch.cartesian_prod(axis, axis, axis)
    index, weights = hashed_corners(corners, resolution, entries)
    own = index.gather(1, weights.argmax(dim=1, keepdim=True))[:, 0]
    assert_close(weights.amax(dim=1), torch.ones(125))
    assert len(own.unique()) == 125
    table = torch.zeros(entries)
    slope = torch.tensor([1.0, -2.0, 0.5])
    table[own] = corners @ slope
    index, weights = hashed_corners(some_points(), resolution, entries)
    assert_close((table[index] * weights).sum(dim=1), some_points() @ slope, atol=1e-5, rtol=0)


def test_a_hashed_level_has_the_gradient_of_its_weighted_sum():
    grid = HashGrid(HashGridConfig(1, 3, log2_table=5, base_resolution=9, max_resolution=9))
    points, target = some_points(40), torch.randn(40, 3)
    (grid(points) * target).sum().backward()
    (table,) = grid.tables
    index, weights = hashed_corners(points, 9, 32)
    again = table.detach().clone().requires_grad_()
    ((again[index] * weights[..., None]).sum(dim=1) * target).sum().backward()
    assert_close(table.grad, again.grad)


def test_spherical_harmonics_are_orthonormal():
    heights, shares = np.polynomial.legendre.leggauss(8)  # exact for polynomials to degree 15
    angles = (np.arange(16) + 0.5) / 16 * 2 * np.pi
    z, angle = (torch.from_numpy(a.ravel()) for a in np.meshgrid(heights, angles, indexing="ij"))
    radius = (1 - z**2).sqrt()
    directions = torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=-1)
    values = spherical_harmonics(directions)
    assert values.shape == (128, SPHERICAL_HARMONICS)
    areas = torch.from_numpy(np.repeat(shares, 16)) * 2 * np.pi / 16
    products = values.T @ (values * areas[:, None])
    assert_close(products, torch.eye(16, dtype=torch.float64), atol=1e-12, rtol=0)


def test_spherical_harmonics_change_their_sign_with_the_direction_in_odd_degrees_only():
    directions = torch.nn.functional.normalize(torch.randn(20, 3), dim=-1)
    signs = torch.tensor([(-1.0) ** degree for degree in range(4) for _ in range(2 * degree + 1)])
    assert_close(spherical_harmonics(-directions), spherical_harmonics(directions) * signs)
