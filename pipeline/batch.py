"""Process many images with one model; failures are listed and do not stop the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.config import Context, PipelineConfig
from pipeline.image_to_3d import image_to_3d
from pipeline.inputs import collect_images, list_left_out, write_failures
from pipeline.view_generator import ModelError

log = logging.getLogger(__name__)


def images_to_3d(
    paths: Sequence[Path],
    output: Path,
    config: PipelineConfig,
    context: Context,
    debug: bool = False,
    describe: Callable[[Exception], str] = str,
) -> list[Path]:
    """Reconstruct the object in each image; failures of several are listed in failures.csv.

    That lists the files of folders that are no images, too. Several images get a folder each inside
    `output`. `debug` logs tracebacks of failures, and
    `describe` makes the message of a failure.

    Returns:
        the images that failed; the failure of a single image is raised instead.

    Raises:
        FileNotFoundError, ValueError: no images, or several of one name.
        NotADirectoryError: the folder is a file.
        pipeline.view_generator.ModelError: the model cannot be loaded.
    """
    images = collect_images(paths, output)
    if len(images) == 1 and images[0][1] == output:
        image_to_3d(images[0][0], output, config, context)
        return []
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"{output}: is a file, expected a folder for the results")
    failures: dict[Path, str] = {}
    write_failures(output, failures)  # remove those of an earlier run
    for number, (path, folder) in enumerate(images, start=1):
        log.info("image %d of %d: %s", number, len(images), path)
        try:
            image_to_3d(path, folder, config, context)
        except ModelError:
            raise
        except Exception as error:
            message = " ".join(describe(error).split()) or type(error).__name__
            log.error("%s", message, exc_info=debug)
            failures[path] = message
            write_failures(output, failures)
    write_failures(output, {**failures, **list_left_out(paths)})
    return list(failures)
