"""Read Zero123 in the folder layout of diffusers, under the names of Zero123's own file.

The folder (bennyguo/zero123-xl-diffusers, 2.5 GB in half precision) has a folder for each part:
unet, vae, image_encoder (CLIP, as transformers names it) and clip_camera_projection.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from ldm.checkpoint.files import read_state_dict

log = logging.getLogger(__name__)

PROJECTION = "clip_camera_projection"
PARTS = ("unet", "vae", "image_encoder", PROJECTION)
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_REST = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_MIDDLE = {
    "resnets.0": "mid.block_1",
    "resnets.1": "mid.block_2",
    "attentions.0.group_norm": "mid.attn_1.norm",
    "attentions.0.to_q": "mid.attn_1.q",
    "attentions.0.query": "mid.attn_1.q",  # until diffusers 0.15
    "attentions.0.to_k": "mid.attn_1.k",
    "attentions.0.key": "mid.attn_1.k",
    "attentions.0.to_v": "mid.attn_1.v",
    "attentions.0.value": "mid.attn_1.v",
    "attentions.0.to_out.0": "mid.attn_1.proj_out",
    "attentions.0.proj_attn": "mid.attn_1.proj_out",
}
CLIP_EMBEDDINGS = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.patch_embedding": "conv1",
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
}
CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
    "self_attn.in_proj_weight": "attn.in_proj_weight",
    "self_attn.in_proj_bias": "attn.in_proj_bias",
}


def read_diffusers_folder(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of all parts, named and shaped as in zero123-xl.ckpt.

    It has neither the schedule, which is computed, nor CLIP's text parameters, which are unused.

    Raises:
        FileNotFoundError, ValueError: naming the folder or file, and what is wrong with it.
    """
    files = {part: _weights_file(folder, part) for part in PARTS}
    unet, vae, clip, projection = (read_state_dict(file) for file in files.values())
    blocks = 1 + max((int(n) for n in re.findall(r"up_blocks\.(\d+)", " ".join(vae))), default=0)
    named = (
        ("model.diffusion_model.", unet, lambda name: unet_name(name, unet)),
        ("first_stage_model.", vae, lambda name: vae_name(name, blocks)),
        ("cond_stage_model.model.visual.", _openai_layout(clip), clip_name),
        ("cc_projection.", projection, lambda name: name.rpartition(".")[2]),
    )
    state: dict[str, Tensor] = {}
    for file, (prefix, tensors, rename) in zip(files.values(), named, strict=True):
        for name, tensor in tensors.items():
            new = rename(name)
            if new is None:
                raise ValueError(f"{file}: '{name}' is no tensor of this part of Zero123")
            if tensor.ndim == 2 and re.search(r"attn_1\.(q|k|v|proj_out)\.|proj_(in|out)\.", new):
                tensor = tensor[:, :, None, None]  # a linear layer there, a convolution here
            state[prefix + new] = tensor
    return state


def _weights_file(folder: Path, part: str) -> Path:
    """Choose a part's file: not of the moving average, not half precision, not pickled."""
    files = [p for p in sorted((folder / part).glob("*")) if p.suffix in (".safetensors", ".bin")]
    if not files:
        raise FileNotFoundError(
            f"{folder}: no .safetensors or .bin file in its folder '{part}'; expected is a "
            f"checkpoint file, or Zero123 in diffusers' layout with the folders {', '.join(PARTS)}"
        )
    chosen = min(files, key=lambda p: ("ema" in p.name, "fp16" in p.name, p.suffix == ".bin"))
    if len(files) > 1:
        log.info("%s: taken of %d files of this part", chosen, len(files))
    return chosen


