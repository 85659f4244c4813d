"""Shuffled batches of training items, resumable at any batch.

The order of the objects in an epoch depends on the seed and the epoch only. Global batch m has the
objects [m G, (m + 1) G), G = batch_size x world_size, and rank r takes the r-th part. So no object
is used twice in an epoch, every rank has the same number of batches, and the global batches are the
same for any number of ranks and workers. The last n mod G objects of an epoch are dropped. The
state counts the batches that were returned, not those prefetched, and is the same on all ranks.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Sampler

from ldm.data.batches import BatchDataset, BatchRequest, Damaged
from ldm.data.folder import FolderDataset
from ldm.data.samples import ObjectDataset, TrainingBatch
from ldm.data.shard_dataset import INDEX, FileReader, ShardDataset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataConfig:
    """Training data and how they are loaded."""

    source: str = "training_examples"  # folder tree or shards; any fsspec URL of shards
    validation: str = "validation_set"  # folder of images, `<anything>-<elevation>.png`
    batch_size: int = 24  # objects per step and process
    num_workers: int = 8  # decoding processes; 0 decodes in the training process
    # shards are shuffled, and objects within about so many neighbours; a folder tree as a whole
    shuffle_objects: int = 8192
    # objects with unreadable files that a process replaces by others before the training stops
    max_damaged: int = 0

    def __post_init__(self) -> None:
        least_values = {"batch_size": 1, "num_workers": 0, "shuffle_objects": 1, "max_damaged": 0}
        for name, least in least_values.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


def open_dataset(location: str) -> ObjectDataset:
    """Open a training set: shards if there is an index of them, else a folder tree."""
    if FileReader(location).remote or (Path(location) / INDEX).is_file():
        return ShardDataset(location)
    if not Path(location).is_dir():
        raise FileNotFoundError(f"{location}: the folder of training data does not exist")
    if not (Path(location) / "uid_set.pkl").exists():
        raise FileNotFoundError(
            f"{location}: has neither {INDEX} (shards) nor uid_set.pkl (a folder tree)"
        )
    return FolderDataset(Path(location))


def epoch_order(group_sizes: Sequence[int], seed: int, epoch: int, window: int) -> np.ndarray:
    """Shuffle all objects for an epoch: a permutation, the same in all versions of NumPy.

    The groups (shards, see `ObjectDataset`) are shuffled. Then each of the n objects moves back by
    up to `window` places, as in a shuffle buffer of that size, so that only few shards are read at
    a time. A single group is shuffled as a whole.
    """
    bits = np.random.PCG64(np.random.SeedSequence([seed, epoch]))
    sizes = np.asarray(group_sizes, dtype=np.int64)
    count = int(sizes.sum())
    shuffled = np.argsort(bits.random_raw(len(sizes)), kind="stable")
    starts, new_starts = (np.cumsum(s) - s for s in (sizes, sizes[shuffled]))
    moved_by = starts[shuffled] - new_starts
    in_shards = np.arange(count) + np.repeat(moved_by, sizes[shuffled])
    reach = count if len(sizes) == 1 else window
    if reach >= count:
        return in_shards[np.argsort(bits.random_raw(count), kind="stable")]
    keys = np.arange(count) + bits.random_raw(count) * 2.0**-64 * reach
    return in_shards[np.argsort(keys, kind="stable")]


class ResumableSampler(Sampler[BatchRequest]):
    """Yields the objects of this rank's batches; its state counts the batches that were used."""

    def __init__(
        self,
        dataset: ObjectDataset,
        batch_size: int,
        seed: int = 0,
        window: int = DataConfig.shuffle_objects,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.group_sizes, self.window, self.seed = list(dataset.group_sizes), window, seed
        self.batch_size, self.rank = batch_size, rank
        self.count, self.global_batch = len(dataset.uids), batch_size * world_size
        self.epoch = self.position = 0
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size} processes")
        if self.count < self.global_batch:
            raise ValueError(
                f"the training set has {self.count} objects, fewer than a batch of {batch_size} "
                f"for each of {world_size} processes; lower data.batch_size"
            )
        digest = hashlib.blake2b(np.ascontiguousarray(dataset.uids).tobytes(), digest_size=16)
        digest.update(f"{self.group_sizes} {window}".encode())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return self.count // self.global_batch

    def __iter__(self) -> Iterator[BatchRequest]:
        epoch, position = self.epoch, self.position
        order = epoch_order(self.group_sizes, self.seed, epoch, self.window)
        while position + self.global_batch <= self.count:
            start = position + self.rank * self.batch_size
            yield epoch, order[start : start + self.batch_size].tolist()
            position += self.global_batch

    def advance(self) -> None:
        """Count a batch as used; after the last one of an epoch, move to the next epoch."""
        self.position += self.global_batch
        if self.position + self.global_batch > self.count:
            self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the data as numbers and a string, the same on all ranks."""
        return {n: getattr(self, n) for n in ("seed", "epoch", "position", "fingerprint")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a position; ValueError unless the data, seed and shuffling are the same.

        The number of ranks and the batch size may differ.
        """
        if state["fingerprint"] != self.fingerprint:
            raise ValueError(
                "the training data differ from those of the checkpoint (other objects, another "
                "order of them, other shards, or another data.shuffle_objects)"
            )
        if state["seed"] != self.seed:
            raise ValueError(f"the checkpoint has seed {state['seed']}, this run {self.seed}")
        epoch, position = state["epoch"], state["position"]
        if type(epoch) is not int or type(position) is not int or epoch < 0 or position < 0:
            raise ValueError(f"invalid position in the data: epoch {epoch!r}, object {position!r}")
        if position + self.global_batch > self.count:  # if the batch has grown
            epoch, position = epoch + 1, 0
        self.epoch, self.position = epoch, position


