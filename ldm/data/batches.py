"""Reading whole batches, in a worker; objects that cannot be read are reported and replaced."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch.utils.data import Dataset, get_worker_info

from ldm.data.samples import (
    ObjectDataset,
    TrainingBatch,
    TrainingItem,
    decode_item_into,
    pick_input_view,
)

BatchRequest = tuple[int, list[int]]
"""Epoch and indices of the objects of a batch."""


@dataclass(frozen=True)
class Damaged:
    """What a worker returns if objects could not be read: a line each, by uid, to count them."""

    errors: dict[str, str]
    batch: TrainingBatch | None  # with other objects in their places, unless there are too many


@dataclass(frozen=True)
class BatchDataset(Dataset[Any]):
    """Reads and decodes whole batches, in a worker."""

    dataset: ObjectDataset
    num_views: int
    image_size: int
    seed: int
    hash_images: bool
    max_damaged: int

    def __getitem__(self, request: BatchRequest) -> TrainingBatch | Damaged:
        epoch, indices = request
        uids = [self.dataset.uids[index].decode() for index in indices]
        batch = TrainingBatch.empty(uids, self.num_views, self.image_size)
        if get_worker_info() is not None:
            batch.share_memory()
        errors: dict[str, str] = {}
        for place, index in enumerate(indices):
            uid = self._read_into(batch.item(place), epoch, index, errors)
            if uid is None:
                return Damaged(errors, None)
            uids[place] = uid
        batch = replace(batch, uids=tuple(uids))
        batch = batch.with_image_keys() if self.hash_images else batch
        return Damaged(errors, batch) if errors else batch

    def _read_into(
        self, item: TrainingItem, epoch: int, index: int, errors: dict[str, str]
    ) -> str | None:
        """Read an object, or else the next one that can be read; return its uid.

        None if more objects than `max_damaged` cannot be read.
        """
        count = len(self.dataset.uids)
        for step in range(min(self.max_damaged + 1, count)):
            uid = self.dataset.uids[(index + step) % count].decode()
            view = pick_input_view(self.seed, epoch, uid, self.num_views)
            try:
                files = self.dataset.read((index + step) % count, view, self.num_views)
                decode_item_into(item, files, view)
            except (ValueError, OSError) as error:
                errors[uid] = str(error)
            else:
                return uid
        return None
