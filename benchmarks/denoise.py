"""Time the parts of a denoising step, optionally beside the reference formulas.

python -m tests.reference.seeded_weights --out ckpt/seeded.ckpt
python -m benchmarks.denoise --ckpt ckpt/seeded.ckpt --plain
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from common.cli import add_common_flags, run_script
from common.config import load_config
from common.devices import fastest_dtype, peak_memory, pick_device


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--cfg", type=Path, default=Path("configs/syncdreamer.yaml"))
    parser.add_argument("--ckpt", type=Path, required=True)
    parser.add_argument("--batch_view_num", type=int, default=8)
    parser.add_argument("--dtype", choices=["auto", "fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--repeat", type=int, default=3, help="runs; the median is printed")
    parser.add_argument("--plain", action="store_true", help="time the plain formulas too, fp32")
    add_common_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Print a table of times in seconds."""
    args = build_parser().parse_args(argv)

    import torch

    from ldm.checkpoint.load import DTYPES, load_model
    from ldm.config import GenerateConfig
    from ldm.sampling.sampler import noise_predictor
    from tests.reference import plain

    torch.set_grad_enabled(False)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = pick_device(args.device)
    config = load_config(GenerateConfig, args.cfg).model

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def clock(work: Callable[[], object]) -> float:
        synchronize()
        start = time.perf_counter()
        work()
        synchronize()
        return time.perf_counter() - start

    def measure(name: str, work: Callable[[], object], share: float = 1.0) -> float:
        work()
        seconds = statistics.median(clock(work) for _ in range(args.repeat)) * share
        print(f"{name:42s} {seconds:9.3f} s", flush=True)
        return seconds

    start = time.perf_counter()
    dtype = fastest_dtype(device) if args.dtype == "auto" else args.dtype
    model = load_model(config, args.ckpt, device, DTYPES[dtype])
    print(f"networks in {dtype}")
    print(f"{'load':42s} {time.perf_counter() - start:9.3f} s   {peak_memory(device)}")

    torch.manual_seed(0)
    size, views = config.cameras.image_size, config.cameras.num_views
    image = torch.rand(1, 3, size, size, device=device) * 2 - 1
    features = model.encode_image(image)
    shape = (1, *config.latent_shape)
    noise = torch.randn(1, *shape[2:], device=device)
    conditioning = model.make_conditioning(features, torch.zeros(1, device=device), noise)
    latents = torch.randn(shape, device=device)
    low = latents.to(model.unet.dtype)
    timesteps = torch.tensor([501], device=device)
    group = min(args.batch_view_num, views)
    share = views / group

    measure("encode the input (CLIP and autoencoder)", lambda: model.encode_image(image))
    measure("geometry and null residuals (once a sample)", model.sampling_cache)
    cache = model.sampling_cache()
    time_embedding = model.embed_time(timesteps)
    net, viewpoints = model.spatial_volume, conditioning.viewpoints

    def build() -> torch.Tensor:
        return net.build_spatial_volume(low, time_embedding, viewpoints, cache.geometry)

    parts = measure("step: spatial volume", build)
    volume = build()

    def resample() -> list[torch.Tensor]:
        rays, matrices = cache.geometry.rays_in_volume[:group], cache.geometry.interpolation
        given = viewpoints[:, :group], rays, matrices and matrices[:group]
        return net.view_frustums(volume, time_embedding, *given)

    parts += measure(f"step: frustum volumes of {views} views", resample, share)
    frustums = resample()
    x = torch.randn(2 * group, config.unet.in_channels, *shape[3:], device=device).to(low.dtype)
    token = conditioning.context[0, :group, None]
    tokens = torch.cat([token, token * 0])
    parts += measure(
        f"step: UNet on {views} views, both branches",
        lambda: model.unet(x, timesteps, tokens, frustums, cache.null_residuals),
        share,
    )
    print(f"{'step: sum':42s} {parts:9.3f} s")
    measure("decode one view", lambda: model.decode(latents[0, :1]))
    print(f"{'':42s} {peak_memory(device)}")

    if args.plain:
        ours, theirs = [], []
        reference, given = model, conditioning
        if dtype != "fp32":
            reference = load_model(config, args.ckpt, device, torch.float32)
            given = reference.make_conditioning(features, torch.zeros(1, device=device), noise)
        arguments = (reference, latents, 501, given, 2.0, group)
        predict_noise = noise_predictor(model, conditioning, 2.0, group)
        for _ in range(args.repeat):  # alternating, so that both run under the same load
            ours.append(clock(lambda: predict_noise(latents, 501)))
            with plain.plain_layers():
                theirs.append(clock(lambda: plain.predict_noise(*arguments)))
        ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        print(f"{'whole step':42s} {statistics.median(ours):9.3f} s")
        slow = statistics.median(theirs)
        print(f"{'whole step, plain formulas in fp32':42s} {slow:9.3f} s   {ratio:.2f} x")


if __name__ == "__main__":
    run_script(main)
