from __future__ import annotations

import pytest

from common.devices import fastest_dtype, peak_memory, pick_device


def test_a_device_that_is_not_there_is_an_error_not_a_fallback():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("cuda:99", "nonsense", "meta"):
        with pytest.raises(ValueError, match=name):
            pick_device(name)


@pytest.mark.parametrize(
    ("flags", "expected"), [("avx512_bf16 amx_bf16 amx_tile", "bf16"), ("avx2 avx512f", "fp32")]
)
def test_a_cpu_is_fastest_in_bf16_if_it_has_amx(monkeypatch, flags, expected):
    monkeypatch.setattr("pathlib.Path.read_text", lambda _: f"flags\t\t: fpu {flags}\n")
    assert fastest_dtype(pick_device("cpu")) == expected


def test_the_peak_memory_is_reported():
    assert "GiB" in peak_memory(pick_device("cpu"))
