"""Which samples are generated, kept, refused and written; estimates, rankings and flags."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import generate as script
from common.records import ReplaceError
from ldm.config import SamplerConfig
from ldm.generate_views import StepInfo, generate_strip
from multiview.image_file import read_image
from multiview.images import auto_crop_size, views_to_strip
from pipeline.generate import GenerateOptions, estimate_elevations, generate
from pipeline.image_list import collect_images
from pipeline.inputs import prepare_inputs
from pipeline.selection.elevation_drafts import ElevationError, draft_sampler
from pipeline.selection.ranking import SampleScore
from pipeline.view_generator import SyncDreamerGenerator
from renderer.config import RendererConfig
from renderer.views import read_input
from tests.conftest import ROOT
from tests.fakes import FakeGenerator
from tests.pipeline.conftest import by_small_model, file_reads
from tests.renderer.small_runs import ellipsoid

ALL = {"save_views": True, "preview": True, "cameras": "colmap"}
Run = Callable[..., list[Path]]


def paste(path: Path, colour: tuple[int, int, int, int]) -> Path:
    path.parent.mkdir(exist_ok=True)
    image = Image.new("RGBA", (90, 90))
    image.paste(colour, (20, 10, 70, 75))
    image.save(path)
    return path


@pytest.fixture
def image_path(tmp_path: Path) -> Path:
    return paste(tmp_path / "in" / "toy.png", (220, 60, 40, 255))


@pytest.fixture
def model(tiny_config, tiny_checkpoint: Path) -> SyncDreamerGenerator:
    return SyncDreamerGenerator(tiny_config, tiny_checkpoint, torch.device("cpu"), "fp32", 8)


@pytest.fixture
def options(out: Path) -> GenerateOptions:
    return GenerateOptions(out, 200, 1, 5, SamplerConfig(steps=2), torch.device("cpu"))


@pytest.fixture
def run(image_path: Path, options: GenerateOptions, view_generator: FakeGenerator) -> Run:
    """Generate samples of the toy with changed options, by the fake or another generator."""

    def run(by=view_generator, paths=(image_path,), elevation=20.0, **changes: object):
        return generate(paths, [elevation], replace(options, **changes), by)  # type: ignore

    return run


@pytest.fixture
def seeds(view_generator: FakeGenerator) -> Callable[[], list[int]]:
    """Of all samples that the fake generator has made."""
    return lambda: [seed for _, seed in view_generator.generated]


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.integration
def test_a_strip_of_sixteen_square_views_is_written_with_all_that_it_depends_on(run, out, model):
    (path,) = run(model)
    assert path == out / "0.png"
    assert read(path).shape == (128, 16 * 128, 3)
    assert read(path).std() > 1
    assert names(out) == ["0.json", "0.png"]
    assert list(json.loads((out / "0.json").read_text())["settings"]) == [
        "input", "elevation_deg", "crop_size", "steps", "guidance_scale", "eta", "temperature",
        "spacing", "dtype", "weights", "config", "seed",
    ]  # fmt: skip
    with pytest.raises(ReplaceError, match="dtype was 'fp32', now 'bf16'"):
        run(replace(model, dtype="bf16"))


@pytest.mark.integration
def test_a_sample_is_the_same_whatever_is_made_with_it(run, model, tmp_path):
    three = run(model, num_samples=3)
    loaded = model.model()
    alone = run(model, seed=7, output=tmp_path / "alone")
    assert model.model() is loaded
    assert three[2].read_bytes() == alone[0].read_bytes()
    assert three[0].read_bytes() != three[1].read_bytes()

    grouped = run(replace(model, views_at_once=3), output=tmp_path / "g")
    difference = np.abs(read(grouped[0]).astype(int) - read(three[0]))
    assert difference.max() <= 1  # rounding, where a value lies next to a whole number
    assert (difference > 0).mean() < 1e-3


def test_what_is_there_is_kept_and_a_run_that_was_killed_goes_on(run, out, seeds, tmp_path):
    class Killed(FakeGenerator):
        def generate(self, pixels, elevation_deg, seed, sampler, on_step=None):
            if seed == 6:
                raise KeyboardInterrupt
            return super().generate(pixels, elevation_deg, seed, sampler)

    with pytest.raises(KeyboardInterrupt):
        run(Killed(), num_samples=2)
    assert names(out) == ["0.json", "0.png"]
    first = (out / "0.png").stat().st_mtime_ns
    resumed = run(num_samples=2)
    assert seeds() == [6]
    assert (out / "0.png").stat().st_mtime_ns == first
    whole = run(num_samples=2, output=tmp_path / "whole")
    assert [p.read_bytes() for p in resumed] == [p.read_bytes() for p in whole]


def test_a_chosen_crop_size_is_recorded_as_the_number_that_it_is(run, image_path, seeds):
    (path,) = run(crop_size="auto")
    chosen = json.loads(path.with_suffix(".json").read_text())["settings"]["crop_size"]
    assert chosen == auto_crop_size(read_image(image_path))
    run(crop_size=chosen)
    assert seeds() == [5]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 9}, "seed was 5, now 9"),
        ({"crop_size": 150}, "crop_size was 200, now 150"),
        ({"sampler": SamplerConfig(steps=3)}, "steps was 2, now 3"),
    ],
)
def test_other_settings_are_an_error_that_names_them(run, seeds, changed, named):
    (path,) = run()
    before = path.read_bytes()
    with pytest.raises(ReplaceError, match=named):
        run(**changed)
    assert path.read_bytes() == before
    assert seeds() == [5]
    path.write_bytes(before[:-100])
    with pytest.raises(ReplaceError, match=r"0\.png.*not the file that was written"):
        run()


def test_overwrite_replaces_results_made_otherwise_and_gives_the_same_bytes_again(run, seeds):
    (path,) = run()
    first = path.read_bytes()
    run(seed=9, overwrite=True)
    assert path.read_bytes() != first
    for _ in range(2):  # also where the settings are the same
        run(overwrite=True)
        assert path.read_bytes() == first
    assert seeds() == [5, 9, 5, 5]


def test_views_and_preview_are_written_also_for_a_kept_sample(run, out, seeds):
    (path,) = run()
    run(**ALL)
    assert seeds() == [5]
    expected = [f"{n:03d}.png" for n in range(16)]
    assert names(out / "0") == [*expected, "sparse", "transforms.json"]
    views = [read(out / "0" / name) for name in expected]
    np.testing.assert_array_equal(np.concatenate(views, axis=1), read(path))
    with Image.open(out / "0.gif") as gif:
        assert gif.n_frames == 16


@pytest.mark.parametrize("cameras", ["transforms", "colmap"])
def test_the_cameras_of_saved_views_give_the_views_of_the_strip(run, out, cameras):
    (path,) = run(save_views=True, cameras=cameras)
    assert (out / "0" / "sparse").exists() == (cameras == "colmap")
    given = out / "0" / ("sparse/0" if cameras == "colmap" else "transforms.json")
    expected, _ = read_input(path, RendererConfig(), "cpu")
    views, _ = read_input(out / "0", RendererConfig(), "cpu", given)
    np.testing.assert_array_equal(views.images, expected.images)
    np.testing.assert_array_equal(views.masks, expected.masks)
    for name, values in vars(views.cameras).items():
        np.testing.assert_array_equal(values, getattr(expected.cameras, name))


def test_views_and_preview_of_a_replaced_strip_are_removed(run, out):
    run(**ALL)
    (out / "0" / "notes.txt").write_text("mine")
    (out / "probe").write_text("mine")
    run(seed=9, overwrite=True)
    assert names(out) == ["0", "0.json", "0.png", "probe"]
    assert names(out / "0") == ["notes.txt"]


@pytest.mark.parametrize("name", ["0.png", "0.json", "0.gif", "0/000.png", "0/transforms.json"])
def test_a_file_of_a_results_name_that_is_not_ours_is_not_replaced(run, out, seeds, name):
    mine = out / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(ReplaceError, match=mine.name):
        run(**ALL)
    assert mine.read_text() == "mine"
    assert seeds() == []
    if name == "0.png":
        (out / "0.json").write_text("[1")
        with pytest.raises(ReplaceError, match=r"0\.png"):
            run()
    elif name != "0.json":  # what is not asked for is not touched even with --overwrite
        run(overwrite=True)
        assert mine.read_text() == "mine"


def test_an_input_is_never_overwritten(run, image_path, seeds):
    twin = paste(image_path.parent / "0.png", (9, 9, 9, 255))
    before = twin.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="is an input"):
            run(paths=[twin], output=image_path.parent, overwrite=overwrite)
    assert twin.read_bytes() == before
    assert seeds() == []


def test_a_result_that_another_process_wrote_meanwhile_is_not_replaced(run, out):
    class Slow(FakeGenerator):
        def generate(self, pixels, elevation_deg, seed, sampler, on_step=None):
            (out / "0.png").write_bytes(b"another's")
            return super().generate(pixels, elevation_deg, seed, sampler)

    with pytest.raises(ReplaceError):
        run(Slow())
    assert (out / "0.png").read_bytes() == b"another's"


def test_a_folder_is_a_batch_with_one_model(run, image_path, out, seeds):
    paste(image_path.parent / "second.png", (0, 90, 200, 255))
    (image_path.parent / "notes.txt").write_text("not an image")
    paths = run(paths=[image_path.parent])
    assert paths == [out / "second" / "0.png", out / "toy" / "0.png"]
    assert seeds() == [5, 5]
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_each_input_may_have_its_own_elevation(tmp_path: Path, out):
    a, b = (paste(tmp_path / "in" / f"{n}.png", (1, 2, 3, 255)) for n in "ab")
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


def test_a_bad_input_stops_a_batch_before_anything_is_written(run, image_path, out, seeds):
    faint = paste(image_path.parent / "faint.png", (9, 9, 9, 100))
    with pytest.raises(ValueError, match=r"faint\.png: there is no object"):
        run(paths=[image_path, faint], keep="best")
    assert seeds() == []
    assert len(run(paths=[image_path, faint], output=out.parent / "faint")) == 2
    (image_path.parent / "bad.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"bad\.png: not an image"):
        run(paths=[image_path, image_path.parent / "bad.png"])
    assert not out.exists()


def test_a_bad_image_of_a_folder_and_what_is_no_image_are_listed(run, image_path, out, caplog):
    folder = image_path.parent
    (folder / "bad.png").write_text("not an image")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "photo.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (folder / "notes.txt").touch()
    (folder / "more.png").mkdir()
    for suffix in ("avif", "jfif", "jpe", "ppm", "WEBP"):
        known = {"jfif": "JPEG", "jpe": "JPEG"}.get(suffix, suffix)
        Image.new("RGB", (40, 40), "red").save(folder / f"{suffix}.{suffix}", known)
    with pytest.raises(ValueError, match=r"bad\.png: not an image.*; 3 of 9 images failed, see"):
        run(paths=[folder], crop_size=-1)
    assert names(out) == ["WEBP", "avif", "failures.csv", "jfif", "jpe", "ppm", "toy"]
    with (out / "failures.csv").open(newline="") as file:
        errors = {Path(row["input"]).name: row["error"] for row in csv.DictReader(file)}
    assert list(errors) == ["bad.png", "gone.jpg", "photo.HEIC", "notes.txt"]
    assert "a link to a file that is gone" in errors["gone.jpg"]
    assert "HEIC" in errors["photo.HEIC"]
    assert "left out 1 files, no images by their names: notes.txt" in caplog.text
    for name in ("bad.png", "gone.jpg", "photo.HEIC", "notes.txt"):
        (folder / name).unlink()
    assert len(run(paths=[folder], crop_size=-1)) == 6
    assert not (out / "failures.csv").exists()


def test_an_output_that_takes_no_files_is_found_before_the_weights_are_loaded(
    run, out, seeds, monkeypatch
):
    out.write_text("a file")
    with pytest.raises(OSError, match="out: cannot be written to"):
        run()
    out.unlink()
    for name in ("0.png", "0.json", "0.gif"):
        (out / name).mkdir(parents=True)
        with pytest.raises(FileExistsError, match=f"{name}: is a folder"):
            run(overwrite=True)
        (out / name).rmdir()
    usage = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match="not enough disk space"):
        run()
    assert seeds() == names(out) == []


@pytest.mark.integration
def test_bfloat16_gives_nearly_the_same_picture(run, model, tmp_path):
    (exact,), (rough,) = run(model), run(replace(model, dtype="bf16"), output=tmp_path / "low")
    assert 0 < np.abs(read(exact).astype(float) - read(rough)).mean() < 8


@pytest.mark.integration
def test_numbers_that_overflow_are_an_error_not_a_black_picture(run, out, model):
    with torch.no_grad():
        for weight in model.model().parameters():
            weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        run(model)
    assert not (out / "0.png").exists()


@pytest.mark.integration
def test_every_step_can_be_previewed_and_the_strip_stays_the_same(small_model):
    size = small_model.config.cameras.image_size
    with torch.inference_mode():
        features = small_model.encode_image(torch.zeros(1, 3, size, size))
    given = small_model, features, 20.0, 1, SamplerConfig(steps=3), 4
    previews: list[np.ndarray] = []

    def on_step(step: StepInfo) -> None:
        previews.append(step.preview())
        assert (step.number, step.total) == (len(previews), 3)

    watched = generate_strip(*given, on_step)
    np.testing.assert_array_equal(watched, generate_strip(*given))
    assert [each.shape for each in previews] == [(size, 16 * size, 3)] * 3
    first, _, last = (np.abs(each.astype(float) - watched).mean() for each in previews)
    assert first > last
    assert last < 2  # the last step leads nearly to what was predicted before it


@pytest.mark.parametrize(("of_a_sample", "of_a_draft"), [(50, 8), (8, 8), (3, 3)])
def test_a_draft_takes_few_steps_and_never_more_than_a_sample(of_a_sample, of_a_draft):
    sampler = SamplerConfig(steps=of_a_sample, eta=1.0, temperature=0.3)
    assert draft_sampler(sampler) == SamplerConfig(steps=of_a_draft, eta=0.0, temperature=0.3)
    random = replace(sampler, solver="dpm++sde", eta=0.0)
    assert draft_sampler(random) == replace(draft_sampler(sampler), solver="dpm++")


@pytest.fixture
def estimated(options: GenerateOptions, image_path: Path, view_generator: FakeGenerator, estimate):
    """Estimate elevations from one draft at 30 degrees, with changed options."""
    estimate(17.26, [30.0])

    def run(paths=(image_path,), elevations=("auto",), **changes: object) -> list[float | None]:
        given = replace(options, **changes)  # type: ignore[arg-type]
        inputs = prepare_inputs(paths, elevations, given.output, given.crop_size, 32, compare=False)
        found = estimate_elevations(inputs, given, view_generator)
        return [source.elevation_deg for source in found]

    return run


def test_an_estimate_takes_the_place_of_auto_and_of_nothing_else(
    image_path, view_generator, estimated, out, tmp_path
):
    other = paste(tmp_path / "other.png", (9, 9, 9, 255))
    assert estimated([image_path, other], [5.0, "auto"]) == [5.0, 17.3]
    assert view_generator.generated == [(30.0, 5)]
    assert names(out) == ["other"]
    assert estimated(output=tmp_path / "single") == [17.3]
    left = {path.name for path in (tmp_path / "single").rglob("*")}
    assert left == {"drafts", "+30.0.png", "+30.0.json", "elevation.json", "elevation.png"}


def test_drafts_are_kept_until_something_changes(image_path, view_generator, estimated, out):
    def count(**changes: object) -> int:
        before = len(view_generator.generated)
        assert estimated(**changes) == [17.3]
        return len(view_generator.generated) - before

    assert [count(), count(), count(overwrite=True), count()] == [1, 0, 1, 0]
    assert count(sampler=SamplerConfig(steps=2, eta=0.5)) == 0  # drafts have their own
    for change in ({"seed": 8}, {"crop_size": 100}, {"sampler": SamplerConfig(guidance_scale=3.0)}):
        with pytest.raises(ReplaceError, match="other settings"):
            count(**change)
    (out / "drafts" / "+30.0.png").unlink()
    assert count() == 1
    image_path.write_bytes(image_path.read_bytes() + b" ")
    with pytest.raises(ReplaceError, match="input was"):
        count()


@pytest.mark.parametrize("name", ["0.png", "elevation.png", "drafts/+30.0.png"])
def test_files_of_others_are_found_before_any_draft_is_generated(
    view_generator, estimated, out, tmp_path, name
):
    (out / name).parent.mkdir(parents=True)
    (out / name).write_bytes(b"mine")
    with pytest.raises(ReplaceError, match=re.escape(str(out / name))):
        estimated()
    assert (view_generator.generated, (out / name).read_bytes()) == ([], b"mine")
    image = paste(tmp_path / "elevation.png", (9, 9, 9, 255))
    with pytest.raises(FileExistsError, match="is an input"):
        estimated([image], output=tmp_path, overwrite=True)


def test_samples_are_generated_for_the_estimate(run, estimate, view_generator, out):
    estimate(17.26, [30.0])
    for _ in range(2):  # the second time all files exist: nothing is generated
        run(elevation="auto", num_samples=2)
        record = json.loads((out / "0.json").read_text())
        assert record["settings"]["elevation_deg"] == 17.3
        assert view_generator.generated == [(30.0, 5), (17.3, 5), (17.3, 6)]


def test_a_failed_estimate_names_the_image(run, no_estimate):
    with pytest.raises(ElevationError, match=r"toy\.png: .*view 3"):
        run(elevation="auto")


@pytest.mark.integration
@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_command_reads_every_input_once(count, small_checkpoint, tmp_path, estimate):
    """Each is opened once, though drafts, samples and ranking need it."""
    inputs = [tmp_path / name for name in ("cup.png", "robot.png")[:count]]
    for path in inputs:
        path.write_bytes((ROOT / "testset" / path.name).read_bytes())
    flags = [
        *by_small_model(small_checkpoint), "--input", *map(str, inputs), "--output",
        str(tmp_path / "out"), "--elevation", "auto", "--keep", "best", "--crop_size", "auto",
        "--sample_num", "2",
    ]  # fmt: skip
    estimate(17.26)
    for _ in range(2):  # the second run finds all results
        with file_reads(inputs) as reads:
            script.main(flags)
        assert reads == dict.fromkeys(map(str, inputs), 1)


def test_an_existing_strip_is_read_once_to_check_it_and_once_to_rank_it(run, seeds):
    (strip,) = run(keep="all")
    with file_reads([strip]) as reads:
        run(keep="all")
    assert reads == {str(strip): 2}
    assert seeds() == [5]


class NoisyGenerator(FakeGenerator):
    """Samples of one object, more or less noisy."""

    noise = (60, 0, 90, 20, 40)

    def generate(self, pixels, elevation_deg, seed, sampler, on_step=None):
        k = seed - 5
        self.generated.append(k)
        strip = (views_to_strip(ellipsoid()[..., :3]) * 255).round()
        marks = (strip < 200) * np.random.default_rng(k).normal(0, self.noise[k], strip.shape)
        return (strip + marks).clip(0, 255).astype(np.uint8)


@pytest.fixture
def quick_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    def score(views, *_):
        return SampleScore(score=-float(np.abs(views - ellipsoid()[..., :3]).mean()))

    monkeypatch.setattr("pipeline.selection.ranking.score_sample", score)


@pytest.fixture
def noisy(run, out):
    """Generate noisy samples; returns their numbers, and the existing images and folders."""
    generator = NoisyGenerator()

    def generated(samples: int, keep: str | None = "best", **changes: object):
        before = len(generator.generated)
        strips = run(generator, num_samples=samples, keep=keep, **changes)
        assert all(strip.exists() for strip in strips)
        return generator.generated[before:], [n for n in names(out) if not n.endswith(".json")]

    return generated


def ranking(folder: Path) -> list[str]:
    return [row["name"] for row in json.loads((folder / "scores.json").read_text())]


def test_all_samples_are_kept_in_order(noisy, out):
    assert noisy(3, keep="all") == ([0, 1, 2], ["0.png", "1.png", "2.png"])
    assert ranking(out) == ["1.png", "0.png", "2.png"]


def test_the_best_sample_is_kept_and_the_others_are_not_generated_again(noisy, quick_scores, out):
    kept = ["1", "1.gif", "1.png"]
    assert noisy(3, **ALL) == ([0, 1, 2], kept)
    scores = (out / "scores.json").read_text()
    assert noisy(3) == ([], kept)
    assert (out / "scores.json").read_text() == scores
    assert noisy(5) == ([3, 4], kept)
    assert ranking(out) == ["1.png", "3.png", "4.png", "0.png", "2.png"]


def test_samples_that_are_wanted_are_generated_though_they_were_removed_once(
    noisy, quick_scores, out
):
    assert noisy(2) == ([0, 1], ["1.png"])
    (out / "1.png").unlink()  # by hand: it was the best
    assert noisy(2) == ([1], ["1.png"])
    assert noisy(1) == ([0], ["0.png", "1.png"])  # 1 is not asked for
    assert noisy(2, overwrite=True) == ([0, 1], ["1.png"])
    assert noisy(2, keep=None) == ([0], ["0.png", "1.png"])
    assert noisy(2) == ([], ["1.png"])
    (out / "scores.json").unlink()
    assert noisy(2) == ([0], ["1.png"])


def test_a_sample_that_is_removed_takes_no_file_of_others_with_it(noisy, quick_scores, out):
    (out / "0").mkdir(parents=True)
    (out / "0" / "notes.txt").write_text("mine")
    assert noisy(2, save_views=True) == ([0, 1], ["0", "1", "1.png"])
    assert names(out / "0") == ["notes.txt"]


def test_a_missing_outline_is_named_with_the_flag_that_helps(photo, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.view_generator.sampling_settings", lambda *_: {})
    flags = ["--input", str(photo), "--output", str(tmp_path / "out"), "--elevation", "20",
             "--ckpt", "x.ckpt", "--device", "cpu", "--crop_size"]  # fmt: skip
    for crop_size in ("auto", "200"):
        with pytest.raises(ValueError, match=r"photo\.png.* --crop_size -1"):
            script.main([*flags, crop_size])
    assert not (tmp_path / "out").exists()


def test_the_command_hands_on_its_flags(monkeypatch, tmp_path):
    """Also which flag helps against an error."""
    calls = []

    def fail(*given):
        calls.append(given)
        raise ReplaceError("0.png: was made with other settings")

    monkeypatch.setattr("pipeline.generate.generate", fail)
    monkeypatch.setattr("pipeline.view_generator.sampling_settings", lambda *_: {})
    with pytest.raises(ReplaceError, match=r"0\.png.*--output.*--overwrite"):
        script.main(
            ["--input", "a.png", "--output", "out", "--elevation", "auto", "--ckpt", "x.ckpt",
             "--device", "cpu", "--keep", "best", "--sample_num", "3", "--batch_view_num", "2",
             "--preview"]
        )  # fmt: skip
    ((paths, elevations, given, view_generator),) = calls
    assert (paths, elevations) == ([Path("a.png")], ["auto"])
    assert (given.keep, given.num_samples, given.preview) == ("best", 3, True)
    assert view_generator.views_at_once == 2
