from __future__ import annotations

import torch

from ldm.volume_nets import UpConv3d


def test_the_two_steps_of_the_transposed_convolution_are_the_same_as_one():
    layer = UpConv3d(5, 3, 3, stride=2, padding=1, output_padding=1).double()
    x = torch.randn(2, 5, 2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(layer.in_two_steps(x), layer(x))
    assert layer(x).shape == (2, 3, 4, 6, 8)
