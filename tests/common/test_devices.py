from __future__ import annotations

import pytest

from common.devices import peak_memory, pick_device


def test_a_device_that_is_not_there_is_an_error_not_a_fallback():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("cuda:99", "nonsense", "meta"):
        with pytest.raises(ValueError, match=name):
            pick_device(name)


def test_the_peak_memory_is_reported():
    assert "GiB" in peak_memory(pick_device("cpu"))