class DamagedDataError(ValueError):
    """More objects of the training set cannot be read than `DataConfig.max_damaged`."""


def _ignore_group_signals(_: int) -> None:
    """Keep a worker alive on Ctrl-C or SIGTERM: the trainer needs batches to finish its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):  # not on Windows
        os.setpgid(0, 0)


class TrainingLoader:
    """Iterable over the batches of an epoch, with a position that can be saved and restored."""

    def __init__(
        self, loader: DataLoader[Any], sampler: ResumableSampler, max_damaged: int = 0
    ) -> None:
        self.loader, self.sampler, self.max_damaged = loader, sampler, max_damaged
        self.damaged: set[str] = set()
        """Names of the objects that could not be read."""

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[TrainingBatch]:
        """Yield the rest of the current epoch; errors (`DamagedDataError`) name the uid."""
        for loaded in self.loader:
            batch = self._count_damaged(loaded) if isinstance(loaded, Damaged) else loaded
            self.sampler.advance()
            yield batch

    def _count_damaged(self, loaded: Damaged) -> TrainingBatch:
        for uid, error in loaded.errors.items():
            known, limit = uid in self.damaged, self.max_damaged
            self.damaged.add(uid)
            if len(self.damaged) > limit:
                also = f"; {limit} other damaged objects were replaced before" if limit else ""
                raise DamagedDataError(f"{error}{also}")
            if not known:
                count = len(self.damaged)
                log.warning("damaged, another object is used (%d of %d): %s", count, limit, error)
        assert loaded.batch is not None
        return loaded.batch

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the batch that was returned last."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a position, before iterating; see `ResumableSampler.load_state_dict`."""
        self.sampler.load_state_dict(state)


def repeat_epochs(loader: TrainingLoader) -> Iterator[TrainingBatch]:
    """Yield the batches of one epoch after another, without end."""
    while True:
        yield from loader


def make_loader(
    dataset: ObjectDataset,
    config: DataConfig,
    num_views: int,
    image_size: int,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    hash_images: bool = False,
) -> TrainingLoader:
    """Build the loader of a process, for views of H = W = `image_size`.

    `seed`, of the order and the input views, must be the same on all ranks. `pin_memory` is for
    faster copies to a GPU; `hash_images` fills `TrainingBatch.image_keys`, in the workers.
    """
    sampler = ResumableSampler(
        dataset, config.batch_size, seed, config.shuffle_objects, rank, world_size
    )
    loader: DataLoader[Any] = DataLoader(
        BatchDataset(dataset, num_views, image_size, seed, hash_images, config.max_damaged),
        batch_size=None,
        sampler=sampler,
        num_workers=config.num_workers,
        worker_init_fn=_ignore_group_signals,
        pin_memory=pin_memory,
        persistent_workers=config.num_workers > 0,
    )
    return TrainingLoader(loader, sampler, config.max_damaged)
