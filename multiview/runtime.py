"""What every command does around its work: configuration, logging, devices, files, errors."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
Schema = TypeVar("Schema")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show the defaults, and the description as it is written."""


def load_config(schema: type[Schema], path: Path, overrides: Sequence[str] = ()) -> Schema:
    """Read a YAML file and `key=value` overrides into a typed, frozen dataclass.

    Args:
        schema: the dataclass that says which keys there are, of which type and default.
        path: YAML file; it holds only what differs from the defaults.
        overrides: dotted keys, e.g. "model.unet.channels=64".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a folder, not YAML, an unknown key, or a value of the wrong type; names it.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if path.is_dir():
        raise ValueError(f"{path}: is a folder, expected a configuration file (YAML)")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration file")
    where = f"{path} with --set {' '.join(overrides)}" if overrides else str(path)
    try:
        read = OmegaConf.load(path)
        if OmegaConf.is_dict(read) and "target" in (OmegaConf.select(read, "model") or {}):
            raise ValueError(
                "is a configuration of the published code, which names classes; this project's "
                "own are in configs/"
            )
        merged = OmegaConf.merge(
            OmegaConf.structured(schema), read, OmegaConf.from_dotlist(list(overrides))
        )
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or error
        raise ValueError(f"{where}: not valid YAML{line}: {reason}") from error
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if getattr(error, "full_key", None) else ""
        raise ValueError(f"{where}: {key}{str(error).splitlines()[0]}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{where}: {str(error).splitlines()[0]}") from error


def check_positive(config: object) -> None:
    """Raise ValueError where a whole number in a dataclass of sizes, or in a tuple, is below 1.

    Levels, which count from 0, are in tuples whose names end in "levels"; these are left out.
    """
    for item in fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        values = value if isinstance(value, tuple) else (value,)
        numbers = [v for v in values if isinstance(v, int) and not isinstance(v, bool)]
        if any(v < 1 for v in numbers) and not item.name.endswith("levels"):
            raise ValueError(f"{type(config).__name__}.{item.name} must be positive, got {value}")


_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_file_name(name: str) -> None:
    """Raise ValueError for what is not the plain name of a file or folder on every system."""
    if not name.strip():
        raise ValueError("must not be empty")
    found = re.search(r'[/\\<>:"|?*\x00-\x1f]', name)
    if found:
        raise ValueError(f"is the name of a folder, not a path: {name!r} contains {found[0]!r}")
    if name.strip(".") == "" or name[-1] in ". " or _DEVICES.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a folder on every system")


def pick_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda", "cuda:1" or "mps" into a device that is there.

    Raises:
        ValueError: the device is unknown or not available; there is no silent fallback.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("expected cpu, cuda, cuda:<n> or mps")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name} cannot be used here: {reason}") from error
    return device


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` on success only.

    Raises:
        OSError: naming `path`, for whatever goes wrong with the disk meanwhile.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # some libraries make files that only the owner can read
        temporary.replace(path)
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def file_lock(path: Path, wait: bool = True, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of a file or folder, where the system has locks (not on Windows).

    Args:
        path: what is locked, in a folder that exists; a file `.<name>.lock` beside it is left.
        wait: for another process that holds it.
        patience: seconds to wait where `wait` is false.

    Raises:
        OSError: another process holds it, and `wait` is false.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.absolute().parent.joinpath(f".{path.name}.lock").open("w") as lock:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    message = f"{path}: another process is writing there; wait for its end"
                    raise OSError(message) from error
            time.sleep(0.1)
        yield


def check_free_space(folder: Path, needed: int) -> None:
    """Raise OSError where the disk of an existing folder has less than `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder}: not enough disk space: up to {needed / 2**20:.1f} MiB are needed, "
            f"{free / 2**20:.1f} MiB are free"
        )


def peak_memory(device: torch.device) -> str:
    """Say how much memory this process has used at most, of the GPU if it computes there."""
    import torch

    if device.type == "cuda":
        return f"peak GPU memory {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB"
    try:  # Linux; what `resource` says there may be the peak of the process that started this one
        status = Path("/proc/self/status").read_text()
        kilobytes = next(int(s.split()[1]) for s in status.splitlines() if s.startswith("VmHWM"))
    except (OSError, StopIteration):
        try:
            import resource
        except ImportError:  # Windows
            return "peak memory unknown on this system"
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # macOS: bytes
    return f"peak memory of the process {kilobytes / 2**20:.2f} GiB"


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that every command has."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<n> or mps")
    parser.add_argument("--debug", action="store_true", help="show a traceback on failure")


def run_script(main: Callable[[list[str] | None], None]) -> None:
    """Run a command's `main`: exit 0 when done, 1 with one clear line when it fails.

    Wrong usage exits 2 (argparse). A traceback is shown only with --debug.
    """
    if sys.stderr is None:  # closed by whoever started this
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - stays open until the end
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    logging.getLogger("trimesh").setLevel(logging.WARNING)  # it tells of every mesh that it cuts
    # Read by torch when it is first imported: operators that Apple's GPU lacks run on its CPU.
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    with suppress(ValueError):  # outside the main thread; SIGTERM cleans up as Ctrl-C does
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        main(None)
    except KeyboardInterrupt:
        log.error("interrupted")
        sys.exit(130)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        log.error("%s", message)
        sys.exit(1)
