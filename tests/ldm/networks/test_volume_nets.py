from __future__ import annotations

import torch

from ldm.networks.volume_nets import Conv3d, UpConv3d


def test_the_two_steps_of_the_transposed_convolution_are_the_same_as_one():
    layer = UpConv3d(5, 3, 3, stride=2, padding=1, output_padding=1).double()
    x = torch.randn(2, 5, 2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(layer.in_two_steps(x), layer(x))
    assert layer(x).shape == (2, 3, 4, 6, 8)


def test_the_smallest_volumes_have_gradients_in_bf16():
    layer = Conv3d(64, 64)
    x = torch.randn(8, 64, 2, 2, 2)
    expected = torch.autograd.grad(layer(x).sum(), layer.weight)[0]
    for _ in range(10):
        for exponent in (12, 14, 16, 18, 20):  # what is read without being written shows
            torch.full((1 << exponent,), torch.nan)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(x)
        gradient = torch.autograd.grad(y.sum(), layer.weight)[0]
        torch.testing.assert_close(gradient, expected, rtol=0.02, atol=0.1)
