"""Choice of the torch device, and peak memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> torch.device:
    """Resolve "auto", "cpu", "cuda", "cuda:1" or "mps"; ValueError if it is not available."""
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
        raise ValueError(f"device {name} is not available: {reason}") from error
    return device


def fastest_dtype(device: torch.device) -> str:
    """Return the precision of the networks, "bf16", "fp16" or "fp32", in which a device is fastest.

    A CPU with AMX is in bf16. Others, and GPUs, have not been measured.
    """
    import torch

    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    if device.type == "cpu":
        try:
            flags = Path("/proc/cpuinfo").read_text()  # Linux
        except OSError:
            return "fp32"
        return "bf16" if "amx_bf16" in flags else "fp32"
    return "fp32"


def peak_memory(device: torch.device) -> str:
    """Describe the peak memory of this process, on the GPU if it computes there."""
    import torch

    if device.type == "cuda":
        return f"peak GPU memory {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB"
    try:  # Linux, where `resource` may report the peak of the parent process
        status = Path("/proc/self/status").read_text()
        kilobytes = next(int(s.split()[1]) for s in status.splitlines() if s.startswith("VmHWM"))
    except (OSError, StopIteration):
        try:
            import resource
        except ImportError:  # Windows
            return "peak memory unknown on this system"
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # macOS: bytes
    return f"peak memory of the process {kilobytes / 2**20:.2f} GiB"
