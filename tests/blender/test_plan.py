from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from blender.plan import ViewSettings, meta_matches, plan_cameras, write_meta
from common.safe_pickle import read_pickle
from multiview.cameras import CAMERA_DISTANCE, orbit_cameras, orbit_pose
from tests.conftest import SHARED, needs_shared

RANDOM = ViewSettings("random")


def test_fixed_cameras_are_the_ring_that_the_model_knows():
    planned, ring = plan_cameras(ViewSettings(), "chair"), orbit_cameras()
    np.testing.assert_array_equal(planned.world_to_camera, ring.world_to_camera)
    np.testing.assert_array_equal(planned.intrinsics, ring.intrinsics)


def test_random_elevations_fill_their_limits_at_the_azimuths_of_the_ring():
    drawn = [plan_cameras(RANDOM, str(k)).elevations for k in range(200)]
    degrees = np.rad2deg(np.concatenate(drawn))
    assert -10 <= degrees.min() < -9.9
    assert 39.9 < degrees.max() <= 40
    assert abs(degrees.mean() - 15) < 1
    cameras = plan_cameras(RANDOM, "chair")
    for k, pose in enumerate(cameras.world_to_camera):
        expected = orbit_pose(cameras.elevations[k], 2 * np.pi * k / 16, CAMERA_DISTANCE)
        np.testing.assert_allclose(pose, expected, atol=1e-12)


def test_random_elevations_depend_on_the_name_and_the_seed_alone():
    first = plan_cameras(RANDOM, "chair").elevations
    np.testing.assert_array_equal(plan_cameras(RANDOM, "chair").elevations, first)
    other_size = ViewSettings("random", resolution=64)
    np.testing.assert_array_equal(plan_cameras(other_size, "chair").elevations, first)
    assert (plan_cameras(RANDOM, "table").elevations != first).all()
    assert (plan_cameras(ViewSettings("random", seed=1), "chair").elevations != first).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_images": 0}, "num_images must be from 1 to 1000"),
        ({"num_images": 1001}, "num_images"),
        ({"resolution": 0}, "resolution"),
        ({"elevation": float("nan")}, "elevation must be from -90 to 90"),
        ({"elevation_start": 50.0}, "must not be above elevation_end"),
        ({"elevation_end": 91.0}, "elevation_end must be"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        ViewSettings(**values)


def test_meta_pkl_has_the_published_layout_and_matches_its_cameras_only(tmp_path: Path):
    cameras = plan_cameras(RANDOM, "chair")
    write_meta(tmp_path / "meta.pkl", cameras)
    meta = pickle.loads((tmp_path / "meta.pkl").read_bytes())
    assert type(meta) is list
    assert [part.shape for part in meta] == [(3, 3), (16,), (16,), (16,), (16, 3, 4)]
    assert [part.dtype.itemsize for part in meta] == [4, 4, 8, 8, 8]
    np.testing.assert_allclose(meta[0], [[280, 0, 128], [0, 280, 128], [0, 0, 1]])
    np.testing.assert_allclose(meta[1], np.arange(16) * np.pi / 8, atol=1e-6)
    assert (meta[3] == 1.5).all()
    assert meta_matches(tmp_path / "meta.pkl", cameras)
    assert not meta_matches(tmp_path / "meta.pkl", plan_cameras(RANDOM, "table"))
    for change in ({"camera_type": "fixed"}, {"num_images": 8}, {"resolution": 64}):
        other = plan_cameras(replace(RANDOM, **change), "chair")
        assert not meta_matches(tmp_path / "meta.pkl", other)


@needs_shared
def test_meta_pkl_looks_as_the_published_one(tmp_path: Path):
    write_meta(tmp_path / "meta.pkl", plan_cameras(RANDOM, "uid0"))
    ours = read_pickle(tmp_path / "meta.pkl")
    theirs = read_pickle(SHARED / "goldens" / "data_example" / "input" / "uid0" / "meta.pkl")
    assert type(ours) is type(theirs)
    assert [(a.shape, a.dtype) for a in ours] == [(a.shape, a.dtype) for a in theirs]
    for k in (0, 1, 3):
        np.testing.assert_allclose(ours[k], theirs[k], atol=1e-6)


class RunsCode:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_a_strange_meta_pkl_matches_nothing_and_runs_nothing(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cameras = plan_cameras(RANDOM, "chair")
    assert not meta_matches(tmp_path / "meta.pkl", cameras)
    values = ([1, 2], None, ["a", 1, 2, 3, 4], RunsCode())
    for content in (b"", b"text", *map(pickle.dumps, values)):
        (tmp_path / "meta.pkl").write_bytes(content)
        assert not meta_matches(tmp_path / "meta.pkl", cameras)
    assert not (tmp_path / "ran").exists()
