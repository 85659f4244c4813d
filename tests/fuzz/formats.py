"""Formats of the files that commands read: good files, ways to damage them, and their readers."""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import trimesh
from PIL import Image, ImageCms, features
from safetensors.torch import save as save_safetensors

from blender.dataset_index import add_to_uid_set, check_settings, write_warnings
from blender.model_file import repair_model
from blender.objects import find_objects
from common.config import load_config
from common.records import RunDirectory, Step
from common.safe_pickle import read_pickle
from common.uid_set import read_uid_set
from evaluation.benchmark.evaluate import ObjectRecord
from evaluation.depth import depth_names, read_depth_maps
from evaluation.meshes import read_mesh
from evaluation.results import Result, append_result, read_log
from ldm.checkpoint.files import read_state_dict
from ldm.config import GenerateConfig
from ldm.data.folder import read_meta
from ldm.data.samples import decode_item, decode_rgba, located
from ldm.data.shard_dataset import ShardDataset
from ldm.shards import check, pack
from ldm.training.config import TrainConfig
from multiview.cameras import orbit_cameras
from multiview.colmap_model import MODEL_FILES, read_colmap, write_colmap
from multiview.image_file import read_image
from multiview.images import prepare_image, view_names
from multiview.transforms_json import TRANSFORMS, read_transforms, write_transforms
from multiview.views import read_views_and_alpha
from renderer.checkpoint import RunFingerprint, read_checkpoint, write_checkpoint
from renderer.config import RendererConfig
from tests.fuzz import mutations
from tests.ldm.training.training_tree import make_tree
from tests.multiview.test_colmap_model import write_binary

ROOT = Path(__file__).parents[2]
Damage = Callable[[random.Random, bytes, list[bytes]], bytes]
Reader = Callable[[Path, Path], object]
"""Reads a damaged file; may write into the folder given second."""


@dataclass(frozen=True)
class Format:
    """A format: the name of the damaged file, good contents, and the files that lie beside it."""

    name: str
    good: list[bytes]
    readers: list[Reader]
    structured: Damage | None = None  # tried in two of three cases
    beside: dict[str, bytes] = field(default_factory=dict)

    def damaged(self, draw: random.Random) -> bytes:
        structured = self.structured if draw.random() < 2 / 3 else None
        return (structured or mutations.damage)(draw, draw.choice(self.good), self.good)


def _strip() -> Image.Image:
    """A strip of 16 views of 16 pixels, RGBA."""
    rows, columns = np.mgrid[:16, :256]
    alpha = 255 * (np.hypot(rows - 8, columns % 16 - 8) < 6)
    return Image.fromarray(np.stack([columns, 8 * rows, rows, alpha], axis=-1).astype(np.uint8))


def _encoded(kind: str, mode: str = "RGBA", size: tuple[int, int] = (256, 16), **flags) -> bytes:
    made = io.BytesIO()
    _strip().crop((0, 0, *size)).convert(mode).save(made, kind, **flags)
    return made.getvalue()


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[282] = 3, "text", 72.0
    return exif.tobytes()


def _decode_square(path: Path, _: Path) -> None:
    with located(path.name):
        decode_rgba(path.read_bytes())


def _depth(path: Path, out: Path) -> None:
    for name in depth_names(16):
        shutil.copy(path, out / name)
    read_depth_maps(out, 16)


IMAGE_READERS: list[Reader] = [
    lambda path, _: read_image(path),
    lambda path, _: read_views_and_alpha(path),
    lambda path, _: prepare_image(path, 200, 32),
]


def _images() -> dict[str, Format]:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    deep = Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 200)
    grey = io.BytesIO()
    deep.save(grey, "PNG")
    square = _encoded("PNG", size=(16, 16))
    png = [
        _encoded("PNG", exif=_exif(), icc_profile=icc),
        _encoded("PNG", "P"),
        square,
        _encoded("PNG", "RGB", transparency=(9, 9, 9)),
        _encoded("PNG", "1"),
        grey.getvalue(),
    ]
    jpeg = [
        _encoded("JPEG", "RGB", exif=_exif()),
        _encoded("JPEG", "CMYK"),
        _encoded("JPEG", "L", progressive=True),
        _encoded("JPEG", "RGB", comment=b"text"),
    ]
    others = [
        _encoded("WEBP", exif=_exif(), lossless=True),
        _encoded("WEBP", "RGB"),
        _encoded("TIFF", exif=_exif()),
        _encoded("TIFF", "RGB", compression="tiff_lzw"),
        _encoded("GIF", "P"),
        _encoded("BMP", "RGB"),
        _encoded("PPM", "RGB"),
    ]
    if features.check("avif"):
        others.append(_encoded("AVIF", exif=_exif()))
    readers = [*IMAGE_READERS, _decode_square, _depth]
    return {
        "png": Format("a.png", png, readers, mutations.damage_png),
        "jpeg": Format("a.jpg", jpeg, IMAGE_READERS),
        "other images": Format("a.tif", others, IMAGE_READERS),
    }


