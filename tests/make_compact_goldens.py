"""Thin the reference's numbers out to what the repository carries: tests/data/goldens.npz.

Run from the project's root, with the whole numbers beside it: python -m tests.make_compact_goldens
"""

from __future__ import annotations

import numpy as np

from tests.conftest import COMPACT_GOLDENS, SHARED, thin_out

FILES = {
    "camera": (),
    "schedule": ("ldm64", "alphas_raw"),
    "embeddings": (),
    "vae": ("stats",),
    "spatial_volume": ("stats",),
    "unet64": ("stats", "tap_names"),
    "clip": ("stats",),
    "denoise_step_unet64": ("without_noise",),
    "trajectory_unet64": ("stats", "noise_index", "init_noise", "uint8"),
    "harmony_unet64": (
        "stats",
        "stride4",
        "s1",
        "clip",
        "x_input",
        "elevation",
        "time",
        "index",
        "coef",
    ),
}
"""Files of goldens, and parts of names that are left out."""


def main() -> None:
    thin = {}
    for file, left_out in FILES.items():
        arrays = np.load(SHARED / "goldens" / f"{file}.npz")
        for name in arrays.files:
            if not any(part in name for part in left_out):
                thin[f"{file}/{name}"] = thin_out(arrays[name])
    COMPACT_GOLDENS.parent.mkdir(exist_ok=True)
    np.savez_compressed(COMPACT_GOLDENS, **thin)


if __name__ == "__main__":
    main()
