"""A cache on disk of what the frozen encoders make of images, in float32: the same but rounding.

One file an object. The images in it are found by a hash of their pixels, so that changed data,
or another order of the views, can never give a wrong answer; the folder's name is a fingerprint
of the encoders.
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
from ldm.training.loss import Encoded

log = logging.getLogger(__name__)

FROZEN = ("first_stage_model.", "clip_image_encoder.")
CLIP = ".clip"
"""After the hash of an image: CLIP's embedding of it."""


def encoders_fingerprint(model: SyncDreamer) -> str:
    """Identify the frozen encoders, from a few values of each of their weights."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in model.state_dict().items():
        if name.startswith(FROZEN):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().flatten()[:16].cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _key(image: Tensor) -> str:
    return hashlib.blake2b(image.contiguous().numpy().tobytes(), digest_size=16).hexdigest()


class LatentCache:
    """Encodes batches, and remembers."""

    def __init__(self, folder: Path, model: SyncDreamer) -> None:
        self.folder = folder / encoders_fingerprint(model)
        self.folder.mkdir(parents=True, exist_ok=True)

    @torch.no_grad()
    def encode(self, model: SyncDreamer, batch: TrainingBatch) -> Encoded:
        """Like `encode_batch`; only images that are not on the disk are encoded."""
        device = batch.target_images.device
        images = torch.cat([batch.target_images, batch.input_images[:, None]], dim=1).cpu()
        keys = [[_key(image) for image in views] for views in images]
        stored = [self._read(uid) for uid in batch.uids]
        for number, (uid, names, known) in enumerate(zip(batch.uids, keys, stored, strict=True)):
            seen = f"{names[-1]}{CLIP}"
            missing = {key: image for key, image in zip(names, images[number], strict=True)
                       if key not in known}  # fmt: skip
            with torch.autocast(device.type, enabled=False):
                if missing:
                    pixels = to_model_range(torch.stack(list(missing.values())).to(device))
                    posterior = model.first_stage_model.encode(pixels)
                    moments = torch.cat([posterior.mean, posterior.std], dim=1).cpu()
                    known.update({k: m.clone() for k, m in zip(missing, moments, strict=True)})
                if seen not in known:
                    pixels = to_model_range(images[number, -1:].to(device))
                    missing[seen] = known[seen] = model.clip_image_encoder(pixels)[0].cpu()
            if missing:
                save_atomically(known, self._path(uid))
        rows = [torch.stack([known[key] for key in names])
                for names, known in zip(keys, stored, strict=True)]  # fmt: skip
        mean, std = torch.stack(rows).to(device).chunk(2, dim=2)
        clip = torch.stack([known[f"{names[-1]}{CLIP}"]
                            for names, known in zip(keys, stored, strict=True)])  # fmt: skip
        features = ImageFeatures(clip.to(device), DiagonalGaussian(mean[:, -1], std[:, -1]))
        return Encoded(DiagonalGaussian(mean[:, :-1], std[:, :-1]), features)

    def _path(self, uid: str) -> Path:
        return self.folder / f"{uid}.pt"

    def _read(self, uid: str) -> dict[str, Tensor]:
        path = self._path(uid)
        if not path.is_file():
            return {}
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError):
            log.warning("%s: damaged, made anew", path)
            return {}
        return dict(content) if isinstance(content, Mapping) else {}
