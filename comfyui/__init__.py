"""Nodes for ComfyUI: an image to 16 views, and from those to a mesh.

Link this folder into ComfyUI's `custom_nodes`; docs/comfyui.md says how.
"""

import sys
from pathlib import Path

# The packages of the clone, after ComfyUI's own, which has an `app`, too.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
