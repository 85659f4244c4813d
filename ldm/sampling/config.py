"""Configuration of the sampler: its solver, its guidance, its presets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from ldm.schedule import Spacing

Solver = Literal["ddim", "dpm++", "dpm++sde", "unipc"]
GuidanceKind = Literal["classifier_free", "harmony", "none"]
SECOND_ORDER: tuple[Solver, ...] = ("dpm++", "dpm++sde", "unipc")
"""Solvers of order 2; they have no `eta`."""


@dataclass(frozen=True)
class GuidanceConfig:
    """Which predictions are combined, and at which noise levels; see `ldm.sampling.guidance`.

    Attributes:
        kind: "classifier_free", by `SamplerConfig.guidance_scale`; "harmony", by the next two; or
            "none", the conditional prediction.
        input_scale: s1 of "harmony", for likeness to the input view.
        volume_scale: s2 of "harmony", for agreement of the views with each other.
        interval: (low, high), the guidance is used at low < sigma <= high, where
            sigma = sqrt((1 - alpha_bar) / alpha_bar), in the published schedule 0.03 to 14.6; the
            other steps evaluate the conditional branch only (arXiv 2404.07724).
    """

    kind: GuidanceKind = "classifier_free"
    input_scale: float = 2.0
    volume_scale: float = 1.0
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.interval is None:
            return
        ordered = [0, *self.interval, math.inf]
        if len(ordered) != 4 or not ordered[0] <= ordered[1] < ordered[2] < ordered[3]:
            levels = " ".join(f"{level:g}" for level in self.interval)
            raise ValueError(
                f"the guidance interval must be two noise levels, 0 <= low < high, got {levels}"
            )
        if self.kind == "none":
            raise ValueError(
                "the guidance interval has no effect with guidance none: leave it out, or choose "
                "guidance classifier_free or harmony"
            )


@dataclass(frozen=True)
class SamplerConfig:
    """Settings of the reverse process.

    Attributes:
        steps: number of denoising steps, 1 .. 1000; at least 2 for solvers of order 2.
        guidance_scale: s in e = e_uncond + s (e_cond - e_uncond); 1 runs one branch only.
        eta: of DDIM, 0 is deterministic, 1 the published setting and the default; the other solvers
            have none, and refuse any but 0.
        temperature: standard deviation of all noise, 0 .. 1 (published). With less the views are
            plainer and more consistent; at 0 only the sample of the input view's posterior differs.
        spacing: see `ldm.schedule.ddim_timesteps`; the published sampler has "leading".
        solver: see `ldm.sampling.solvers`; "dpm++sde" is random, as DDIM with eta 1.
        guidance: its kind and interval.
    """

    steps: int = 50
    guidance_scale: float = 2.0
    eta: float | None = None
    temperature: float = 1.0
    spacing: Spacing = "leading"
    solver: Solver = "ddim"
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"the number of sampling steps must be at least 1, got {self.steps}")
        if not 0 <= self.ddim_eta <= 1:
            raise ValueError(f"eta must be from 0 to 1, got {self.eta}")
        if self.eta and self.solver != "ddim":
            raise ValueError(_no_eta(self.solver))
        if not 0 <= self.temperature <= 1:
            raise ValueError(f"the temperature must be from 0 to 1, got {self.temperature}")
        if self.solver in SECOND_ORDER and self.steps < 2:
            raise ValueError(
                f"the solver {self.solver} is of order 2 and needs at least 2 steps, got "
                f"{self.steps}: take more, or ddim"
            )
        if self.guidance.interval and not self.is_guided:
            raise ValueError(
                "the guidance interval has no effect with these guidance scales, which mean none"
            )

    @property
    def ddim_eta(self) -> float:
        """`eta` of DDIM, or its default."""
        return 1.0 if self.eta is None else self.eta

    @property
    def is_guided(self) -> bool:
        """Whether more than the conditional branch is evaluated."""
        if self.guidance.kind == "harmony":
            return self.guidance.input_scale != 0 or self.guidance.volume_scale != 0
        return self.guidance.kind == "classifier_free" and self.guidance_scale != 1.0

    def settings(self) -> dict[str, Any]:
        """What a record says of the sampler, as plain JSON.

        Records of older versions know DDIM and classifier-free guidance only. Other solvers have
        `solver` in place of `eta`, other guidance has `guidance` in place of `guidance_scale`.
        """
        scales, interval = [self.guidance_scale], self.guidance.interval
        if self.guidance.kind == "harmony":
            scales = [self.guidance.input_scale, self.guidance.volume_scale]
        guidance: dict[str, Any] = {"guidance_scale": scales[0] if self.is_guided else 1.0}
        if self.is_guided and (self.guidance.kind == "harmony" or interval):
            kept = {"kind": self.guidance.kind, "scales": scales}
            guidance = {"guidance": {**kept, "interval": interval and list(interval)}}
        return {
            "steps": self.steps,
            **guidance,
            **({"eta": self.ddim_eta} if self.solver == "ddim" else {"solver": self.solver}),
            "temperature": self.temperature,
            "spacing": self.spacing,
        }


def _no_eta(solver: str) -> str:
    return f"eta is a setting of the solver ddim, {solver} has none: leave one out"


def change_sampler(sampler: SamplerConfig, asked: Mapping[str, Any]) -> SamplerConfig:
    """A sampler with some settings changed; those that are None stay.

    Names are those of `SamplerConfig`, but "guidance" for its kind, and "input_scale",
    "volume_scale" and "guidance_interval".

    Raises:
        ValueError: settings that do not go together.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    for name, kinds in (("solver", get_args(Solver)), ("guidance", get_args(GuidanceKind))):
        if given.get(name, kinds[0]) not in kinds:
            raise ValueError(f"{name} must be one of {', '.join(kinds)}, got {given[name]!r}")
    solver = given.get("solver", sampler.solver)
    if "eta" in given and solver != "ddim":
        raise ValueError(_no_eta(solver))
    kind = given.pop("guidance", sampler.guidance.kind)
    scales = {name: given.pop(name) for name in ("input_scale", "volume_scale") if name in given}
    if scales and kind != "harmony":
        raise ValueError(
            f"{' and '.join(scales)}: of guidance harmony, but the guidance is {kind}; choose "
            f"harmony, or leave the scale out"
        )
    if "guidance_scale" in given and kind != "classifier_free":
        raise ValueError(
            f"the guidance scale is of guidance classifier_free, but the guidance is {kind}: leave "
            f"it out{', or give input_scale and volume_scale' if kind == 'harmony' else ''}"
        )
    interval = given.pop("guidance_interval", sampler.guidance.interval if kind != "none" else None)
    interval = interval and tuple(interval)
    guidance = replace(sampler.guidance, kind=kind, interval=interval, **scales)
    return replace(sampler, guidance=guidance, **given)


@dataclass(frozen=True)
class SamplerPresets:
    """Samplers of fewer steps for the same weights (`generate.py --preset`).

    The defaults are the published model's; they were chosen with the small model, see
    docs/results.md.
    """

    fast: SamplerConfig = field(
        default_factory=lambda: SamplerConfig(steps=10, solver="unipc", spacing="log_snr")
    )
    default: SamplerConfig = field(
        default_factory=lambda: SamplerConfig(steps=20, solver="unipc", spacing="log_snr")
    )
