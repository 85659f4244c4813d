from __future__ import annotations

import csv
import io
import struct
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from demo import furniture
from demo.furniture import (
    CATALOGUE,
    FurnitureModel,
    list_models,
    load_furniture,
    main,
    rejection_reason,
)
from demo.raycast.textures import srgb_to_linear

CATALOGUE_TEXT = "\n".join([
    "# of a test", "license=Some licence",
    r"id#1=Test#lamp", r"name#1=Lamp at 5\u20ac \ud83e\ude91", "category#1=Lights",
    "model#1=/test/lamp/lamp.obj", "creator#1=Ren\xe9",
    "name#2=Thief", "category#2=Miscellaneous", "model#2=../../thief/../thief.obj", "creator#2=",
    "name#3=Broken", "category#3=Miscellaneous", "model#3=/test/broken.obj",
    r"name#4=Plate \ud83e", "category#4=Kitchen", "model#4=/test/plate.obj",
    "modelRotation#4=1 0 0 0 0 -1 0 1 0",
])  # fmt: skip
LOOKS = {
    "wood": ("0.5 0.25 0.1", "map_Kd Wood.PNG"),
    "glass": ("0.2 0.4 0.6", "d 0.5"),
    "stolen": ("1 0 0", "map_Kd ../../../../secret.png"),
    "gone": ("0 1 0", "map_Kd C:\\pictures\\gone.png"),
    "torn": ("0 0 1", "map_Kd torn.png"),
    "cut": ("0 0 1", "map_Kd cut.png"),
}
MATERIALS = "".join(f"newmtl {name}\nKd {kd}\n{more}\n" for name, (kd, more) in LOOKS.items())
LAMP = list(LOOKS)
NAMES = ("Lamp at 5€ \U0001fa91", "Thief", "Broken", "Plate \ufffd")


def png(colour: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", (8, 4), colour).save(file, "PNG")
    return file.getvalue()


def obj(materials: list[str], size: tuple[float, float, float] = (1, 2, 1)) -> str:
    """Boxes side by side, one a material."""
    lines, start = ["mtllib look.mtl"], 1
    for index, material in enumerate(materials):
        box = trimesh.creation.box(size)
        lines += [f"v {x + 2 * index} {y} {z}" for x, y, z in box.vertices]
        lines += ["vt 0.5 0.5", f"usemtl {material}"]
        lines += ["f " + " ".join(f"{start + v}/{index + 1}" for v in face) for face in box.faces]
        start += len(box.vertices)
    return "\n".join(lines) + "\n"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "secret.png").write_bytes(png((1, 2, 3)))
    path = tmp_path / "a" / "b" / "Test.sh3f"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(CATALOGUE, CATALOGUE_TEXT.encode("latin-1"))
        file.writestr("test/lamp/lamp.obj", obj(LAMP))
        file.writestr("test/lamp/look.mtl", MATERIALS)
        file.writestr("test/lamp/wood.png", png((200, 100, 50)))
        file.writestr("test/lamp/torn.png", png((9, 9, 9))[:20])
        file.writestr("test/lamp/cut.png", png((9, 9, 9))[:-24])
        file.writestr("test/broken.obj", "v 1 2\nf 1 2 3 nonsense\nf 7 8 9\n")
        file.writestr("test/plate.obj", obj(["wood"], (1, 0.01, 1)))
        file.writestr("../../outside.obj", obj(["wood"]))
    return path


def model_of(archive: Path, member: str) -> FurnitureModel:
    return next(model for model in list_models(archive.parent) if model.member.endswith(member))


def materials_of(lamp: trimesh.Scene) -> dict[str, Any]:
    """Materials by name, which old versions of trimesh lose: found by the order of the boxes."""
    parts = sorted(lamp.geometry.values(), key=lambda mesh: mesh.vertices[:, 0].min())
    return {name: mesh.visual.material for name, mesh in zip(LAMP, parts, strict=True)}


def test_models_are_listed_with_their_authors(archive: Path, tmp_path: Path):
    models = list_models(archive.parent.parent)
    lamp = models[0]
    assert [model.name for model in models] == [*NAMES]
    assert (lamp.category, lamp.creator, lamp.licence) == ("Lights", "René", "Some licence")
    assert lamp.uid == "test-lamp"
    renamed = archive.with_name("BlendSwap-CC-0.sh3f")
    archive.rename(renamed)
    assert list_models(archive.parent)[0].licence == "CC0-1.0"
    renamed.unlink()
    with pytest.raises(FileNotFoundError, match=r"\.sh3f"):
        list_models(tmp_path)


def test_a_model_has_its_colours_and_stands_upright(archive: Path):
    scene = load_furniture(model_of(archive, "lamp/lamp.obj"))
    np.testing.assert_allclose(scene.extents, [11, 1, 2], atol=1e-6)
    materials = materials_of(scene)
    assert materials["wood"].baseColorTexture.getpixel((0, 0)) == (200, 100, 50)
    assert materials["wood"].alphaMode == "OPAQUE"
    glass = np.asarray(materials["glass"].baseColorFactor) / 255
    np.testing.assert_allclose(glass, [*srgb_to_linear(np.array([0.2, 0.4, 0.6])), 0.5], atol=0.004)
    assert materials["glass"].alphaMode == "BLEND"
    assert all(material.metallicFactor == 0 for material in materials.values())


