"""Many pictures with one model: what fails is written down, and the others go on."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path

from common.files import atomic_write
from pipeline.config import Context, PipelineConfig
from pipeline.image_to_3d import image_to_3d
from pipeline.paths import FAILURES
from pipeline.sample_store import collect_inputs
from pipeline.view_generator import ModelError

log = logging.getLogger(__name__)


def images_to_3d(
    paths: Sequence[Path],
    output: Path,
    config: PipelineConfig,
    context: Context,
    debug: bool = False,
) -> list[Path]:
    """Make a mesh of each picture.

    Args:
        paths: pictures and folders of them.
        output: folder of the results; with several pictures, of one folder each, and of
            failures.csv where any failed.
        config: of all.
        context: of all.
        debug: show tracebacks of failures.

    Returns:
        pictures that failed: always none of a single one, whose failure is raised.

    Raises:
        FileNotFoundError, ValueError: no pictures, or several of one name.
        NotADirectoryError: the folder is a file.
        pipeline.view_generator.ModelError: the model cannot be loaded.
        Exception: see `image_to_3d`, of a single picture.
    """
    sources = collect_inputs(paths, [0.0], output)
    if len(sources) == 1 and sources[0].folder == output:
        image_to_3d(sources[0].path, output, config, context)
        return []
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"{output}: is a file, expected a folder for the results")
    if any(source.folder.name == FAILURES for source in sources):
        raise ValueError(f"the results of a picture cannot be called {FAILURES}; rename it")
    failures: dict[Path, str] = {}
    _write_failures(output, failures)  # those of a former run are no longer right
    for number, source in enumerate(sources, start=1):
        log.info("picture %d of %d: %s", number, len(sources), source.path)
        try:
            image_to_3d(source.path, source.folder, config, context)
        except ModelError:
            raise
        except Exception as error:
            message = " ".join(str(error).split()) or type(error).__name__
            log.error("%s", message, exc_info=debug)
            failures[source.path] = message
            _write_failures(output, failures)
    return list(failures)


def _write_failures(output: Path, failures: dict[Path, str]) -> None:
    """Write failures.csv; where nothing failed, remove what is there."""
    path = output / FAILURES
    if not failures:
        path.unlink(missing_ok=True)
        return
    output.mkdir(parents=True, exist_ok=True)
    with (
        atomic_write(path) as temporary,
        temporary.open(
            "w", newline="", encoding="utf-8", errors="backslashreplace"
        ) as file,  # names may be no text
    ):
        rows = csv.writer(file)
        rows.writerow(["input", "error"])
        rows.writerows([str(image), message] for image, message in failures.items())
