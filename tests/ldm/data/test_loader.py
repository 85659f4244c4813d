"""The order of the data: nothing twice, whatever the ranks and workers, and exact resumption."""

from __future__ import annotations

import itertools
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from ldm.data.folder import FolderDataset
from ldm.data.loader import (
    DamagedDataError,
    DataConfig,
    ResumableSampler,
    TrainingLoader,
    epoch_order,
    make_loader,
    open_dataset,
    repeat_epochs,
)
from ldm.data.samples import TrainingBatch, image_key
from ldm.data.shard_dataset import ShardDataset
from ldm.shards import pack
from tests.ldm.training.training_tree import make_tree


class Numbers:
    """A dataset whose objects are only counted."""

    def __init__(self, group_sizes: Sequence[int]) -> None:
        self.group_sizes = group_sizes
        self.uids = np.array([f"u{n}".encode() for n in range(sum(group_sizes))])


GROUPS = [[7], [64], [5, 1, 9], [1] * 13, [40, 3, 3, 2], [101, 99, 100]]


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_no_object_comes_twice_in_an_epoch_over_all_ranks(
    groups: list[int], batch_size: int, world_size: int
):
    count = sum(groups)
    if count < batch_size * world_size:
        with pytest.raises(ValueError, match=f"{count} objects, fewer than a batch"):
            ResumableSampler(Numbers(groups), batch_size, world_size=world_size)
        return
    for window, epoch in itertools.product([1, 4, 1000], range(3)):
        seen = []
        for rank in range(world_size):
            sampler = ResumableSampler(Numbers(groups), batch_size, 9, window, rank, world_size)
            sampler.epoch = epoch
            batches = list(sampler)
            assert len(batches) == len(sampler) == count // (batch_size * world_size)
            assert {of for of, _ in batches} == {epoch}
            assert {len(indices) for _, indices in batches} == {batch_size}
            seen += [index for _, indices in batches for index in indices]
        assert len(set(seen)) == len(seen) == len(sampler) * batch_size * world_size


def test_global_batches_are_the_same_for_any_number_of_ranks():
    def global_batches(world: int) -> list[list[int]]:
        numbers, size = Numbers([30, 10, 21]), 12 // world
        ranks = [ResumableSampler(numbers, size, 3, 8, rank, world) for rank in range(world)]
        return [[i for _, part in parts for i in part] for parts in zip(*ranks, strict=True)]

    assert global_batches(1) == global_batches(2) == global_batches(3) == global_batches(4)


