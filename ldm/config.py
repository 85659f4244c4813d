"""The root of the configuration of `generate.py`."""

from __future__ import annotations

from dataclasses import dataclass, field

from ldm.model import SyncDreamerConfig


@dataclass(frozen=True)
class GenerateConfig:
    """What a sampling configuration file may hold."""

    model: SyncDreamerConfig = field(default_factory=SyncDreamerConfig)
