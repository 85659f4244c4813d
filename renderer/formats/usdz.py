"""USDZ, for augmented reality on Apple's devices and for programs that read USD."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.files import copy_file
from common.optional import import_optional
from multiview.cameras import Z_UP_TO_Y_UP
from renderer.formats.options import PACKAGES
from renderer.texture import turned

if TYPE_CHECKING:
    from trimesh import Trimesh

TEXTURE = "texture.png"
ROUGHNESS = 0.9


def write_usdz(path: Path, mesh: Trimesh, size_mm: float) -> None:
    """Write a mesh, y up, with its texture or vertex colours, as an uncompressed package.

    The coordinates stay; their unit is such that the longest edge is `size_mm`.
    """
    import_optional("pxr", "USDZ", PACKAGES)
    from pxr import Sdf, Usd, UsdGeom, UsdUtils

    with tempfile.TemporaryDirectory() as name:
        layer, package = Path(name, "mesh.usdc"), Path(name, "mesh.usdz")
        stage = Usd.Stage.CreateNew(str(layer))
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
        UsdGeom.SetStageMetersPerUnit(stage, size_mm / 1000 / float(mesh.extents.max()))
        root = UsdGeom.Xform.Define(stage, "/Object")
        stage.SetDefaultPrim(root.GetPrim())
        Usd.ModelAPI(root.GetPrim()).SetKind("component")
        _define(stage, turned(mesh, Z_UP_TO_Y_UP), Path(name, TEXTURE))
        stage.GetRootLayer().Save()
        if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(layer)), str(package)):
            raise OSError(f"{path}: cannot be written: USD could not make the package")
        copy_file(package, path)


def _define(stage: Any, mesh: Trimesh, texture: Path) -> None:
    """Add the mesh to a stage, and write its texture if it has one."""
    from pxr import Sdf, UsdGeom, Vt

    def array(kind: Any, values: np.ndarray) -> Any:
        return kind.FromNumpy(np.ascontiguousarray(values, dtype=np.float32))

    shape = UsdGeom.Mesh.Define(stage, "/Object/Mesh")
    shape.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    shape.CreatePointsAttr(array(Vt.Vec3fArray, mesh.vertices))
    shape.CreateExtentAttr(array(Vt.Vec3fArray, mesh.bounds))
    shape.CreateFaceVertexCountsAttr(Vt.IntArray(len(mesh.faces), 3))
    shape.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(np.int32(mesh.faces).reshape(-1)))
    shape.CreateNormalsAttr(array(Vt.Vec3fArray, mesh.vertex_normals))
    shape.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    primvars, per_vertex = UsdGeom.PrimvarsAPI(shape), UsdGeom.Tokens.vertex
    visual: Any = mesh.visual
    if visual.kind == "texture":
        kind = Sdf.ValueTypeNames.TexCoord2fArray
        primvars.CreatePrimvar("st", kind, per_vertex).Set(array(Vt.Vec2fArray, visual.uv))
        visual.material.baseColorTexture.convert("RGB").save(texture)
        _add_material(stage, shape)
    else:
        levels = np.asarray(visual.vertex_colors)[:, :3] / 255
        linear = np.where(levels > 0.04045, ((levels + 0.055) / 1.055) ** 2.4, levels / 12.92)
        colors = shape.CreateDisplayColorPrimvar(per_vertex)
        colors.Set(array(Vt.Vec3fArray, linear))


def _add_material(stage: Any, shape: Any) -> None:
    """Bind a material that shows the texture."""
    from pxr import Sdf, UsdShade

    types, material = Sdf.ValueTypeNames, UsdShade.Material.Define(stage, "/Object/Material")

    def shader(name: str, kind: str, **inputs: tuple[Any, Any]) -> Any:
        made = UsdShade.Shader.Define(stage, f"/Object/Material/{name}")
        made.CreateIdAttr(kind)
        for key, (type_name, value) in inputs.items():
            given = made.CreateInput(key, type_name)
            if isinstance(value, UsdShade.Output):
                given.ConnectToSource(value)
            else:
                given.Set(value)
        return made

    reader = shader("Coordinates", "UsdPrimvarReader_float2", varname=(types.String, "st"))
    image = shader(
        "Image", "UsdUVTexture", file=(types.Asset, f"./{TEXTURE}"),
        st=(types.Float2, reader.CreateOutput("result", types.Float2)),
        wrapS=(types.Token, "clamp"), wrapT=(types.Token, "clamp"),
        sourceColorSpace=(types.Token, "sRGB"),
    )  # fmt: skip
    surface = shader(
        "Surface", "UsdPreviewSurface", roughness=(types.Float, ROUGHNESS),
        diffuseColor=(types.Color3f, image.CreateOutput("rgb", types.Float3)),
        metallic=(types.Float, 0.0),
    )  # fmt: skip
    output = surface.CreateOutput("surface", types.Token)
    material.CreateSurfaceOutput().ConnectToSource(output)
    UsdShade.MaterialBindingAPI.Apply(shape.GetPrim()).Bind(material)
