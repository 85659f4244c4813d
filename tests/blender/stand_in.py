"""A program that stands in for Blender; the name of the object determines how it behaves.

It writes plain views quickly; for objects named "hangs-..." it starts a child process and hangs,
for others it fails, crashes, or ends without a view.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

import blender_script
from blender.plan import plan_cameras
from blender.view_folder import ViewFolder
from common.files import sha256


def note(uid: str, *pids: int) -> None:
    """Record this run and the ids of its processes."""
    with (Path(os.environ["STAND_IN_NOTES"]) / uid).open("a") as file:
        file.write(" ".join(map(str, pids)) + "\n")


def main() -> None:
    if "--version" in sys.argv:
        print("Blender", os.environ.get("STAND_IN_VERSION", "4.2.0 LTS"))
        return
    args = blender_script.build_parser().parse_args(sys.argv[sys.argv.index("--") + 1 :])
    kind = args.uid.split("-")[0]
    if kind == "hangs":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        note(args.uid, os.getpid(), child.pid)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    note(args.uid, os.getpid())
    folder = args.output_dir / args.uid
    cameras = plan_cameras(blender_script.view_settings(args, args.camera_type), args.uid)
    views = ViewFolder(folder, cameras, args.resolution, {"model": sha256(args.object_path)})
    if kind == "corrupt":
        print("a report ... truncated", end="")
        print(f"ERROR: {args.object_path}: cannot be read: it is corrupt", flush=True)
        sys.exit(1)
    if kind == "magenta":
        print(f"WARNING: {args.object_path}: its texture is missing")
    print("WARNING: this Blender has no denoiser")
    for index in views.prepare():
        if index == 3 and kind in ("lazy", "crashes", "flaky"):
            if kind == "lazy":
                return
            if kind == "crashes":
                os.kill(os.getpid(), signal.SIGSEGV)
            if len((Path(os.environ["STAND_IN_NOTES"]) / args.uid).read_text().splitlines()) == 1:
                sys.exit(7)
        image = folder / ".view.tmp.png"
        Image.new("RGBA", (args.resolution, args.resolution), (99, 0, 0, 255)).save(image)
        views.add_view(index, image, None)
    print("GPU", os.environ.get("CUDA_VISIBLE_DEVICES"))


if __name__ == "__main__":
    main()
