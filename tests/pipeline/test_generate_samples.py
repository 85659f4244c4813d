from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.config import SamplerConfig
from ldm.generate_views import StepInfo, generate_strip
from multiview.images import resolve_crop_size
from pipeline import generate_samples as generation
from pipeline.generate_samples import GenerateOptions, generate
from pipeline.sample_store import collect_inputs

SAMPLER = SamplerConfig(steps=2)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return draw(tmp_path / "in" / "toy.png", (220, 60, 40, 255))


def draw(path: Path, colour: tuple[int, int, int, int]) -> Path:
    path.parent.mkdir(exist_ok=True)
    image = Image.new("RGBA", (90, 90))
    image.paste(colour, (20, 10, 70, 75))
    image.save(path)
    return path


@pytest.fixture
def options(tiny_checkpoint: Path, tmp_path: Path) -> GenerateOptions:
    return GenerateOptions(
        checkpoint=tiny_checkpoint,
        output=tmp_path / "out",
        crop_size=200,
        sample_num=1,
        seed=5,
        sampler=SAMPLER,
        batch_view_num=8,
        dtype="fp32",
        device=torch.device("cpu"),
        overwrite=False,
        save_views=False,
        preview=False,
    )


@pytest.fixture
def made(monkeypatch) -> list[int]:
    """Seeds of the samples that were really computed."""
    seeds: list[int] = []
    real = generation.generate_strip

    def spy(model, features, elevation_deg, seed, *rest):
        seeds.append(seed)
        return real(model, features, elevation_deg, seed, *rest)

    monkeypatch.setattr(generation, "generate_strip", spy)
    return seeds


def change(options: GenerateOptions, **values) -> GenerateOptions:
    return dataclasses.replace(options, **values)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_strip_of_sixteen_square_views_is_written(tiny_config, picture, options):
    (path,) = generate(tiny_config, [picture], [20.0], options)
    assert path == options.output / "0.png"
    assert read(path).shape == (128, 16 * 128, 3)
    assert read(path).std() > 1
    assert sorted(p.name for p in options.output.iterdir()) == ["0.json", "0.png"]


def test_a_sample_is_the_same_whatever_is_made_with_it(tiny_config, picture, options, tmp_path):
    four = generate(tiny_config, [picture], [20.0], change(options, sample_num=4))
    alone = generate(
        tiny_config, [picture], [20.0], change(options, seed=7, output=tmp_path / "alone")
    )
    assert four[2].read_bytes() == alone[0].read_bytes()
    assert four[0].read_bytes() != four[1].read_bytes()

    grouped = generate(
        tiny_config, [picture], [20.0], change(options, batch_view_num=3, output=tmp_path / "g")
    )
    difference = np.abs(read(grouped[0]).astype(int) - read(four[0]))
    assert difference.max() <= 1  # rounding, where a value lies next to a whole number
    assert (difference > 0).mean() < 1e-3


def test_what_is_there_is_kept_and_an_interrupted_run_goes_on(tiny_config, picture, options, made):
    generate(tiny_config, [picture], [20.0], change(options, sample_num=2))
    assert made == [5, 6]
    first = (options.output / "0.png").stat().st_mtime_ns
    generate(tiny_config, [picture], [20.0], change(options, sample_num=3))
    assert made == [5, 6, 7]
    assert (options.output / "0.png").stat().st_mtime_ns == first


