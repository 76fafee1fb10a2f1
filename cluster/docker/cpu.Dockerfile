# The image of nodes without a GPU. From the repository root:
#
#   docker build -f cluster/docker/cpu.Dockerfile -t seedset:0.1.0 --build-arg TORCH_INDEX=… .
#
# TORCH_INDEX is the address of torch's CPU builds: without it comes the default build, and gigabytes of CUDA with it.
# Nodes of one cluster must run the same Python: cuda.Dockerfile has the same system, and so the same one.
FROM ubuntu:24.04 AS build

RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3.12 python3.12-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3.12 -m venv /opt/seedset
ENV PATH=/opt/seedset/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements.lock ./
ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=
# Torch first, by name and in a layer of its own; the other versions are the lock's.
RUN pip install --constraint requirements.lock ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH"
COPY pyproject.toml README.md ./
COPY engine ./engine
COPY jobs ./jobs
COPY serve ./serve
COPY cluster ./cluster
RUN pip install --constraint requirements.lock ".[all]" && pip check

FROM ubuntu:24.04
# A compiler and libaio, for the operators that DeepSpeed builds on first use; wget, by which KubeRay asks Serve's proxies.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates g++ libaio-dev python3.12 python3.12-dev wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --shell /bin/bash seedset
COPY --from=build /opt/seedset /opt/seedset
ENV PATH=/opt/seedset/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    TOKENIZERS_PARALLELISM=false \
    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.proxy.install:install
USER 10001
WORKDIR /home/seedset
ENTRYPOINT ["seedset"]
CMD ["--help"]
