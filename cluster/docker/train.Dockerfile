# Searches, builds and evaluates: every node of a training cluster, and the pods that submit to it.
#
#   docker build -f cluster/docker/train.Dockerfile -t consilium-train:0.5.0 .
#
# The tag names a Python and a Debian; what it holds still moves with their security fixes. For a
# build that is the same to the byte, append the digest that your registry shows:
#   FROM python:3.11.14-slim-bookworm@sha256:...

FROM python:3.11.14-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY search search
COPY ensemble ensemble
COPY serving serving
COPY cluster cluster
# boto3: what Ray's cluster launcher asks EC2 for nodes with, from the head's own container.
RUN pip install --constraint constraints.txt '.[mlflow,postgres,s3]' boto3

FROM python:3.11.14-slim-bookworm
ARG VERSION=0.5.0
LABEL org.opencontainers.image.title="consilium-train" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.description="Consilium: search and ensembles. Not a medical device." \
      org.opencontainers.image.licenses="Apache-2.0"
# A number, so that Kubernetes can tell that it is not root without reading /etc/passwd.
RUN groupadd --gid 10001 consilium \
    && useradd --uid 10001 --gid 10001 --create-home --shell /bin/bash consilium
# By these Ray's cluster launcher copies into a container, and its head reaches new workers.
# DL3008 would have their versions pinned: Debian's mirrors drop one with the next security fix of
# the same release, and such a build would break just when it should take the fix in.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openssh-client rsync \
    && rm -rf /var/lib/apt/lists/*
# Not in a virtual environment: KubeRay and the cluster launcher start Ray from a login shell, whose
# PATH knows /usr/local/bin and nothing that an image adds.
COPY --from=build /usr/local /usr/local
# The allocator's thresholds: as cluster/connect.py sets them where it starts Ray itself.
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0 \
    RAY_USAGE_STATS_ENABLED=0 \
    MALLOC_MMAP_THRESHOLD_=4294967296 \
    MALLOC_TRIM_THRESHOLD_=4294967296 \
    MALLOC_TOP_PAD_=67108864
USER 10001:10001
WORKDIR /home/consilium
ENTRYPOINT ["consilium"]
CMD ["--help"]