MESH_READERS: list[Reader] = [lambda path, _: read_mesh(path), repair_model]


def _meshes() -> dict[str, Format]:
    coloured = trimesh.creation.icosphere(1, 0.4)
    coloured.visual.vertex_colors = np.full((len(coloured.vertices), 4), 200, np.uint8)
    textured = trimesh.creation.box((0.5, 0.6, 0.7))
    uv = textured.vertices[:, :2] + 0.5
    image = _strip().convert("RGB")
    textured.visual = trimesh.visual.TextureVisuals(
        uv, trimesh.visual.material.PBRMaterial(baseColorTexture=image)
    )
    scene = trimesh.Scene([textured, coloured.copy().apply_translation((0.1, 0, 0))])

    def made(kind: str, *shapes, **flags) -> list[bytes]:
        exported = [shape.export(file_type=kind, **flags) for shape in shapes]
        return [part.encode() if isinstance(part, str) else part for part in exported]

    ply = made("ply", coloured) + made("ply", coloured, encoding="ascii") + made("ply", textured)
    stl = made("stl", coloured, textured) + made("stl_ascii", textured)
    obj = made("obj", coloured, trimesh.creation.box())
    obj.append(b"mtllib a.mtl\nusemtl m\n" + obj[1])
    glb = made("glb", scene, coloured, textured)
    return {
        "glb": Format("a.glb", glb, MESH_READERS, mutations.damage_glb),
        "ply": Format("a.ply", ply, MESH_READERS),
        "stl": Format("a.stl", stl, MESH_READERS),
        "obj": Format("a.obj", obj, MESH_READERS, mutations.damage_text),
    }


class Foreign(dict):
    """Of a class that no reader knows."""


STATE = {
    "spatial_volume.a": torch.arange(12.0).reshape(3, 4),
    "model.diffusion_model.b": torch.ones(5, dtype=torch.bfloat16),
    "count": torch.tensor(7),
}
FINGERPRINT = RunFingerprint({"kind": "mlp", "rays": 9}, 1, "0" * 64)


def _read_weights(path: Path, _: Path) -> None:
    for tensor in read_state_dict(path).values():
        tensor.double().sum()


def _saved(content: object, **flags) -> bytes:
    made = io.BytesIO()
    torch.save(content, made, **flags)
    return made.getvalue()


def _checkpoints() -> dict[str, Format]:
    lightning = {"state_dict": STATE, "hyper_parameters": Foreign(a=Foreign()), "epoch": 3}
    contents = ({"state_dict": STATE}, STATE, lightning)
    legacy = {"_use_new_zipfile_serialization": False}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ckpt" / "last.ckpt"
        write_checkpoint(path, FINGERPRINT, {"a": torch.zeros(3)}, 1.0)
        resumed = path.read_bytes()
    readers = [_read_weights, lambda path, _: read_checkpoint(path, FINGERPRINT)]
    zipped = [*map(_saved, contents), resumed]
    safe = [save_safetensors(STATE), save_safetensors({"a": torch.zeros(2, 2)}, {"format": "pt"})]
    return {
        "safetensors": Format("a.safetensors", safe, [_read_weights], mutations.damage_safetensors),
        "zip checkpoint": Format("a.ckpt", zipped, readers, mutations.damage_zip),
        "old checkpoint": Format("a.ckpt", [_saved(c, **legacy) for c in contents], readers),
    }


def _read_shards(path: Path, _: Path) -> None:
    dataset = ShardDataset(str(path.parent))
    for index in range(len(dataset.uids)):
        decode_item(dataset.read(index, 1, 2), 1, 16)