def test_a_run_killed_within_a_sample_leaves_no_half_of_it(
    tiny_config, picture, options, monkeypatch
):
    real = generation.generate_strip

    def killed_at_the_second(model, features, elevation_deg, seed, *rest):
        if seed == 6:
            raise KeyboardInterrupt
        return real(model, features, elevation_deg, seed, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(generation, "generate_strip", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            generate(tiny_config, [picture], [20.0], change(options, sample_num=2))
    assert sorted(p.name for p in options.output.iterdir()) == ["0.json", "0.png"]
    resumed = generate(tiny_config, [picture], [20.0], change(options, sample_num=2))
    whole = generate(
        tiny_config,
        [picture],
        [20.0],
        change(options, sample_num=2, output=options.output.parent / "whole"),
    )
    assert [p.read_bytes() for p in resumed] == [p.read_bytes() for p in whole]


def test_a_chosen_crop_size_is_recorded_as_the_number_that_it_is(
    tiny_config, picture, options, made
):
    (path,) = generate(tiny_config, [picture], [20.0], change(options, crop_size="auto"))
    chosen = json.loads(path.with_suffix(".json").read_text())["settings"]["crop_size"]
    assert chosen == resolve_crop_size(picture, "auto")
    generate(tiny_config, [picture], [20.0], change(options, crop_size=chosen))
    assert made == [5]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 9}, "seed was 5, now 9"),
        ({"crop_size": 150}, "crop_size was 200, now 150"),
        ({"sampler": SamplerConfig(steps=3)}, "steps was 2, now 3"),
        ({"dtype": "bf16"}, "dtype was 'fp32', now 'bf16'"),
    ],
)
def test_other_settings_are_an_error_that_names_them_and_overwrite(
    tiny_config, picture, options, made, changed, named
):
    (path,) = generate(tiny_config, [picture], [20.0], options)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="--overwrite") as caught:
        generate(tiny_config, [picture], [20.0], change(options, **changed))
    assert named in str(caught.value)
    assert path.read_bytes() == before
    assert made == [5]


def test_overwrite_replaces_results_made_otherwise_and_gives_the_same_bytes_again(
    tiny_config, picture, options, made
):
    (path,) = generate(tiny_config, [picture], [20.0], options)
    first = path.read_bytes()
    generate(tiny_config, [picture], [20.0], change(options, seed=9, overwrite=True))
    assert path.read_bytes() != first
    generate(tiny_config, [picture], [20.0], change(options, overwrite=True))
    assert path.read_bytes() == first
    generate(tiny_config, [picture], [20.0], change(options, overwrite=True))
    assert path.read_bytes() == first
    assert made == [5, 9, 5, 5]  # also where the settings are the same


def test_an_input_that_changed_is_another_setting(tiny_config, picture, options):
    generate(tiny_config, [picture], [20.0], options)
    draw(picture, (0, 0, 200, 255))
    with pytest.raises(FileExistsError, match="input was"):
        generate(tiny_config, [picture], [20.0], options)


def test_a_picture_of_unknown_origin_is_not_replaced(tiny_config, picture, options):
    options.output.mkdir()
    mine = options.output / "0.png"
    mine.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="nothing beside it says how it was made"):
        generate(tiny_config, [picture], [20.0], options)
    (options.output / "0.json").write_text("[1")
    with pytest.raises(FileExistsError, match="nothing beside it says"):
        generate(tiny_config, [picture], [20.0], options)
    assert mine.read_bytes() == b"mine"


def test_views_and_preview_are_written_also_for_a_kept_sample(tiny_config, picture, options, made):
    (path,) = generate(tiny_config, [picture], [20.0], options)
    more = change(options, save_views=True, preview=True)
    generate(tiny_config, [picture], [20.0], more)
    assert made == [5]
    views = sorted((options.output / "0").iterdir())
    assert [view.name for view in views] == [f"{n:03d}.png" for n in range(16)]
    np.testing.assert_array_equal(np.concatenate([read(v) for v in views], axis=1), read(path))
    with Image.open(options.output / "0.gif") as gif:
        assert gif.n_frames == 16


def test_a_strip_that_was_changed_afterwards_is_not_taken_for_the_one_that_was_made(
    tiny_config, picture, options
):
    (path,) = generate(tiny_config, [picture], [20.0], options)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileExistsError, match="not the file that was written then"):
        generate(tiny_config, [picture], [20.0], options)


