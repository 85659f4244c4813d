"""Which samples are generated, kept, refused and written.

One file, because the tests share one run of the command, which is slow to make.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.records import ReplaceError
from ldm.config import SamplerConfig
from ldm.generate_views import StepInfo, generate_strip
from multiview.images import auto_crop_size, read_image
from pipeline.generate import GenerateOptions, generate
from pipeline.inputs import collect_images, prepare_inputs
from pipeline.view_generator import SyncDreamerGenerator
from tests.fakes import FakeGenerator

pytestmark = pytest.mark.integration


SAMPLER = SamplerConfig(steps=2)


@pytest.fixture
def image_path(tmp_path: Path) -> Path:
    return paste(tmp_path / "in" / "toy.png", (220, 60, 40, 255))


def paste(path: Path, colour: tuple[int, int, int, int]) -> Path:
    path.parent.mkdir(exist_ok=True)
    image = Image.new("RGBA", (90, 90))
    image.paste(colour, (20, 10, 70, 75))
    image.save(path)
    return path


@pytest.fixture
def options(tmp_path: Path) -> GenerateOptions:
    return GenerateOptions(tmp_path / "out", 200, 1, 5, SAMPLER, torch.device("cpu"))


@pytest.fixture
def model(tiny_config, tiny_checkpoint: Path) -> SyncDreamerGenerator:
    return SyncDreamerGenerator(tiny_config, tiny_checkpoint, torch.device("cpu"), "fp32", 8)


def change(options: GenerateOptions, **values) -> GenerateOptions:
    return dataclasses.replace(options, **values)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def seeds(view_generator: FakeGenerator) -> list[int]:
    return [seed for _, seed in view_generator.generated]


def test_a_strip_of_sixteen_square_views_is_written(image_path, options, model):
    (path,) = generate([image_path], [20.0], options, model)
    assert path == options.output / "0.png"
    assert read(path).shape == (128, 16 * 128, 3)
    assert read(path).std() > 1
    assert sorted(p.name for p in options.output.iterdir()) == ["0.json", "0.png"]


def test_a_sample_is_the_same_whatever_is_made_with_it(image_path, options, model, tmp_path):
    four = generate([image_path], [20.0], change(options, num_samples=4), model)
    alone = generate(
        [image_path], [20.0], change(options, seed=7, output=tmp_path / "alone"), model
    )
    assert four[2].read_bytes() == alone[0].read_bytes()
    assert four[0].read_bytes() != four[1].read_bytes()

    in_groups = dataclasses.replace(model, views_at_once=3)
    grouped = generate([image_path], [20.0], change(options, output=tmp_path / "g"), in_groups)
    difference = np.abs(read(grouped[0]).astype(int) - read(four[0]))
    assert difference.max() <= 1  # rounding, where a value lies next to a whole number
    assert (difference > 0).mean() < 1e-3


def test_what_is_there_is_kept_and_an_interrupted_run_goes_on(image_path, options, view_generator):
    generate([image_path], [20.0], change(options, num_samples=2), view_generator)
    assert seeds(view_generator) == [5, 6]
    first = (options.output / "0.png").stat().st_mtime_ns
    generate([image_path], [20.0], change(options, num_samples=3), view_generator)
    assert seeds(view_generator) == [5, 6, 7]
    assert (options.output / "0.png").stat().st_mtime_ns == first


def test_a_run_killed_within_a_sample_leaves_no_half_of_it(image_path, options, view_generator):
    class Killed(FakeGenerator):
        def generate(self, pixels, elevation_deg, seed, sampler, on_step=None):
            if seed == 6:
                raise KeyboardInterrupt
            return super().generate(pixels, elevation_deg, seed, sampler)

    two = change(options, num_samples=2)
    with pytest.raises(KeyboardInterrupt):
        generate([image_path], [20.0], two, Killed())
    assert sorted(p.name for p in options.output.iterdir()) == ["0.json", "0.png"]
    resumed = generate([image_path], [20.0], two, view_generator)
    assert seeds(view_generator) == [6]
    whole = generate(
        [image_path], [20.0], change(two, output=options.output.parent / "whole"), view_generator
    )
    assert [p.read_bytes() for p in resumed] == [p.read_bytes() for p in whole]


def test_a_chosen_crop_size_is_recorded_as_the_number_that_it_is(
    image_path, options, view_generator
):
    (path,) = generate([image_path], [20.0], change(options, crop_size="auto"), view_generator)
    chosen = json.loads(path.with_suffix(".json").read_text())["settings"]["crop_size"]
    assert chosen == auto_crop_size(read_image(image_path))
    generate([image_path], [20.0], change(options, crop_size=chosen), view_generator)
    assert seeds(view_generator) == [5]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 9}, "seed was 5, now 9"),
        ({"crop_size": 150}, "crop_size was 200, now 150"),
        ({"sampler": SamplerConfig(steps=3)}, "steps was 2, now 3"),
    ],
)
def test_other_settings_are_an_error_that_names_them(
    image_path, options, view_generator, changed, named
):
    (path,) = generate([image_path], [20.0], options, view_generator)
    before = path.read_bytes()
    with pytest.raises(ReplaceError) as caught:
        generate([image_path], [20.0], change(options, **changed), view_generator)
    assert named in str(caught.value)
    assert path.read_bytes() == before
    assert seeds(view_generator) == [5]


def test_another_precision_is_another_setting(image_path, options, model):
    generate([image_path], [20.0], options, model)
    with pytest.raises(ReplaceError, match="dtype was 'fp32', now 'bf16'"):
        generate([image_path], [20.0], options, dataclasses.replace(model, dtype="bf16"))


def test_overwrite_replaces_results_made_otherwise_and_gives_the_same_bytes_again(
    image_path, options, view_generator
):
    (path,) = generate([image_path], [20.0], options, view_generator)
    first = path.read_bytes()
    generate([image_path], [20.0], change(options, seed=9, overwrite=True), view_generator)
    assert path.read_bytes() != first
    generate([image_path], [20.0], change(options, overwrite=True), view_generator)
    assert path.read_bytes() == first
    generate([image_path], [20.0], change(options, overwrite=True), view_generator)
    assert path.read_bytes() == first
    assert seeds(view_generator) == [5, 9, 5, 5]  # also where the settings are the same


def test_a_picture_of_unknown_origin_is_not_replaced(image_path, options, view_generator):
    options.output.mkdir()
    mine = options.output / "0.png"
    mine.write_bytes(b"mine")
    with pytest.raises(ReplaceError, match=r"0\.png"):
        generate([image_path], [20.0], options, view_generator)
    (options.output / "0.json").write_text("[1")
    with pytest.raises(ReplaceError, match=r"0\.png"):
        generate([image_path], [20.0], options, view_generator)
    assert mine.read_bytes() == b"mine"


def test_views_and_preview_are_written_also_for_a_kept_sample(image_path, options, view_generator):
    (path,) = generate([image_path], [20.0], options, view_generator)
    more = change(options, save_views=True, preview=True)
    generate([image_path], [20.0], more, view_generator)
    assert seeds(view_generator) == [5]
    views = sorted((options.output / "0").iterdir())
    assert [view.name for view in views] == [f"{n:03d}.png" for n in range(16)]
    np.testing.assert_array_equal(np.concatenate([read(v) for v in views], axis=1), read(path))
    with Image.open(options.output / "0.gif") as gif:
        assert gif.n_frames == 16


def test_a_strip_that_was_changed_afterwards_is_not_taken_for_the_one_that_was_made(
    image_path, options, view_generator
):
    (path,) = generate([image_path], [20.0], options, view_generator)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ReplaceError, match=r"0\.png.*not the file that was written"):
        generate([image_path], [20.0], options, view_generator)


def test_views_and_preview_of_a_replaced_strip_are_removed(image_path, options, view_generator):
    more = change(options, save_views=True, preview=True)
    generate([image_path], [20.0], more, view_generator)
    (options.output / "0" / "notes.txt").write_text("mine")
    (options.output / "probe").write_text("mine")
    generate([image_path], [20.0], change(options, seed=9, overwrite=True), view_generator)
    assert sorted(p.name for p in options.output.iterdir()) == ["0", "0.json", "0.png", "probe"]
    assert [p.name for p in (options.output / "0").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["0.json", "0.gif", "0/000.png"])
def test_a_file_of_a_results_name_that_is_not_ours_is_not_replaced(
    image_path, options, view_generator, name
):
    mine = options.output / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(ReplaceError, match=Path(name).name):
        generate(
            [image_path], [20.0], change(options, save_views=True, preview=True), view_generator
        )
    assert mine.read_text() == "mine"
    assert seeds(view_generator) == []
    if name != "0.json":  # what is not asked for is not touched even with --overwrite
        generate([image_path], [20.0], change(options, overwrite=True), view_generator)
        assert mine.read_text() == "mine"


def test_an_input_is_never_overwritten(image_path, options, view_generator):
    twin = paste(image_path.parent / "0.png", (9, 9, 9, 255))
    before = twin.read_bytes()
    for overwrite in (False, True):
        into_its_folder = change(options, output=image_path.parent, overwrite=overwrite)
        with pytest.raises(FileExistsError, match="is an input"):
            generate([twin], [20.0], into_its_folder, view_generator)
    assert twin.read_bytes() == before
    assert seeds(view_generator) == []


def test_a_result_that_another_process_wrote_meanwhile_is_not_replaced(image_path, options):
    class Slow(FakeGenerator):
        def generate(self, pixels, elevation_deg, seed, sampler, on_step=None):
            (options.output / "0.png").write_bytes(b"another's")
            return super().generate(pixels, elevation_deg, seed, sampler)

    with pytest.raises(ReplaceError):
        generate([image_path], [20.0], options, Slow())
    assert (options.output / "0.png").read_bytes() == b"another's"


def test_tf32_is_refused_where_there_is_none(model):
    with pytest.raises(ValueError, match="tf32 is for CUDA"):
        dataclasses.replace(model, dtype="tf32")


def test_a_folder_is_a_batch_with_one_model(image_path, options, view_generator):
    paste(image_path.parent / "second.png", (0, 90, 200, 255))
    (image_path.parent / "notes.txt").write_text("not an image")
    paths = generate([image_path.parent], [20.0], options, view_generator)
    assert paths == [options.output / "second" / "0.png", options.output / "toy" / "0.png"]
    assert seeds(view_generator) == [5, 5]
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_a_model_is_loaded_once_for_all_samples(image_path, options, model):
    generate([image_path], [20.0], options, model)
    loaded = model.model()
    generate([image_path], [20.0], change(options, num_samples=2), model)
    assert model.model() is loaded


def test_each_input_may_have_its_own_elevation(tmp_path: Path):
    a, b = (paste(tmp_path / "in" / f"{n}.png", (1, 2, 3, 255)) for n in "ab")
    out = tmp_path / "out"
    (tmp_path / "in" / "._a.png").write_bytes(b"what macOS leaves on foreign disks")

    def prepared(paths, elevations):
        inputs = prepare_inputs(paths, elevations, out, 200, 64, compare=False)
        return [(source.path, source.elevation_deg, source.folder) for source in inputs]

    assert prepared([a], [5.0]) == [(a, 5.0, out)]
    assert prepared([b, a], [5.0, 7.0]) == [(b, 5.0, out / "b"), (a, 7.0, out / "a")]
    assert prepared([b, a], ["auto"]) == [(b, None, out / "b"), (a, None, out / "a")]
    assert prepared([tmp_path / "in"], [5.0]) == [(a, 5.0, out / "a"), (b, 5.0, out / "b")]
    with pytest.raises(ValueError, match="2 values for 1 images"):
        prepared([a], [5.0, 7.0])
    with pytest.raises(ValueError, match="rename it"):
        collect_images([b.rename(tmp_path / "in" / "...png"), a], out)
    with pytest.raises(ValueError, match="two inputs are called 'a'"):
        collect_images([a, a], out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images"):
        collect_images([tmp_path / "empty"], out)


def test_one_bad_input_stops_a_batch_before_anything_is_written(
    image_path, options, view_generator
):
    (image_path.parent / "bad.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"bad\.png: not an image"):
        generate([image_path.parent], [20.0], options, view_generator)
    assert not options.output.exists()


def test_an_input_without_an_object_is_found_before_samples_of_it_are_compared(
    image_path, options, view_generator
):
    faint = paste(image_path.parent / "faint.png", (9, 9, 9, 100))
    with pytest.raises(ValueError, match=r"faint\.png: there is no object"):
        generate([image_path, faint], [20.0], change(options, keep="best"), view_generator)
    assert seeds(view_generator) == []
    assert len(generate([image_path, faint], [20.0], options, view_generator)) == 2


def test_an_output_that_takes_no_files_is_found_before_the_weights_are_loaded(
    image_path, options, view_generator, monkeypatch
):
    options.output.write_text("a file")
    with pytest.raises(OSError, match="out: cannot be written to"):
        generate([image_path], [20.0], options, view_generator)
    options.output.unlink()
    for name in ("0.png", "0.json", "0.gif"):
        (options.output / name).mkdir(parents=True)
        with pytest.raises(FileExistsError, match=f"{name}: is a folder"):
            generate([image_path], [20.0], change(options, overwrite=True), view_generator)
        (options.output / name).rmdir()
    usage = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match="not enough disk space"):
        generate([image_path], [20.0], options, view_generator)
    assert seeds(view_generator) == []
    assert list(options.output.iterdir()) == []


def test_bfloat16_gives_nearly_the_same_picture(image_path, options, model, tmp_path):
    (exact,) = generate([image_path], [20.0], options, model)
    low = dataclasses.replace(model, dtype="bf16")
    (rough,) = generate([image_path], [20.0], change(options, output=tmp_path / "low"), low)
    difference = np.abs(read(exact).astype(float) - read(rough)).mean()
    assert 0 < difference < 8


def test_the_record_beside_a_strip_holds_all_that_its_pixels_depend_on(image_path, options, model):
    generate([image_path], [20.0], options, model)
    record = json.loads((options.output / "0.json").read_text())
    assert list(record["settings"]) == [
        "input", "elevation_deg", "crop_size", "steps", "guidance_scale", "eta", "temperature",
        "spacing", "dtype", "weights", "config", "seed",
    ]  # fmt: skip


def test_numbers_that_overflow_are_an_error_not_a_black_picture(image_path, options, model):
    with torch.no_grad():
        for weight in model.model().parameters():
            weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        generate([image_path], [20.0], options, model)
    assert not (options.output / "0.png").exists()


def test_every_step_can_be_previewed_and_the_strip_stays_the_same(small_model):
    size = small_model.config.cameras.image_size
    with torch.inference_mode():
        features = small_model.encode_image(torch.zeros(1, 3, size, size))
    sampler = SamplerConfig(steps=3)
    previews = []

    def on_step(step: StepInfo) -> None:
        previews.append((step.number, step.total, step.preview()))

    watched = generate_strip(small_model, features, 20.0, 1, sampler, 4, on_step)
    np.testing.assert_array_equal(
        watched, generate_strip(small_model, features, 20.0, 1, sampler, 4)
    )
    assert [each[:2] for each in previews] == [(1, 3), (2, 3), (3, 3)]
    assert all(each[2].shape == (size, 16 * size, 3) for each in previews)
    differences = [np.abs(each[2].astype(float) - watched).mean() for each in previews]
    assert differences[0] > differences[2]
    assert differences[2] < 2  # the last step leads nearly to what was predicted before it
