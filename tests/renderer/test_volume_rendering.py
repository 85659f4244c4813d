from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from renderer.volume_rendering import (
    accumulate,
    annealed_cosine,
    composite_on_white,
    cos_anneal_ratio,
    sample_pdf,
    sdf_to_alpha,
    weights_from_alpha,
)


def test_transmittance_worked_out_by_hand():
    alpha = torch.tensor([0.0, 0.3, 0.8, 0.8, 0.5])
    # before each sample 1.0, 1.0, 0.7, 0.14, 0.028 of the light is left
    expected = torch.tensor([0.0, 0.3, 0.56, 0.112, 0.014])
    assert_close(weights_from_alpha(alpha), expected, atol=1e-6, rtol=0)


def test_what_is_not_absorbed_is_white():
    weights = torch.tensor([[0.25, 0.5], [0.0, 0.0]])
    colors = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 0.4]]]).expand(2, 2, 3)
    expected = torch.tensor([[0.5, 0.25, 0.45], [1.0, 1.0, 1.0]])
    assert_close(composite_on_white(weights, colors), expected)
    assert_close(accumulate(weights, colors)[0], torch.tensor([0.25, 0.0, 0.2]))


def test_samples_of_a_density_are_the_published_ones(published):
    bins, weights = published["pdf_bins"], published["pdf_weights"]
    for count in (16, 64):
        expected = published[f"pdf_samples{count}"]
        assert_close(sample_pdf(bins, weights, count), expected, atol=1e-6, rtol=0)
    sampled = sample_pdf(bins, weights, 8, published["pdf_u"])
    assert_close(sampled, published["pdf_samples_random8"], atol=1e-6, rtol=0)


def test_a_density_in_one_cell_puts_all_samples_there(published):
    bins = published["pdf_bins"][:1]
    weights = torch.zeros(1, 64)
    weights[0, 20] = 1.0
    samples = sample_pdf(bins, weights, 16)
    assert_close(samples, published["pdf_onehot_samples16"], atol=1e-6, rtol=0)
    assert (samples >= bins[0, 20]).all()
    assert (samples <= bins[0, 21]).all()
    assert (samples.diff() > 0).all()


def test_opacities_of_a_sphere_are_the_published_ones(published):
    points, directions = published["alpha_points"], published["alpha_dirs"]
    sdf = points.norm(dim=-1) - 0.3
    cosine = (directions * points / points.norm(dim=-1, keepdim=True)).sum(dim=-1)
    for i, inv_s in enumerate(published["alpha_inv_s"].tolist()):
        for j, ratio in enumerate(published["alpha_cos_anneal"].tolist()):
            slope = annealed_cosine(cosine, ratio)
            alpha = sdf_to_alpha(sdf, slope, published["alpha_dists"], inv_s)
            assert_close(alpha, published["alpha"][i, j], atol=1e-6, rtol=1e-5)


def test_the_annealing_is_the_published_one(published):
    for step, ratio in zip(published["anneal_steps"], published["anneal_values"], strict=True):
        assert cos_anneal_ratio(int(step)) == pytest.approx(ratio.item())
    assert cos_anneal_ratio(0, anneal_steps=0) == 1.0


def test_weights_and_opacities_have_the_right_derivatives():
    sdf = torch.linspace(0.2, -0.1, 6, dtype=torch.float64, requires_grad=True)
    inv_s = torch.tensor(15.0, dtype=torch.float64, requires_grad=True)
    lengths = torch.full((6,), 0.06, dtype=torch.float64)

    def weights(sdf: Tensor, inv_s: Tensor) -> Tensor:
        return weights_from_alpha(sdf_to_alpha(sdf, torch.full_like(sdf, -0.9), lengths, inv_s))

    assert torch.autograd.gradcheck(weights, (sdf, inv_s))
