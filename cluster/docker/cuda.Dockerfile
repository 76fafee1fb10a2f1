# The image of nodes with GPUs of NVIDIA. From the repository root:
#
#   docker build -f cluster/docker/cuda.Dockerfile -t seedset:0.1.0-cuda .
#
# CUDA_IMAGE must be of the CUDA that torch was built with (python -c "import torch; print(torch.version.cuda)"): a compiler
# is in it, which DeepSpeed wants. Nodes of one cluster must run the same Python: cpu.Dockerfile has the same system.
ARG CUDA_IMAGE=nvidia/cuda:13.0.2-devel-ubuntu24.04

FROM ubuntu:24.04 AS build

RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3.12 python3.12-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3.12 -m venv /opt/seedset
ENV PATH=/opt/seedset/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements.lock ./
ARG TORCH=torch==2.13.0
# Torch first, by name and in a layer of its own; the other versions are the lock's.
RUN pip install --constraint requirements.lock "$TORCH"
COPY pyproject.toml README.md ./
COPY engine ./engine
COPY jobs ./jobs
COPY serve ./serve
COPY cluster ./cluster
RUN pip install --constraint requirements.lock ".[all]" && pip check

FROM ${CUDA_IMAGE}
# A compiler and libaio, for the operators that DeepSpeed builds on first use; wget, by which KubeRay asks Serve's proxies.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates g++ libaio-dev python3.12 python3.12-dev wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --shell /bin/bash seedset
COPY --from=build /opt/seedset /opt/seedset
ENV PATH=/opt/seedset/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    RAY_USAGE_STATS_ENABLED=0 \
    TOKENIZERS_PARALLELISM=false \
    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.proxy.install:install
USER 10001
WORKDIR /home/seedset
ENTRYPOINT ["seedset"]
CMD ["--help"]
