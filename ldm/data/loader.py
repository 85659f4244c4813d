"""Batches of training items, in an order that can be stopped and resumed anywhere.

For the trainer:

    source = open_dataset("training_examples")          # or a folder or URL of shards
    loader = make_loader(source, DataConfig(...), num_views, image_size, seed, rank, world_size)
    for batch in loader:                               # one epoch, or what is left of it
        batch = batch.to(device)
        views = to_model_range(batch.target_images)    # (B, N, 3, H, W) in [-1, 1]
        ...
        checkpoint["data"] = loader.state_dict()       # at any point between two batches

    loader.load_state_dict(checkpoint["data"])         # before iterating: goes on with the next

An epoch is an order of all objects that follows from the seed and the epoch alone. Global batch m
is its objects [m G, (m + 1) G), G = batch_size x world_size, and rank r takes the r-th part. So no
object comes twice in an epoch, every rank has the same number of batches, and the global batches
are the same for every number of ranks and workers. The last n mod G objects of an epoch are left
out, others each time. The state counts the batches handed out, not those that workers have
prepared, and is the same on all ranks.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from ldm.data.folder import FolderDataset
from ldm.data.samples import ObjectDataset, TrainingBatch, decode_item_into, pick_input_view
from ldm.data.shard_dataset import INDEX, FileReader, ShardDataset

Batch = tuple[int, list[int]]
"""What a worker is asked for: an epoch, and which objects."""


@dataclass(frozen=True)
class DataConfig:
    """Where the training data are and how they are read.

    Attributes:
        source: a folder tree or shards; a path or, for shards, any fsspec URL.
        validation: folder of images, `<anything>-<elevation>.png`.
        batch_size: objects a step and process.
        num_workers: processes that decode; 0 decodes in the training process.
        shuffle_objects: shards are shuffled, and objects within about so many neighbours; a folder
            tree is always shuffled as a whole.
    """

    source: str = "training_examples"
    validation: str = "validation_set"
    batch_size: int = 24
    num_workers: int = 8
    shuffle_objects: int = 8192

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("num_workers", 0), ("shuffle_objects", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


def open_dataset(location: str) -> ObjectDataset:
    """Open a training set: shards where there is an index of them, else a folder tree.

    Raises:
        FileNotFoundError, ValueError, OSError: naming the file or the uid.
    """
    if FileReader(location).remote or (Path(location) / INDEX).is_file():
        return ShardDataset(location)
    if not Path(location).is_dir():
        raise FileNotFoundError(f"{location}: no such folder of training data")
    if not (Path(location) / "uid_set.pkl").exists():
        raise FileNotFoundError(
            f"{location}: neither {INDEX} (shards) nor uid_set.pkl (a folder tree) is in it"
        )
    return FolderDataset(Path(location))


def epoch_order(groups: Sequence[int], seed: int, epoch: int, window: int) -> np.ndarray:
    """Order of all objects in an epoch.

    The groups (shards) are shuffled. Then each object moves back by up to `window` places, as a
    shuffle buffer of that size would have it: what is read at a time lies in few shards. One
    group is shuffled as a whole.

    Args:
        groups: their sizes, sum n.
        seed: of the training.
        epoch: from 0.
        window: objects.

    Returns:
        a permutation of 0 .. n - 1. The raw numbers of PCG64 are used, which NumPy keeps the same
        in all versions.
    """
    bits = np.random.PCG64(np.random.SeedSequence([seed, epoch]))
    sizes = np.asarray(groups, dtype=np.int64)
    count = int(sizes.sum())
    shuffled = np.argsort(bits.random_raw(len(sizes)), kind="stable")
    moved_by = _starts(sizes)[shuffled] - _starts(sizes[shuffled])
    in_shards = np.arange(count) + np.repeat(moved_by, sizes[shuffled])
    reach = count if len(sizes) == 1 else window
    if reach >= count:
        return in_shards[np.argsort(bits.random_raw(count), kind="stable")]
    keys = np.arange(count) + bits.random_raw(count) * 2.0**-64 * reach
    return in_shards[np.argsort(keys, kind="stable")]


def _starts(sizes: np.ndarray) -> np.ndarray:
    return np.cumsum(sizes) - sizes


class ResumableSampler(Sampler[Batch]):
    """Which objects come in which batch of this rank; knows what has been handed out."""

    def __init__(
        self,
        source: ObjectDataset,
        batch_size: int,
        seed: int = 0,
        window: int = DataConfig.shuffle_objects,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.groups, self.window, self.seed = list(source.groups), window, seed
        self.batch_size, self.rank = batch_size, rank
        self.count, self.global_batch = len(source.uids), batch_size * world_size
        self.epoch = self.position = 0
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size} processes")
        if self.count < self.global_batch:
            raise ValueError(
                f"the training set has {self.count} objects, fewer than a batch of {batch_size} "
                f"for each of {world_size} processes; lower data.batch_size"
            )
        digest = hashlib.blake2b(np.ascontiguousarray(source.uids).tobytes(), digest_size=16)
        digest.update(f"{self.groups} {window}".encode())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return self.count // self.global_batch

    def __iter__(self) -> Iterator[Batch]:
        """Yield what is left of the epoch; `advance` says what has been used of it."""
        epoch, position = self.epoch, self.position
        order = epoch_order(self.groups, self.seed, epoch, self.window)
        while position + self.global_batch <= self.count:
            start = position + self.rank * self.batch_size
            yield epoch, order[start : start + self.batch_size].tolist()
            position += self.global_batch

    def advance(self) -> None:
        """Count a batch as handed out. After an epoch's last one, the next epoch is begun."""
        self.position += self.global_batch
        if self.position + self.global_batch > self.count:
            self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the data: plain numbers and a text, the same on all ranks."""
        return {
            "seed": self.seed,
            "epoch": self.epoch,
            "position": self.position,
            "fingerprint": self.fingerprint,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; another number of ranks or batch size is allowed.

        Raises:
            ValueError: the data, the seed or the shuffling have changed since.
        """
        if state["fingerprint"] != self.fingerprint:
            raise ValueError(
                "the training data are not those of the checkpoint (other objects, another order "
                "of them, other shards, or another data.shuffle_objects), so it cannot go on "
                "where it was"
            )
        if state["seed"] != self.seed:
            raise ValueError(f"the checkpoint has seed {state['seed']}, this run {self.seed}")
        epoch, position = state["epoch"], state["position"]
        if type(epoch) is not int or type(position) is not int or epoch < 0 or position < 0:
            raise ValueError(f"no position in the data: epoch {epoch!r}, object {position!r}")
        if position + self.global_batch > self.count:  # by a larger batch than the checkpoint's
            epoch, position = epoch + 1, 0
        self.epoch, self.position = epoch, position


