"""Pick the torch device, and measure peak memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


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