def test_views_and_preview_of_a_replaced_strip_are_removed(tiny_config, picture, options):
    more = change(options, save_views=True, preview=True)
    generate(tiny_config, [picture], [20.0], more)
    (options.output / "0" / "notes.txt").write_text("mine")
    (options.output / "probe").write_text("mine")
    generate(tiny_config, [picture], [20.0], change(options, seed=9, overwrite=True))
    assert sorted(p.name for p in options.output.iterdir()) == ["0", "0.json", "0.png", "probe"]
    assert [p.name for p in (options.output / "0").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["0.json", "0.gif", "0/000.png"])
def test_a_file_of_a_results_name_that_is_not_ours_is_not_replaced(
    tiny_config, picture, options, made, name
):
    mine = options.output / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(FileExistsError, match="is not a result of this command"):
        generate(tiny_config, [picture], [20.0], change(options, save_views=True, preview=True))
    assert mine.read_text() == "mine"
    assert made == []
    if name != "0.json":  # what is not asked for is not touched even with --overwrite
        generate(tiny_config, [picture], [20.0], change(options, overwrite=True))
        assert mine.read_text() == "mine"


def test_an_input_is_never_overwritten(tiny_config, picture, options, made):
    twin = draw(picture.parent / "0.png", (9, 9, 9, 255))
    before = twin.read_bytes()
    for overwrite in (False, True):
        into_its_folder = change(options, output=picture.parent, overwrite=overwrite)
        with pytest.raises(FileExistsError, match="is an input"):
            generate(tiny_config, [twin], [20.0], into_its_folder)
    assert twin.read_bytes() == before
    assert made == []


@pytest.mark.parametrize("name", ["0.png", "0.json", "0.gif"])
def test_a_folder_in_a_results_place_is_found_before_the_weights_are_loaded(
    tiny_config, picture, options, made, name
):
    (options.output / name).mkdir(parents=True)
    with pytest.raises(FileExistsError, match="is a folder"):
        generate(tiny_config, [picture], [20.0], change(options, overwrite=True))
    assert made == []


def test_a_result_that_another_process_wrote_meanwhile_is_not_replaced(
    tiny_config, picture, options, monkeypatch
):
    real = generation.generate_strip

    def slow(*arguments):
        strip = real(*arguments)
        if not (options.output / "0.png").exists():
            (options.output / "0.png").write_bytes(b"another's")
        return strip

    monkeypatch.setattr(generation, "generate_strip", slow)
    with pytest.raises(FileExistsError, match="--overwrite"):
        generate(tiny_config, [picture], [20.0], options)
    assert (options.output / "0.png").read_bytes() == b"another's"


def test_tf32_is_refused_where_there_is_none(tiny_config, picture, options):
    with pytest.raises(ValueError, match="tf32 is for CUDA"):
        generate(tiny_config, [picture], [20.0], change(options, dtype="tf32"))


