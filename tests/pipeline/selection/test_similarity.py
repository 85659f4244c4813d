from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from pipeline.selection import similarity
from pipeline.selection.similarity import crop_object, measure_similarity, normalise_scale


def picture(size: int = 64, centre=(30.0, 34.0), radius: float = 14.0, wave: float = 6.0):
    """A striped disc: alpha (S, S) and colours on white, (3, S, S)."""
    y, x = np.mgrid[:size, :size] + 0.5
    alpha = np.clip(radius - np.hypot(x - centre[0], y - centre[1]) + 0.5, 0, 1)
    stripes = 0.4 + 0.3 * np.sin((x - centre[0]) / wave * np.pi)
    colours = np.stack([stripes, 0.5 * stripes, np.full_like(x, 0.2)])
    on_white = colours * alpha + 1 - alpha
    return torch.from_numpy(alpha).float(), torch.from_numpy(on_white).float()


def test_a_picture_agrees_with_itself():
    alpha, colours = picture()
    same = measure_similarity(alpha, colours, alpha, colours)
    assert (same.silhouette, same.psnr) == (1.0, similarity.BEST_PSNR)
    assert same.pattern == pytest.approx(1.0)
    empty = (torch.zeros(20, 20), torch.zeros(3, 20, 20))
    assert measure_similarity(*empty, *empty).silhouette == 1


def test_half_of_a_mask_has_an_overlap_of_a_half():
    whole = torch.ones(4, 4)
    half = whole.clone()
    half[2:] = 0
    assert similarity.soft_iou(whole, half) == similarity.soft_iou(whole, whole / 2) == 0.5


def test_the_pattern_falls_where_views_are_blurred_noisy_or_displaced():
    alpha, colours = picture(wave=3.0)
    blurred = torch.from_numpy(ndimage.gaussian_filter(colours.numpy(), (0, 1.5, 1.5)))
    noisy = colours + torch.randn(colours.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    displaced = colours.roll(3, dims=2)
    for spoiled in (blurred, noisy, displaced):
        assert measure_similarity(alpha, colours, alpha, spoiled).pattern < 0.9


def test_alignment_takes_size_and_place_away():
    alpha, colours = normalise_scale(*picture(), 48)
    other, other_colours = normalise_scale(*picture(96, (55.0, 40.0), 21.0, 9.0), 48)
    same = measure_similarity(alpha, colours, other, other_colours)
    assert same.silhouette > 0.97
    assert same.psnr > 25


def test_inputs_with_alpha_and_on_white_are_taken_alike():
    alpha, colours = picture(128, (40.0, 90.0), 20.0, 9.0)
    rgb = colours.movedim(0, -1).numpy()
    solid = np.stack([*picture(128, (40.0, 90.0), 60.0, 9.0)[1].numpy(), alpha.numpy()], axis=-1)
    for image in (
        rgb,
        solid,
        (solid * 255).round().astype(np.uint8),
        np.pad(rgb, ((0, 0), (70, 9), (0, 0)), constant_values=1),
    ):
        crop = crop_object(image, 64)
        assert crop.alpha.shape == (64, 64)
        assert crop.colours.shape == (3, 64, 64)
        assert float(crop.alpha.sum()) == pytest.approx(np.pi * (0.4 * 64) ** 2, rel=0.06)
        expected = picture(64, (32.0, 32.0), 25.6, 9 * 1.28)
        same = measure_similarity(crop.alpha, crop.colours, *expected)
        assert same.silhouette > 0.95
        assert same.psnr > 20