def unet_name(name: str, names: Collection[str]) -> str | None:
    """Name of a UNet's tensor in Zero123's file; None if there is none.

    Args:
        name: in diffusers.
        names: of all tensors of the UNet.
    """
    for old, new in UNET_REST.items():
        if name.startswith(f"{old}."):
            return new + name.removeprefix(old)
    parts = r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(\w+)\.(\d+)\.(\w+)\.(.+)"
    found = re.fullmatch(parts, name)
    if not found:
        return None
    side, kind, layer, rest = (found[i] for i in (1, 3, 5, 6))
    level, index = int(found[2] or 0), int(found[4])
    # Blocks are counted through all levels; each has its residual blocks and one more.
    first_level = r"down_blocks\.0\.resnets\.\d+\.conv1\.weight"
    per_level = 1 + sum(bool(re.fullmatch(first_level, n)) for n in names)
    if side == "mid":
        block = f"middle_block.{2 * index if kind == 'resnets' else 1}"
    elif kind == "downsamplers":
        return f"input_blocks.{(level + 1) * per_level}.0.op.{rest}"
    elif kind == "upsamplers":
        after_attention = any(n.startswith(f"up_blocks.{level}.attentions.") for n in names)
        return f"output_blocks.{(level + 1) * per_level - 1}.{1 + after_attention}.conv.{rest}"
    else:
        count = level * per_level + index
        block = f"input_blocks.{1 + count}" if side == "down" else f"output_blocks.{count}"
        block += ".0" if kind == "resnets" else ".1"
    inner = UNET_RESNET.get(layer) if kind == "resnets" else layer
    return inner and f"{block}.{inner}.{rest}"


def vae_name(name: str, levels: int) -> str | None:
    """Name of an autoencoder's tensor in Zero123's file; None if there is none."""
    if name.startswith(("quant_conv.", "post_quant_conv.")):
        return name
    coder, _, rest = name.partition(".")
    if coder not in ("encoder", "decoder"):
        return None
    rest = rest.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    for old, new in VAE_MIDDLE.items():
        if rest.startswith(f"mid_block.{old}."):
            return f"{coder}.{new}{rest.removeprefix(f'mid_block.{old}')}"
    parts = r"(down|up)_blocks\.(\d+)\.(?:resnets\.(\d+)|(down|up)samplers\.0)\.(.+)"
    found = re.fullmatch(parts, rest)
    if found:
        side, level, index, resample, rest = found.groups()
        # The checkpoint counts the decoder's levels from the finest.
        level = int(level) if side == "down" else levels - 1 - int(level)
        inner = f"block.{index}" if index else f"{resample}sample"
        return f"{coder}.{side}.{level}.{inner}.{rest}"
    return f"{coder}.{rest}" if rest.startswith(("conv_in.", "norm_out.", "conv_out.")) else None


def clip_name(name: str) -> str | None:
    """Name of a tensor of CLIP's image tower in OpenAI's layout; None if there is none."""
    if name == "proj":
        return name
    rest = name.removeprefix("vision_model.")
    for old, new in CLIP_EMBEDDINGS.items():
        if rest.startswith(old):
            return new + rest.removeprefix(old)
    found = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", rest)
    if not found:
        return None
    for old, new in CLIP_LAYER.items():
        if found[2].startswith(old):
            return f"transformer.resblocks.{found[1]}.{new}{found[2].removeprefix(old)}"
    return None


def _openai_layout(clip: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join queries, keys and values, and transpose the last layer, as in OpenAI's file."""
    tensors = {name: t for name, t in clip.items() if not name.endswith("position_ids")}
    for name in clip:
        found = re.fullmatch(r"(.+\.self_attn)\.q_proj\.(weight|bias)", name)
        names = [f"{found[1]}.{letter}_proj.{found[2]}" for letter in "qkv"] if found else []
        if found and all(n in tensors for n in names):
            tensors[f"{found[1]}.in_proj_{found[2]}"] = torch.cat([tensors.pop(n) for n in names])
    if "visual_projection.weight" in tensors:
        tensors["proj"] = tensors.pop("visual_projection.weight").T
    return tensors
