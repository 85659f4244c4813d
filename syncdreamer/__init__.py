"""SyncDreamer's Python API: one image of an object to 16 views, and from those to a mesh.

from syncdreamer import SyncDreamerPipeline, reconstruct_mesh

views = SyncDreamerPipeline.load().generate("testset/locomotive.png", elevation=20)
mesh = reconstruct_mesh(views, "output/locomotive")
"""

from pipeline.api import MultiviewImages, SyncDreamerPipeline, reconstruct_mesh

__all__ = ["MultiviewImages", "SyncDreamerPipeline", "reconstruct_mesh"]