def test_a_folder_is_a_batch_with_one_model(tiny_config, picture, options, made, monkeypatch):
    draw(picture.parent / "second.png", (0, 90, 200, 255))
    (picture.parent / "notes.txt").write_text("not an image")
    loads = []
    real = generation.load_model
    monkeypatch.setattr(generation, "load_model", lambda *args: loads.append(1) or real(*args))
    paths = generate(tiny_config, [picture.parent], [20.0], options)
    assert paths == [options.output / "second" / "0.png", options.output / "toy" / "0.png"]
    assert made == [5, 5]
    assert loads == [1]
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_each_input_may_have_its_own_elevation(tmp_path: Path):
    a, b = (draw(tmp_path / "in" / f"{n}.png", (1, 2, 3, 255)) for n in "ab")
    out = tmp_path / "out"
    (tmp_path / "in" / "._a.png").write_bytes(b"what macOS leaves on foreign disks")

    def collected(paths, elevations):
        sources = collect_inputs(paths, elevations, out)
        return [(source.path, source.elevation_deg, source.folder) for source in sources]

    assert collected([a], [5.0]) == [(a, 5.0, out)]
    assert collected([b, a], [5.0, 7.0]) == [(b, 5.0, out / "b"), (a, 7.0, out / "a")]
    assert collected([tmp_path / "in"], [5.0]) == [(a, 5.0, out / "a"), (b, 5.0, out / "b")]
    with pytest.raises(ValueError, match="2 values for 1 images"):
        collect_inputs([a], [5.0, 7.0], out)
    with pytest.raises(ValueError, match="rename it"):
        collect_inputs([b.rename(tmp_path / "in" / "...png"), a], [5.0], out)
    with pytest.raises(ValueError, match="two inputs are called 'a'"):
        collect_inputs([a, a], [5.0], out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images"):
        collect_inputs([tmp_path / "empty"], [5.0], out)


def test_one_bad_input_stops_a_batch_before_anything_is_written(tiny_config, picture, options):
    (picture.parent / "bad.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"bad\.png: not an image"):
        generate(tiny_config, [picture.parent], [20.0], options)
    assert not options.output.exists()


def test_an_output_that_cannot_be_written_is_found_before_the_weights_are_loaded(
    tiny_config, picture, options, made
):
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text("a file")
    with pytest.raises(OSError, match="--output"):
        generate(tiny_config, [picture], [20.0], options)
    assert made == []


def test_too_little_disk_space_is_found_before_the_weights_are_loaded(
    tiny_config, picture, options, made, monkeypatch
):
    usage = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match="not enough disk space"):
        generate(tiny_config, [picture], [20.0], options)
    assert made == []
    assert list(options.output.iterdir()) == []


def test_bfloat16_gives_nearly_the_same_picture(tiny_config, picture, options, tmp_path):
    (exact,) = generate(tiny_config, [picture], [20.0], options)
    low = change(options, dtype="bf16", output=tmp_path / "low")
    (rough,) = generate(tiny_config, [picture], [20.0], low)
    difference = np.abs(read(exact).astype(float) - read(rough)).mean()
    assert 0 < difference < 8


def test_numbers_that_overflow_are_an_error_not_a_black_picture(
    tiny_config, picture, options, monkeypatch
):
    monkeypatch.setattr(
        "ldm.generate_views.sample",
        lambda *args, **kwargs: torch.full((16, 4, 16, 16), torch.nan),
    )
    with pytest.raises(ValueError, match="not finite"):
        generate(tiny_config, [picture], [20.0], options)
    assert not (options.output / "0.png").exists()


def test_the_record_beside_a_strip_holds_all_that_its_pixels_depend_on(
    tiny_config, picture, options
):
    generate(tiny_config, [picture], [20.0], options)
    record = json.loads((options.output / "0.json").read_text())
    assert set(record["settings"]) == {
        "input", "elevation_deg", "crop_size", "steps", "guidance_scale", "eta", "temperature",
        "spacing", "dtype", "weights", "config", "seed",
    }  # fmt: skip


def test_a_watcher_can_look_at_every_step_and_the_strip_stays_the_same(small_model):
    size = small_model.config.cameras.image_size
    with torch.inference_mode():
        features = small_model.encode_image(torch.zeros(1, 3, size, size))
    sampler = SamplerConfig(steps=3)
    looks = []

    def on_step(step: StepInfo) -> None:
        looks.append((step.number, step.total, step.preview()))

    watched = generate_strip(small_model, features, 20.0, 1, sampler, 4, on_step)
    np.testing.assert_array_equal(
        watched, generate_strip(small_model, features, 20.0, 1, sampler, 4)
    )
    assert [look[:2] for look in looks] == [(1, 3), (2, 3), (3, 3)]
    assert all(look[2].shape == (size, 16 * size, 3) for look in looks)
    differences = [np.abs(look[2].astype(float) - watched).mean() for look in looks]
    assert differences[0] > differences[2]
    assert differences[2] < 2  # the last step leads nearly to what was predicted before it
