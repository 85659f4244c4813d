"""Loading, comparing and converting checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ldm.checkpoint import load as checkpoint
from ldm.checkpoint.__main__ import main
from ldm.checkpoint.files import read_state_dict
from ldm.checkpoint.load import convert, fingerprint, load_model
from ldm.config import SyncDreamerConfig
from ldm.model import SyncDreamer
from tests.conftest import ROOT

CPU = torch.device("cpu")


def load(config: SyncDreamerConfig, path: Path, dtype: torch.dtype = torch.float32) -> SyncDreamer:
    return load_model(config, path, CPU, dtype)


def same_state(model: SyncDreamer, state: dict[str, torch.Tensor]) -> None:
    ours = model.state_dict()
    assert set(ours) == set(state)
    for name, tensor in ours.items():
        expected = state[name].to(tensor.dtype)
        assert torch.equal(tensor, expected), name


def test_a_lightning_checkpoint_loads_exactly(tiny_config, tiny_model, tiny_checkpoint):
    before = torch.get_rng_state()
    model = load(tiny_config, tiny_checkpoint)
    same_state(model, tiny_model.state_dict())
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())


@pytest.mark.integration
def test_a_safetensors_file_and_a_plain_and_an_old_torch_file_load_as_well(
    tiny_config, tiny_model, tmp_path: Path
):
    state = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    save_file(state, tmp_path / "m.safetensors")
    torch.save(state, tmp_path / "plain.pt")
    torch.save({"state_dict": state}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    for name in ("m.safetensors", "plain.pt", "old.ckpt"):
        same_state(load(tiny_config, tmp_path / name), state)
    assert len({fingerprint(read_state_dict(path)) for path in tmp_path.iterdir()}) == 1


@pytest.mark.integration
def test_half_precision_loads_in_parts_to_the_same_values(
    tiny_config, tiny_model, tiny_checkpoint, monkeypatch
):
    monkeypatch.setattr(checkpoint, "CHUNK_BYTES", 2_000_000)
    model = load(tiny_config, tiny_checkpoint, torch.bfloat16)
    same_state(model, tiny_model.state_dict())
    assert next(model.unet.parameters()).dtype == torch.bfloat16
    assert next(model.first_stage_model.parameters()).dtype == torch.float32
    assert model.alphas_cumprod.dtype == torch.float32


def with_state(path: Path, state: dict[str, torch.Tensor]) -> Path:
    torch.save({"state_dict": state}, path)
    return path


@pytest.mark.integration
def test_the_schedule_and_cameras_of_the_file_win_over_computed_ones(
    tiny_config, tiny_model, tmp_path: Path, caplog
):
    state = dict(tiny_model.state_dict())
    state["alphas_cumprod"] = state["alphas_cumprod"] + 1e-7  # as a file in float64 would have
    model = load(tiny_config, with_state(tmp_path / "near.ckpt", state))
    assert torch.equal(model.alphas_cumprod, state["alphas_cumprod"])
    assert "deviates" not in caplog.text

    state["poses"] = state["poses"] + 0.01
    model = load(tiny_config, with_state(tmp_path / "far.ckpt", state))
    assert torch.equal(model.poses, state["poses"])
    assert "'poses' deviates by 1e+02 %" in caplog.text

    state["Ks"] = 2 * state["Ks"]
    with pytest.raises(ValueError, match="made for views of 256 x 256 pixels"):
        load(tiny_config, with_state(tmp_path / "large.ckpt", state))


def test_what_the_file_lacks_of_them_is_computed(tiny_config, tiny_model, tmp_path: Path):
    buffers = {name for name, _ in tiny_model.named_buffers()}
    state = {k: v for k, v in tiny_model.state_dict().items() if k not in buffers}
    model = load(tiny_config, with_state(tmp_path / "bare.ckpt", state))
    same_state(model, tiny_model.state_dict())


def test_a_file_that_does_not_fit_says_which_keys(tiny_config, tiny_model, tmp_path: Path):
    state = dict(tiny_model.state_dict())
    del state["cc_projection.weight"], state["time_embed.0.bias"]
    state["extra.weight"] = torch.zeros(1)
    state["cc_projection.bias"] = torch.zeros(7)
    with pytest.raises(ValueError, match="does not fit") as caught:
        load(tiny_config, with_state(tmp_path / "odd.ckpt", state))
    for part in (
        "2 keys missing (first: time_embed.0.bias, cc_projection.weight)",
        "1 keys unexpected (first: extra.weight)",
        "1 shapes differ (first: cc_projection.bias is (7,) in the file, (64,)",
        "looks like a SyncDreamer checkpoint",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["cond_stage_model.a", "cc_projection.weight", "model.diffusion_model.a"], "a Zero123"),
        (["cond_stage_model.a", "model.diffusion_model.a"], "a Stable Diffusion"),
        (["visual.proj", "token_embedding.weight"], "a CLIP file"),
        (["encoder.a", "decoder.a", "quant_conv.weight"], "an autoencoder"),
        (["renderer.sdf_network.a"], "a renderer"),
        (["module.spatial_volume.a"], "several GPUs"),
        (["something"], "no kind of checkpoint known"),
    ],
)
def test_other_kinds_of_checkpoints_are_recognised(tiny_config, tmp_path: Path, names, kind):
    path = with_state(tmp_path / "other.ckpt", {name: torch.zeros(2) for name in names})
    with pytest.raises(ValueError, match=f"looks like .*{kind}"):
        load(tiny_config, path)


class Callback:
    """Stands for a class of an old Lightning that the file's reader does not have."""


