"""Tensors are taken out of files with objects of unknown classes, and nothing of these runs."""

from __future__ import annotations

import collections
import logging
import os
import pickle
import re
import sys
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from ldm.checkpoint.files import read_state_dict
from ldm.checkpoint.foreign import LEGACY_MAGIC
from ldm.checkpoint.load import convert

STATE = {
    "a.weight": torch.arange(12.0).reshape(3, 4),
    "a.bias": torch.arange(12.0).reshape(3, 4).T[1:],
    "b": torch.ones(5, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "parameter": torch.nn.Parameter(torch.full((2, 2), 3.0)),
    "empty": torch.zeros(0, 3),
}


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module with classes that exist only while the file is written."""
    module = types.ModuleType("old_lightning")
    bases = {"AttributeDict": dict, "Names": list, "Tags": set, "Number": float, "Callback": object}
    for name, base in bases.items():
        cls = type(name, (base,), {"__module__": module.__name__})
        setattr(module, name, cls)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def extras(module: types.ModuleType) -> dict[str, object]:
    callback = module.Callback()
    callback.best = callback.itself = {"score": np.float64(0.5), "of": callback}
    return {
        "attributes": module.AttributeDict(lr=1e-4, nested=module.AttributeDict(a=[1])),
        "numpy": {"best": np.float64(0.5), "array": np.eye(2), "objects": np.array([{}, 1])},
        "omegaconf": OmegaConf.create({"model": {"target": "ldm.A", "sizes": [1, 2]}}),
        "types": {module.Callback: {"wait": 1}, callback: (callback, module.Tags("ab"))},
        "containers": [module.Names("ab"), module.Number(3), {1, 2}, frozenset("a"), bytearray(3)],
        "standard": [collections.deque([1]), collections.defaultdict(list, a=[1]), Path("a")],
    }


def save(path: Path, content: object, old: bool = False, protocol: int = 2) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not old, pickle_protocol=protocol)
    return path


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "which",
    ["attributes", "numpy", "omegaconf", "types", "containers", "standard", "all", "protocol 4"],
)
def test_the_tensors_are_those_that_were_saved(
    tmp_path: Path, foreign, caplog, which: str, old: bool
):
    caplog.set_level(logging.INFO)
    others = extras(foreign)
    chosen = {which: others[which]} if which in others else others
    content = {**chosen, "state_dict": foreign.AttributeDict(STATE), "lr_schedulers": [{}]}
    path = save(tmp_path / "old.ckpt", content, old, protocol=4 if which == "protocol 4" else 2)
    del sys.modules["old_lightning"]
    read = read_state_dict(path)
    assert read.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor.detach())
    (said,) = caplog.messages
    assert re.search(r"old\.ckpt: objects of other classes are left out \(.*old_lightning\.", said)
    convert(path, tmp_path / "new.safetensors")
    assert torch.equal(read_state_dict(tmp_path / "new.safetensors")["a.bias"], STATE["a.bias"])


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("length", [0.3, 0.7, 0.99])
def test_cut_files_are_named_as_damaged(tmp_path: Path, foreign, old: bool, length: float):
    path = save(tmp_path / "cut.ckpt", {**extras(foreign), "state_dict": STATE}, old)
    content = path.read_bytes()
    path.write_bytes(content[: int(length * len(content))])
    with pytest.raises(ValueError, match=r"cut\.ckpt: .*half download"):
        read_state_dict(path)


@pytest.mark.filterwarnings("ignore:.*source code")
def test_a_module_beside_the_weights_is_left_out(tmp_path: Path):
    """In the old format it comes with the source of its class."""
    for old in (False, True):
        content = {"state_dict": STATE, "loss": torch.nn.Linear(2, 2), "more": ...}
        path = save(tmp_path / "module.ckpt", content, old)
        assert read_state_dict(path).keys() == STATE.keys()


class Call:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> object:
        return self.call


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("function", [os.mkdir, eval, exec, getattr, __import__, Path.mkdir])
def test_nothing_that_a_file_names_is_called(tmp_path: Path, monkeypatch, function, old: bool):
    monkeypatch.chdir(tmp_path)
    other = Call(function, Path("ran") if function is Path.mkdir else "ran")
    path = save(tmp_path / "bad.ckpt", {"state_dict": STATE, "other": other}, old)
    with pytest.raises(ValueError, match=r"bad\.ckpt: refused.*cannot be read without running"):
        read_state_dict(path)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        (0, (5,), (1,)), (9, (1,), (1,)), (-1, (1,), (1,)), (0, (2, 2), (1,)), (0, (4,), (-1,)),
        (0, (2,), (2**62,)), (0, ("4",), (1,)),
    ],
)  # fmt: skip
def test_tensors_of_impossible_sizes_are_refused(tmp_path: Path, foreign, arguments):
    """Sizes beyond the storage of four values would read other memory."""
    tensor = torch.zeros(4)

    def reduce(self: torch.Tensor, _: int) -> object:
        storage = torch.storage.TypedStorage(
            wrap_storage=self.untyped_storage(), dtype=self.dtype, _internal=True
        )
        rebuild = torch._utils._rebuild_tensor_v2
        return rebuild, (storage, *arguments, False, collections.OrderedDict())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "__reduce_ex__", reduce)
        path = save(tmp_path / "bad.ckpt", {"state_dict": {"a": tensor}, **extras(foreign)})
    with pytest.raises(ValueError, match=r"bad\.ckpt: damaged"):
        read_state_dict(path)


def test_memory_that_a_file_names_is_not_allocated(tmp_path: Path):
    parts = [pickle.dumps(part, 2) for part in (LEGACY_MAGIC, 1001, {})]
    parts.append(b"\x80\x02cold\nThing\nr" + (2**24).to_bytes(4, "little") + b".")
    (tmp_path / "a.ckpt").write_bytes(b"".join(parts))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"a\.ckpt: damaged"):
            read_state_dict(tmp_path / "a.ckpt")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


NAMES = ("spatial_volume.a.weight", "model.diffusion_model.out.weight")
WEIGHTS = {name: torch.full((3,), float(i)) for i, name in enumerate(NAMES)}
AVERAGE = {name: tensor + 10 for name, tensor in WEIGHTS.items()}
COMPILED = {"spatial_volume._orig_mod.a.weight": WEIGHTS[NAMES[0]], NAMES[1]: WEIGHTS[NAMES[1]]}


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("content", "expected", "said"),
    [
        ({"state_dict": WEIGHTS}, WEIGHTS, None),
        ({"state_dict": prefixed("module.", WEIGHTS)}, WEIGHTS, "prefixes"),
        (prefixed("_orig_mod.", WEIGHTS), WEIGHTS, "prefixes"),
        (prefixed("module._orig_mod.", WEIGHTS), WEIGHTS, "prefixes"),
        (COMPILED, WEIGHTS, "prefixes"),
        ({"model": prefixed("module.", WEIGHTS), "epoch": 3}, WEIGHTS, "took 'model'; removed"),
        ({"state_dict": WEIGHTS, "state_dict_ema": AVERAGE}, AVERAGE, "took 'state_dict_ema'"),
        ({"module": WEIGHTS, "ema": prefixed("module.", AVERAGE)}, AVERAGE, "took 'ema'"),
        (
            {"state_dict": WEIGHTS, "ema": {"decay": torch.tensor(0.9), "shadow": AVERAGE}},
            AVERAGE,
            r"took 'ema\.shadow'",
        ),
        ({"x": {"state_dict": WEIGHTS}, "epoch": 3}, WEIGHTS, r"took 'x\.state_dict'"),
        ({"state_dict": prefixed("model.", WEIGHTS)}, WEIGHTS, "prefixes"),
        ({**prefixed("module.", AVERAGE), "n_averaged": torch.tensor(3)}, AVERAGE, "prefixes"),
        ({"state_dict": {**WEIGHTS, **prefixed("ema.", AVERAGE)}}, AVERAGE, "average .* of 2 "),
        (
            {**WEIGHTS, "model_ema.diffusion_modeloutweight": AVERAGE[NAMES[1]],
             "model_ema.decay": torch.tensor(0.9)},
            {NAMES[0]: WEIGHTS[NAMES[0]], NAMES[1]: AVERAGE[NAMES[1]]},
            r"moving average \(EMA\) of 1 ",
        ),
    ],
)  # fmt: skip
def test_wrapped_and_averaged_weights_are_recognised(
    tmp_path: Path, caplog, content, expected, said
):
    caplog.set_level(logging.INFO)
    path = save(tmp_path / "weights.ckpt", content)
    for _ in range(2):
        read = read_state_dict(path)
        assert read.keys() == expected.keys()
        assert all(torch.equal(read[name], tensor) for name, tensor in expected.items())
    if said is None:
        assert not caplog.messages
    else:
        (message,) = caplog.messages
        assert re.search(rf"weights\.ckpt: .*{said}", message)


def test_a_file_is_what_its_content_says(tmp_path: Path):
    path = save(tmp_path / "torch.safetensors", {"state_dict": WEIGHTS})
    old = save(tmp_path / "old.safetensors", {"state_dict": WEIGHTS}, old=True)
    convert(path, tmp_path / "new.safetensors")
    (tmp_path / "new.safetensors").rename(tmp_path / "new.ckpt")
    for file in (path, old, tmp_path / "new.ckpt"):
        assert read_state_dict(file).keys() == WEIGHTS.keys()