def _training_sets() -> dict[str, Format]:
    with TemporaryDirectory() as folder:
        tree = make_tree(Path(folder) / "tree", ["a", "b.c"], 2)
        pack(tree, Path(folder) / "shards", num_views=2)
        shards = Path(folder) / "shards"
        archive, index = (shards / n for n in ("shard-000000.tar", "index.json"))
        packed = {path.name: path.read_bytes() for path in (archive, index)}
        meta = pickle.loads((tree / "input" / "a" / "meta.pkl").read_bytes())
    readers: list[Reader] = [lambda path, _: check(str(path.parent)), _read_shards]
    contents = (meta, ["a", "b"], {"a", "b"}, np.array(["a", "b"]), (b"a", 1, 2.5, {"a": None}))
    pickles = [pickle.dumps(each, protocol) for each in contents for protocol in (0, 2, 4)]
    pickle_readers: list[Reader] = [
        lambda path, _: read_pickle(path),
        lambda path, _: read_uid_set(path),
        lambda path, _: read_meta(path, 2),
        lambda path, out: add_to_uid_set(Path(shutil.copy(path, out)).parent, (), ()),
    ]
    tar = {"name": archive.name, "good": [packed[archive.name]], "beside": packed}
    return {
        "tar shards": Format(**tar, readers=readers, structured=mutations.damage_tar),
        "index of shards": Format(
            index.name, [packed[index.name]], readers, mutations.damage_text, packed
        ),
        "pickle": Format("uid_set.pkl", pickles, pickle_readers),
    }


def _log(path: Path, out: Path) -> None:
    read_log(path)
    append_result(Path(shutil.copy(path, out)), Result("a", psnr=1.0))


def _warnings(path: Path, out: Path) -> None:
    shutil.copy(path, out / "warnings.csv")
    write_warnings(out, [])


def _step(path: Path, out: Path) -> None:
    (out / "steps").mkdir()
    shutil.copy(path, out / "steps" / "a.json")
    (out / "made.txt").touch()
    directory = RunDirectory(out)
    with directory.open():
        directory.do(Step("a", {"size": 3}, [path], [out / "made.txt"]), dict)


def _texts() -> dict[str, Format]:
    yaml = [path.read_bytes() for path in sorted((ROOT / "configs").glob("*.yaml"))]
    schemas = (GenerateConfig, TrainConfig, RendererConfig)
    with TemporaryDirectory() as folder:
        table = Path(folder) / "a.csv"
        append_result(table, Result("a", psnr=1.0, points=3))
        csv = [table.read_bytes(), b'uid,model,warning\na,"b, c",d\n']
        record = ObjectRecord("key", Result("a", psnr=1.0, per_view={"psnr": [1.0]}))
        log = Path(folder) / "a.json"
        append_result(log, Result("a", psnr=1.0, per_view={"psnr": [1.0]}))
        step = {"settings": {"size": 3}, "inputs": {"a": "0"}, "results": {"b": "0"}, "facts": {}}
        records = [
            log.read_bytes(),
            json.dumps(asdict(record)).encode(),
            b'["a.glb", "b/c.obj"]',
            json.dumps(step).encode(),
            b'{"resolution": 256, "target": {"elevation": 30}}',
            b'{"a": "a.glb"}',
        ]
    json_readers: list[Reader] = [
        _log,
        _step,
        lambda path, _: ObjectRecord.load(path.parent),
        lambda path, _: find_objects(path),
        lambda path, out: check_settings(
            Path(shutil.copy(path, out / "render_settings.json")).parent, {"resolution": 256}
        ),
    ]
    return {
        "yaml": Format(
            "a.yaml",
            yaml,
            [lambda path, _, schema=schema: load_config(schema, path) for schema in schemas],
            mutations.damage_text,
        ),
        "csv": Format("a.csv", csv, [_log, _warnings], mutations.damage_text),
        "list of models": Format(
            "a.txt",
            [b"a.glb\n# b\n'c d.obj'\n"],
            [lambda path, _: find_objects(path)],
            mutations.damage_text,
        ),
        "json": Format("record.json", records, json_readers, mutations.damage_text),
    }


def _cameras() -> dict[str, Format]:
    rig, names = orbit_cameras(3), view_names(3)
    with TemporaryDirectory() as folder:
        write_transforms(Path(folder, TRANSFORMS), names, rig, 256)
        transforms = Path(folder, TRANSFORMS).read_bytes()
        write_colmap(Path(folder), names, rig, 256)
        text = {name: Path(folder, name).read_bytes() for name in MODEL_FILES[:2]}
        write_binary(Path(folder))
        binary = {name: Path(folder, name).read_bytes() for name in ("cameras.bin", "images.bin")}
    readers: list[Reader] = [lambda path, _: read_colmap(path.parent)]
    colmap = {
        name: Format(name, [content], readers, damage, {**model, name: content})
        for model, damage in ((text, mutations.damage_text), (binary, None))
        for name, content in model.items()
    }
    json_reader: list[Reader] = [lambda path, _: read_transforms(path)]
    return {
        TRANSFORMS: Format(TRANSFORMS, [transforms], json_reader, mutations.damage_text)
    } | colmap


def formats() -> dict[str, Format]:
    """All formats, by their names."""
    return _images() | _meshes() | _checkpoints() | _training_sets() | _texts() | _cameras()