def test_textures_that_are_missing_torn_or_outside_are_logged_and_left_out(
    archive: Path, caplog: pytest.LogCaptureFixture
):
    scene = load_furniture(model_of(archive, "lamp/lamp.obj"))
    materials = materials_of(scene)
    for name, channel in (("stolen", 0), ("gone", 1), ("torn", 2), ("cut", 2)):
        assert materials[name].baseColorTexture is None
        assert materials[name].baseColorFactor[channel] == 255
    assert "secret.png" in caplog.text
    assert "gone.png" in caplog.text
    assert "torn.png (damaged" in caplog.text
    assert caplog.text.count("texture cannot be read") == 1


def test_broken_models_and_archives_do_not_stop_the_rest(
    archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (archive.parent / "Torn.sh3f").write_bytes(archive.read_bytes()[:300])
    with zipfile.ZipFile(archive.parent / "Empty.sh3f", "w") as file:
        file.writestr("nothing.txt", "")
    main([f"--furniture={tmp_path}", f"--credits={tmp_path / 'credits.csv'}"])
    with (tmp_path / "credits.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["uid"], row["creator"]) for row in rows] == [("test-lamp", "René")]
    for name in ("Torn.sh3f", "Empty.sh3f", "test-broken", "test-thief: cannot be read"):
        assert name in caplog.text
    assert {path.name for path in tmp_path.iterdir()} == {"a", "credits.csv", "secret.png"}


def test_an_archive_that_lies_about_sizes_takes_no_more_memory(archive: Path):
    size, lie = 2**26, 1000
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.obj", bytes(size))
    raw = archive.read_bytes()
    assert raw.count(struct.pack("<I", size)) == 2
    archive.write_bytes(raw.replace(struct.pack("<I", size), struct.pack("<I", lie)))
    tracemalloc.start()
    try:
        with zipfile.ZipFile(archive) as file, pytest.raises(ValueError, match="damaged"):
            furniture.read_member(file, "a.obj")
        assert tracemalloc.get_traced_memory()[1] < size / 8
    finally:
        tracemalloc.stop()


def test_members_that_are_large_or_otherwise_compressed_are_refused(archive: Path, monkeypatch):
    lamp = model_of(archive, "lamp/lamp.obj")
    monkeypatch.setattr(furniture, "MAX_MEMBER_BYTES", 500)
    with pytest.raises(ValueError, match="500"):
        load_furniture(lamp)
    monkeypatch.undo()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("a.obj", bytes(1000))
    with zipfile.ZipFile(archive) as file, pytest.raises(ValueError, match=r"a\.obj.* 12"):
        furniture.read_member(file, "a.obj")


def test_a_catalogue_with_any_byte_damaged_does_not_stop_the_list(tmp_path: Path):
    path = tmp_path / "a.sh3f"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(CATALOGUE, CATALOGUE_TEXT.encode("latin-1"))
    raw = path.read_bytes()
    for place in range(len(raw)):
        for value in (0, 0x7F, 0xFF):
            path.write_bytes(raw[:place] + bytes([value]) + raw[place + 1 :])
            list_models(tmp_path)


@pytest.mark.parametrize("name", ["gone.png", "gone.mtl"])
def test_images_whose_decoder_starts_other_programs_are_refused(
    archive: Path, caplog: pytest.LogCaptureFixture, name: str
):
    postscript = io.BytesIO()
    Image.new("RGB", (8, 4)).save(postscript, "EPS")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("test/eps.obj", obj(["photo"]).replace("look.mtl", "eps.mtl"))
        file.writestr("test/eps.mtl", f"newmtl photo\nKd 1 0 0\nmap_Kd {name}\n")
        file.writestr(f"test/{name}", postscript.getvalue())
    model = replace(model_of(archive, "lamp/lamp.obj"), member="test/eps.obj")
    (part,) = load_furniture(model).geometry.values()
    assert part.visual.material.baseColorTexture is None
    assert "EPS" in caplog.text


def test_flat_grey_and_huge_models_are_rejected(archive: Path, monkeypatch: pytest.MonkeyPatch):
    plate = load_furniture(model_of(archive, "plate.obj"))
    assert rejection_reason(plate) == "flat"
    # rotated by its catalogue: thin along y, which is up in the file
    assert plate.extents.argmin() == 1
    lamp = load_furniture(model_of(archive, "lamp/lamp.obj"))
    assert rejection_reason(lamp) == ""
    for mesh in lamp.geometry.values():
        mesh.visual.material.baseColorTexture = None
        mesh.visual.material.baseColorFactor = [9, 9, 9, 255]
    assert rejection_reason(lamp) == "1 colours"
    monkeypatch.setattr(furniture, "MAX_FACES", 10)
    assert rejection_reason(lamp) == "72 faces"


@pytest.mark.parametrize("credits", ["", "missing/credits.csv"])
def test_an_unwritable_table_is_refused_before_models_are_read(
    archive: Path, tmp_path: Path, credits: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as end:
        main([f"--furniture={tmp_path}", f"--credits={tmp_path / credits}"])
    assert end.value.code == 2
    assert "--credits" in capsys.readouterr().err