class Hyperparameters(dict):
    """Old Lightning files keep their settings in such a class of its own."""


@pytest.mark.integration
@pytest.mark.parametrize(
    "other",
    [
        {"callbacks": {Callback: {"best": 1}}, "hyper_parameters": Callback()},
        {"hyper_parameters": Hyperparameters(lr=1e-4, nested=Hyperparameters(a=1)), "c": Callback},
    ],
)
def test_the_tensors_are_taken_out_of_a_file_with_foreign_classes(
    tiny_config, tiny_model, tmp_path: Path, other
):
    source, target = tmp_path / "lightning.ckpt", tmp_path / "out.safetensors"
    torch.save({**other, "state_dict": tiny_model.state_dict()}, source)
    main(["convert", str(source), str(target)])
    for path in (source, target):
        same_state(load(tiny_config, path), tiny_model.state_dict())


@pytest.mark.integration
def test_a_converted_half_precision_file_gives_what_casting_on_loading_gives(
    tiny_config, tiny_checkpoint, tmp_path: Path
):
    target = tmp_path / "bf16.safetensors"
    main(["convert", str(tiny_checkpoint), str(target), "--dtype", "bf16"])
    cast_on_loading = load(tiny_config, tiny_checkpoint, torch.bfloat16)
    same_state(load(tiny_config, target, torch.bfloat16), cast_on_loading.state_dict())
    expected = sum(tensor.nbytes for tensor in cast_on_loading.state_dict().values())
    assert expected < target.stat().st_size < 1.02 * expected + 200_000
    wrong = {"bf16.safetensors": "already", "x.ckpt": "must end", "no/x.safetensors": "not exist"}
    for name, message in wrong.items():
        with pytest.raises((ValueError, OSError), match=message):
            convert(tiny_checkpoint, tmp_path / name)
    other = with_state(tmp_path / "clip.ckpt", {"visual.proj": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"clip\.ckpt: cannot change the type.*a CLIP file"):
        convert(other, tmp_path / "x.safetensors", torch.bfloat16)


def test_tensors_that_cannot_be_weights_are_refused(tiny_config, tiny_model, tmp_path: Path):
    state = tiny_model.state_dict()
    integers = {**state, "cc_projection.bias": state["cc_projection.bias"].to(torch.int8)}
    with pytest.raises(ValueError, match=r"1 keys not floating-point \(first: cc_projection"):
        load(tiny_config, with_state(tmp_path / "int.ckpt", integers))
    damaged = {**state, "alphas_cumprod": state["alphas_cumprod"] * torch.nan}
    with pytest.raises(ValueError, match="damaged, its 'alphas_cumprod'"):
        load(tiny_config, with_state(tmp_path / "nan.ckpt", damaged))
    with pytest.raises(ValueError, match="sparse"):
        read_state_dict(with_state(tmp_path / "s.ckpt", {"a": torch.eye(3).to_sparse()}))


def test_convert_copes_with_shared_and_strided_tensors(tmp_path: Path):
    base = torch.arange(12.0).reshape(3, 4)
    state = {"a": base, "b": base.T, "c": base[1:]}
    convert(with_state(tmp_path / "s.ckpt", state), tmp_path / "s.safetensors")
    for name, tensor in read_state_dict(tmp_path / "s.safetensors").items():
        assert torch.equal(tensor, state[name])


def test_inspect_says_what_a_file_is_and_what_it_lacks(
    tiny_model, tiny_checkpoint, tmp_path: Path, capsys
):
    def inspected(path: Path) -> str:
        main(["inspect", str(path), "--cfg", str(ROOT / "configs" / "tiny.yaml")])
        return capsys.readouterr().out

    text, state = inspected(tiny_checkpoint), dict(tiny_model.state_dict())
    for part in ("a SyncDreamer checkpoint", f"{len(state)} tensors", "every name and shape fits"):
        assert part in text
    del state["cc_projection.weight"]
    assert "missing: cc_projection.weight" in inspected(with_state(tmp_path / "odd.ckpt", state))
    main(["manifest", "--cfg", str(ROOT / "configs" / "tiny.yaml")])
    assert "cc_projection.weight\t64x68\tfloat32" in capsys.readouterr().out.splitlines()


def test_fingerprints_tell_weights_apart(tiny_model):
    state = tiny_model.state_dict()
    changed = {**state, "cc_projection.bias": state["cc_projection.bias"] + 1}
    assert fingerprint(state) != fingerprint(changed)