def test_epochs_seeds_and_shards_are_shuffled():
    orders = [epoch_order([50, 50], seed, epoch, 8) for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9
    first_shard = {int(epoch_order([50] * 8, 0, epoch, 8)[0]) // 50 for epoch in range(30)}
    assert len(first_shard) > 4
    np.testing.assert_array_equal(epoch_order([9, 9], 1, 2, 4), epoch_order([9, 9], 1, 2, 4))


def test_an_object_moves_within_the_window_so_that_few_shards_are_read_at_a_time():
    order = epoch_order([100] * 20, 0, 0, 150)
    for start in range(0, 2000, 50):
        assert len({index // 100 for index in order[start : start + 50].tolist()}) <= 4
    inside = order[(order >= 0) & (order < 100)]
    assert not np.array_equal(inside, np.sort(inside))


def test_the_order_of_a_seed_is_fixed():
    """So that a checkpoint can be resumed after an update of NumPy."""
    assert epoch_order([6], 6033, 0, 1).tolist() == [1, 4, 3, 5, 2, 0]
    assert epoch_order([3, 3, 3], 6033, 1, 3).tolist() == [3, 4, 0, 5, 1, 2, 7, 6, 8]


def loader(
    root: Path, workers: int, rank: int = 0, world: int = 1, seed: int = 1
) -> TrainingLoader:
    source = ShardDataset(str(root)) if (root / "index.json").exists() else FolderDataset(root)
    config = DataConfig(batch_size=2, num_workers=workers, shuffle_objects=3)
    return make_loader(source, config, 4, 8, seed, rank, world)


def content(batch: TrainingBatch) -> tuple[object, ...]:
    numbers = (batch.target_images, batch.input_images, batch.input_elevations)
    return batch.uids, *(part.numpy().tobytes() for part in numbers)


def first(batches: TrainingLoader, count: int) -> list[tuple[object, ...]]:
    """The content of the next batches, over the ends of epochs."""
    return [content(batch) for batch in itertools.islice(repeat_epochs(batches), count)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    uids = [f"u{n}" for n in range(11)]
    return make_tree(tmp_path_factory.mktemp("tree"), uids, num_views=4, size=8)


@pytest.fixture(scope="module")
def shards(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    assert len(pack(tree, out, 50_000, num_views=4).shards) > 2
    return out


@pytest.mark.parametrize("kind", ["tree", "shards"])
def test_the_batches_are_the_same_for_any_number_of_workers(kind: str, request):
    root = request.getfixturevalue(kind)
    expected = first(loader(root, workers=0), 10)  # two epochs
    assert expected[:5] != expected[5:]
    for workers in (1, 2):
        assert first(loader(root, workers), 10) == expected


@pytest.mark.parametrize("kind", ["tree", "shards"])
@pytest.mark.parametrize(("stop", "workers"), [(0, 0), (1, 2), (3, 0), (5, 0), (7, 2), (10, 0)])
def test_a_resumed_run_gets_exactly_the_items_that_would_have_come(
    kind: str, stop: int, workers: int, request
):
    root = request.getfixturevalue(kind)
    interrupted, resumed = loader(root, workers), loader(root, 0)
    assert len(first(interrupted, stop)) == stop
    resumed.load_state_dict(interrupted.state_dict())
    assert first(resumed, 14 - stop) == first(loader(root, 0), 14)[stop:]


@pytest.mark.parametrize("workers", [0, 1])
def test_images_are_hashed_in_the_workers_if_that_is_asked_for(tree: Path, workers: int):
    config = DataConfig(batch_size=2, num_workers=workers)
    dataset = FolderDataset(tree)
    assert next(iter(make_loader(dataset, config, 4, 8))).image_keys == ()
    batch = next(iter(make_loader(dataset, config, 4, 8, hash_images=True)))
    assert len(batch.image_keys) == 2
    for number, keys in enumerate(batch.image_keys):
        views = [*batch.target_images[number], batch.input_images[number]]
        assert keys == tuple(image_key(view) for view in views)
        assert len(set(keys)) == 5
    assert batch.to("cpu").image_keys == batch.image_keys


def test_a_run_resumes_with_another_number_of_ranks(tree: Path):
    one = loader(tree, 0)
    batches = iter(one)
    seen = [uid for _ in range(2) for uid in next(batches).uids]
    states = one.state_dict()
    for rank in range(2):
        other = loader(tree, 0, rank, world=2)
        other.load_state_dict(states)
        seen += [uid for batch in other for uid in batch.uids]
    assert len(seen) == 4 + 4
    assert len(set(seen)) == len(seen)


def test_an_iterator_that_is_left_early_goes_on_where_it_was(tree: Path):
    broken = loader(tree, 1)
    assert first(broken, 2) + first(broken, 3) == first(loader(tree, 0), 5)


@pytest.mark.skipif(not hasattr(os, "getpgid"), reason="no process groups here")
def test_signals_for_the_whole_command_do_not_end_its_workers(tree: Path):
    expected = [content(batch) for batch in loader(tree, 0)]
    decoding = loader(tree, 2)
    batches = iter(decoding)
    found = [content(next(batches)) for _ in range(2)]  # one of each worker
    for worker in decoding.loader._iterator._workers:
        assert os.getpgid(worker.pid) == worker.pid  # a signal for the trainer's group passes by
        os.kill(worker.pid, signal.SIGINT)
    assert found + [content(batch) for batch in batches] == expected


def test_state_of_other_data_or_another_seed_is_refused(tree: Path, shards: Path):
    state = loader(tree, 0).state_dict()
    with pytest.raises(ValueError, match="data differ"):
        loader(shards, 0).load_state_dict(state)
    with pytest.raises(ValueError, match="seed 1, this run 2"):
        loader(tree, 0, seed=2).load_state_dict(state)
    with pytest.raises(ValueError, match=r"position .*-1"):
        loader(tree, 0).load_state_dict({**state, "position": -1})


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("num_workers", -1), ("shuffle_objects", 0)]
)
def test_impossible_settings_are_refused(name: str, value: int):
    with pytest.raises(ValueError, match=f"{name} must be at least {value + 1}"):
        DataConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_objects_are_replaced_counted_and_reported_up_to_a_limit(
    tmp_path: Path, caplog, workers: int
):
    uids = [f"u{n}" for n in range(6)]
    root = make_tree(tmp_path / "tree", uids, 3)
    for uid in ("u2", "u3"):
        (root / "target" / uid / "001.png").write_bytes(b"damaged")

    def epochs(limit: int) -> list[TrainingBatch]:
        config = DataConfig(batch_size=2, num_workers=workers, max_damaged=limit)
        loader = make_loader(open_dataset(str(root)), config, 3, 16, seed=1)
        return [batch for _ in range(2) for batch in loader]

    used = [uid for batch in epochs(2) for uid in batch.uids]
    assert sorted(used[:6]) == ["u0", "u1", "u4", "u4", "u4", "u5"]
    reported = [m for m in caplog.messages if re.search(r"another .* of 2\): object u[23]", m)]
    assert len(reported) == 2
    whole = make_loader(open_dataset(str(make_tree(tmp_path / "whole", uids, 3))),
                        DataConfig(batch_size=2, num_workers=0), 3, 16, seed=1)  # fmt: skip
    for batch, expected in zip(epochs(2)[:3], whole, strict=True):
        for index, uid in enumerate(batch.uids):
            if uid == expected.uids[index]:
                assert torch.equal(batch.target_images[index], expected.target_images[index])
    with pytest.raises(DamagedDataError, match=r"object u[23]: .*; 1 other damaged objects were"):
        epochs(1)
    with pytest.raises(DamagedDataError, match=r"^object u[23]: .*001\.png: is not a PNG image$"):
        epochs(0)
