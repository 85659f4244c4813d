from __future__ import annotations

import os

import numpy as np
import pytest

from evaluation.colmap.engine import Workspace, open_engine
from evaluation.colmap.points import count_points
from evaluation.colmap.program_engine import EXACT_MATCHING, ColmapProgram
from tests.conftest import run
from tests.evaluation.colmap.conftest import recorder, script


@pytest.mark.skipif(os.name == "nt", reason="os.kill ends a process on Windows")
def test_pycolmap_leaves_sigterm_to_the_command():
    """It would print a stack trace and end the process before that has cleaned up."""
    pytest.importorskip("pycolmap")
    code = "import os, signal; signal.signal(signal.SIGTERM, lambda *_: os._exit(7)); "
    code += "from evaluation.colmap.pycolmap_engine import PyColmap; PyColmap(); "
    done = run("-c", f"{code}os.kill(os.getpid(), signal.SIGTERM)")
    assert (done.returncode, done.stderr) == (7, "")


def test_a_program_that_matches_approximately_is_warned_of(tmp_path, caplog):
    for known, warnings in (("--random_seed", 1), (f"--{EXACT_MATCHING}", 0)):
        caplog.clear()
        program = recorder(tmp_path / "colmap", "3.8", known)
        ColmapProgram(program).match(Workspace(tmp_path))
        assert len(caplog.records) == warnings
    assert f"--{EXACT_MATCHING}\t1" in (tmp_path / "colmap.calls").read_text()


@pytest.mark.parametrize(
    ("version", "group"), [("3.8", "Sift"), ("3.13.0", "Feature"), ("4.2.1", "Feature")]
)
def test_a_stand_in_program_gets_the_option_names_that_its_help_names(tmp_path, version, group):
    known = f"--{group}Extraction.use_gpu --{group}Matching.use_gpu arg (=1) --Mapper.num_threads"
    program = recorder(tmp_path / "colmap", version, known)
    engine, work = ColmapProgram(program), Workspace(tmp_path)
    assert engine.name.startswith(f"COLMAP {version} ")
    assert engine.has_cuda
    engine.extract(work, "280.0,280.0,128.0,128.0")
    for step in (engine.match, engine.triangulate, engine.undistort, engine.stereo, engine.fuse):
        step(work)
    calls = (tmp_path / "colmap.calls").read_text().splitlines()
    base = f"--database_path\t{tmp_path}/database.db"
    assert calls == [
        f"feature_extractor\t{base}\t--image_path\t{tmp_path}/images\t"
        "--ImageReader.camera_model\tPINHOLE\t--ImageReader.single_camera_per_image\t1\t"
        "--ImageReader.camera_params\t280.0,280.0,128.0,128.0\t"
        f"--{group}Extraction.use_gpu\t0",
        f"exhaustive_matcher\t{base}\t--{group}Matching.use_gpu\t0",
        f"point_triangulator\t{base}\t--image_path\t{tmp_path}/images\t--input_path\t"
        f"{tmp_path}/poses\t--output_path\t{tmp_path}/sparse\t--Mapper.num_threads\t1",
        f"image_undistorter\t--image_path\t{tmp_path}/images\t--input_path\t{tmp_path}/sparse\t"
        f"--output_path\t{tmp_path}/dense",
        f"patch_match_stereo\t--workspace_path\t{tmp_path}/dense\t"
        "--PatchMatchStereo.geom_consistency\t1",
        f"stereo_fusion\t--workspace_path\t{tmp_path}/dense\t--input_type\tgeometric\t"
        f"--output_path\t{tmp_path}/dense/fused.ply\t--output_type\tPLY",
    ]


def test_only_a_program_that_says_with_cuda_has_cuda(tmp_path):
    for cuda, expected in (("with CUDA", True), ("without CUDA", False), ("without GPU", False)):
        program = script(tmp_path / "colmap", f"print('COLMAP 3.9 (Commit 1 {cuda})')")
        assert ColmapProgram(program).has_cuda is expected


def test_a_file_that_cannot_be_executed_and_another_program_are_refused(tmp_path):
    path = tmp_path / "colmap"
    path.write_text("no program")
    with pytest.raises(ValueError, match=r"colmap cannot be executed \(no permission\)"):
        open_engine(str(path))
    path.chmod(0o755)
    with pytest.raises(ValueError, match=r"colmap cannot be executed \(Exec format error\)"):
        open_engine(str(path))
    program = script(path, "print('usage: something else')")
    with pytest.raises(ValueError, match=r"is not COLMAP.*usage: something else"):
        open_engine(program)


def test_a_program_that_fails_is_named_with_the_last_line_of_its_output(tmp_path):
    program = script(
        tmp_path / "colmap",
        "import sys",
        "if sys.argv[1] == 'help':",
        "    sys.exit(print('COLMAP 3.8 (without CUDA)'))",
        "print('reading')",
        "print('E1 Check failed: no more disk\\n*** Aborted\\n    @ 0x7f main', file=sys.stderr)",
        "sys.exit(1)",
    )
    with pytest.raises(RuntimeError) as failure:
        count_points(np.ones((16, 32, 32, 3)), tmp_path, open_engine(program), "sparse")
    expected = "feature_extractor failed (exit status 1): E1 Check failed: no more disk"
    assert str(failure.value).endswith(expected)
    assert "reading" in (tmp_path / "colmap.log").read_text()


def test_a_failure_inside_pycolmap_names_it_in_one_line(tmp_path):
    pytest.importorskip("pycolmap")
    with pytest.raises(RuntimeError, match=r"^pycolmap \d\S*: extract_features failed: .+") as info:
        open_engine(None).extract(Workspace(tmp_path / "missing"), "1,1,1,1")
    assert "\n" not in str(info.value)
