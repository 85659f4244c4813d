# An image that runs every command of the project, with a GPU or without. docs/docker.md has the commands.
#
#   docker build -t syncdreamer .
#   docker run --rm --gpus all -v "$PWD/ckpt:/app/ckpt" -v "$PWD/output:/app/output" syncdreamer \
#       image_to_3d.py testset/locomotive.png -o output/locomotive
#
# PyTorch's packages bring CUDA's libraries, so the base only has to open the door to the driver. Any
# Ubuntu 24.04 or Debian 12 will do in its place (--build-arg BASE=ubuntu:24.04), on a machine without a GPU.
ARG BASE=nvidia/cuda:13.0.1-base-ubuntu24.04

FROM ${BASE} AS packages
# requirements/app.txt, demo.txt, eval.txt, export.txt and train.txt are installed on top of the default
ARG REQUIREMENTS=requirements.txt
# flags for pip; --extra-index-url https://download.pytorch.org/whl/cpu fetches a PyTorch without CUDA
ARG PIP_FLAGS=""
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# The compiler is for mesh2sdf, and for xatlas on ARM; neither it nor pip's leavings come into the image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /build
COPY requirements.txt ./
COPY requirements requirements
# hadolint ignore=SC2086
RUN pip install --no-cache-dir ${PIP_FLAGS} -r requirements.txt -r "${REQUIREMENTS}"
# The small net that finds the object in a photo
COPY common common
COPY multiview multiview
RUN python -m multiview.segmentation --out /opt/u2net/u2netp.onnx

FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=packages /opt/u2net /opt/u2net
COPY --from=packages /opt/venv /opt/venv
# HOME and USER are for whoever is chosen by --user and has no entry in /etc/passwd
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    U2NET_HOME=/opt/u2net \
    HOME=/tmp \
    USER=syncdreamer
WORKDIR /app
COPY . .
RUN mkdir -p ckpt output && chown 1000:1000 ckpt output
VOLUME ["/app/ckpt", "/app/output"]
USER 1000:1000
# of the web page (app.py --host 0.0.0.0), with REQUIREMENTS=requirements/app.txt
EXPOSE 7860
ENTRYPOINT ["python"]
CMD ["image_to_3d.py", "--help"]
