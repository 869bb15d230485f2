# syntax=docker/dockerfile:1
# Two images from one file:
#   docker build --target serve -t genre-serve .    answers (query, identify, similar, the HTTP service); no TensorFlow
#   docker build --target train -t genre-train .    the whole pipeline: DVC, TensorFlow for CPUs, the Dask cluster
# Songs, models and the index are mounted, never copied in: see compose.yaml and docs/service.md.

FROM python:3.11-slim-bookworm AS base
RUN useradd --create-home --uid 10001 genre
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONHASHSEED=0 \
    ORT_DISABLE_TELEMETRY=1 \
    DVC_NO_ANALYTICS=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /genre

FROM base AS serve
COPY requirements-serve.lock ./
RUN pip install --require-hashes --requirement requirements-serve.lock
COPY params.yaml ./
COPY stages ./stages
COPY genre ./genre
USER 10001
EXPOSE 5000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/healthz', timeout=4)"]
CMD ["python", "-m", "stages.serve", "--host", "0.0.0.0"]

FROM base AS train
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*
COPY requirements.lock ./
RUN pip install --require-hashes --requirement requirements.lock
COPY dvc.yaml params.yaml ./
COPY dataset/dvc.yaml ./dataset/
COPY corrections ./corrections
COPY stages ./stages
COPY genre ./genre
RUN git init --quiet && dvc init --quiet && chown --recursive 10001:10001 /genre
USER 10001
CMD ["dvc", "repro"]