@dataclass(frozen=True)
class _Failure:
    """What a worker sends instead of a batch, so that the message stays one line."""

    error: ValueError | OSError


class _Batches(Dataset[Any]):
    """Reads and decodes whole batches, in a worker."""

    def __init__(self, source: ObjectDataset, num_views: int, image_size: int, seed: int) -> None:
        self.source, self.seed = source, seed
        self.num_views, self.image_size = num_views, image_size

    def __getitem__(self, wanted: Batch) -> TrainingBatch | _Failure:
        epoch, indices = wanted
        try:
            uids = [self.source.uids[index].decode() for index in indices]
            batch = TrainingBatch.empty(uids, self.num_views, self.image_size)
            if get_worker_info() is not None:
                batch.share_memory()
            for place, (index, uid) in enumerate(zip(indices, uids, strict=True)):
                view = pick_input_view(self.seed, epoch, uid, self.num_views)
                files = self.source.read(index, view, self.num_views)
                decode_item_into(batch.item(place), files, view)
            return batch
        except (ValueError, OSError) as error:
            return _Failure(error)


def _unchanged(batch: Any) -> Any:
    """Take a batch as it is: the default would turn it into lists."""
    return batch


def _leave_signals(_: int) -> None:
    """Let a worker live on when Ctrl-C or SIGTERM is meant for all processes of a group.

    The trainer still needs batches to end its step. It ends the workers then, by SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):  # not on Windows
        os.setpgid(0, 0)


class TrainingLoader:
    """Iterable over the batches of an epoch, with a position that is saved and restored."""

    def __init__(
        self, loader: DataLoader[TrainingBatch | _Failure], sampler: ResumableSampler
    ) -> None:
        self.loader, self.sampler = loader, sampler

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[TrainingBatch]:
        """Yield the rest of the current epoch; call again for the next one.

        Raises:
            ValueError, OSError: naming the uid and the file that cannot be used.
        """
        for batch in self.loader:
            if isinstance(batch, _Failure):
                raise batch.error
            self.sampler.advance()
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the batch that was handed out last."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there; call before iterating. See `ResumableSampler.load_state_dict`."""
        self.sampler.load_state_dict(state)


def make_loader(
    source: ObjectDataset,
    config: DataConfig,
    num_views: int,
    image_size: int,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> TrainingLoader:
    """Build the loader of one process.

    Args:
        source: see `open_dataset`.
        config: batch size, workers, shuffling.
        num_views: N of the model.
        image_size: H = W of the model's views.
        seed: of order and input views; the same on all ranks.
        rank: of this process.
        world_size: processes in all.
        pin_memory: faster copies to a GPU.

    Raises:
        ValueError: fewer objects than a global batch.
    """
    sampler = ResumableSampler(
        source, config.batch_size, seed, config.shuffle_objects, rank, world_size
    )
    loader: DataLoader[TrainingBatch | _Failure] = DataLoader(
        _Batches(source, num_views, image_size, seed),
        batch_size=None,
        sampler=sampler,
        num_workers=config.num_workers,
        collate_fn=_unchanged,
        worker_init_fn=_leave_signals,
        pin_memory=pin_memory,
        persistent_workers=config.num_workers > 0,
    )
    return TrainingLoader(loader, sampler)
