# Serves bundles: alone by `consilium serve`, or as every node of a RayService.
#
#   docker build -f cluster/docker/serve.Dockerfile -t consilium-serve:0.5.0 .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/bundle:/srv/consilium/bundle:ro" \
#     -v "$PWD/keys.json:/etc/consilium/keys/keys.json:ro" --shm-size 2g consilium-serve:0.5.0 \
#     serve /srv/consilium/bundle --host 0.0.0.0 --keys /etc/consilium/keys/keys.json
#
# The tag names a Python and a Debian; what it holds still moves with their security fixes. For a
# build that is the same to the byte, append the digest that your registry shows:
#   FROM python:3.11.14-slim-bookworm@sha256:...

FROM python:3.11.14-slim-bookworm AS build
# Where torch and torchvision come from, as a pair of one source. Without GPUs an index of CPU
# builds leaves out the CUDA libraries, most of the image's size:
#   --build-arg TORCH_INDEX=URL
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
# First and alone: from an index of its own nothing else may come.
RUN pip install --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --constraint constraints.txt \
    torch torchvision
COPY search search
COPY ensemble ensemble
COPY serving serving
COPY cluster cluster
RUN pip install --constraint constraints.txt '.[s3]'

FROM python:3.11.14-slim-bookworm
ARG VERSION=0.5.0
LABEL org.opencontainers.image.title="consilium-serve" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.description="Consilium: HTTP service. Not a medical device." \
      org.opencontainers.image.licenses="Apache-2.0"
# A number, so that Kubernetes can tell that it is not root without reading /etc/passwd.
RUN groupadd --gid 10001 consilium \
    && useradd --uid 10001 --gid 10001 --create-home --shell /bin/bash consilium
# Not in a virtual environment: KubeRay starts Ray from a login shell, whose PATH knows
# /usr/local/bin and nothing that an image adds.
COPY --from=build /usr/local /usr/local
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 RAY_USAGE_STATS_ENABLED=0
USER 10001:10001
WORKDIR /home/consilium
EXPOSE 8000
# Ready: the bundle is loaded, checked and warm. Kubernetes has probes of its own and ignores this.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["consilium"]
CMD ["--help"]
