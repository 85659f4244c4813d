"""Disk cache of the frozen encoders' outputs in float32; equal to encoding except for rounding.

One file per object; its images are found by a hash of their pixels. The folder's name is a
fingerprint of the encoders.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ldm.checkpoint.files import save_atomically
from ldm.data.samples import TrainingBatch, to_model_range
from ldm.model import ImageFeatures, SyncDreamer
from ldm.networks.autoencoder import DiagonalGaussian
from ldm.training.loss import EncodedBatch

log = logging.getLogger(__name__)

FROZEN = ("first_stage_model.", "clip_image_encoder.")
CLIP = ".clip"
"""Suffix of an image's key, for its CLIP embedding."""


def encoders_fingerprint(model: SyncDreamer) -> str:
    """Hash the frozen encoders by the first 16 values of each of their tensors."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in model.state_dict().items():
        if name.startswith(FROZEN):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().flatten()[:16].cpu().float().numpy().tobytes())
    return digest.hexdigest()


class LatentCache:
    """Encodes batches with the frozen encoders; results of earlier steps and runs are read."""

    def __init__(self, folder: Path, model: SyncDreamer) -> None:
        self.folder = folder / encoders_fingerprint(model)
        self.folder.mkdir(parents=True, exist_ok=True)

    @torch.no_grad()
    def encode(self, model: SyncDreamer, batch: TrainingBatch) -> EncodedBatch:
        """Do as `encode_batch`, but read only images whose `image_keys` are not on disk."""
        device = batch.target_images.device
        cached = [self._read(uid) for uid in batch.uids]
        for index, tensors in enumerate(cached):
            missing = self._encode_missing(model, batch, index, tensors)
            if missing:
                tensors.update(missing)
                save_atomically(tensors, self.folder / f"{batch.uids[index]}.pt")
        pairs = list(zip(batch.image_keys, cached, strict=True))
        moments = [torch.stack([tensors[key] for key in keys]) for keys, tensors in pairs]
        clip = torch.stack([tensors[f"{keys[-1]}{CLIP}"] for keys, tensors in pairs])
        mean, std = torch.stack(moments).to(device).chunk(2, dim=2)
        features = ImageFeatures(clip.to(device), DiagonalGaussian(mean[:, -1], std[:, -1]))
        return EncodedBatch(DiagonalGaussian(mean[:, :-1], std[:, :-1]), features)

    def _encode_missing(
        self, model: SyncDreamer, batch: TrainingBatch, index: int, cached: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Encode those images of an object that are not cached; return the new tensors."""
        keys, image = batch.image_keys[index], batch.input_images[index]
        views = [*batch.target_images[index], image]
        missing = {key: view for key, view in zip(keys, views, strict=True) if key not in cached}
        clip_key = f"{keys[-1]}{CLIP}"
        encoded: dict[str, Tensor] = {}
        with torch.autocast(image.device.type, enabled=False):
            if missing:
                pixels = to_model_range(torch.stack(list(missing.values())))
                posterior = model.first_stage_model.encode(pixels)
                moments = torch.cat([posterior.mean, posterior.std], dim=1).cpu()
                encoded.update({k: m.clone() for k, m in zip(missing, moments, strict=True)})
            if clip_key not in cached:
                encoded[clip_key] = model.clip_image_encoder(to_model_range(image[None]))[0].cpu()
        return encoded

    def _read(self, uid: str) -> dict[str, Tensor]:
        path = self.folder / f"{uid}.pt"
        if not path.is_file():
            return {}
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError):
            log.warning("%s: the cached latents are damaged and computed again", path)
            return {}
        return dict(content) if isinstance(content, Mapping) else {}
