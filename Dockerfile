# The image of stacworker: exactly what the lock files pin, no installer's cache, no compiler, no root.
#
#   docker build -t stacworker .
#   docker build -t stacworker --build-arg EXTRAS="" .        only the daemon: loads items, runs functions
#
# What it is built from can be changed, what it runs as too: docs/docker.md.
ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /build
# The installer, pinned with its hash, where scripts/uv looks for it.
COPY requirements/uv.txt requirements/uv.txt
RUN python3 -m venv .cache/uv && \
    .cache/uv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --quiet --no-deps \
    --require-hashes -r requirements/uv.txt
COPY scripts/uv scripts/uv
COPY requirements requirements
# Any of: environments raster stactools tracing (those that have a lock, requirements/extra-….txt).
ARG EXTRAS="environments raster stactools"
ENV UV_NO_CACHE=1 UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
# There is no compiler here either: what needs one is no wheel and fails. Before the sources, so that a change of
# these installs nothing anew.
RUN locks=(-r requirements/runtime.txt); \
    for extra in $EXTRAS; do locks+=(-r "requirements/extra-$extra.txt"); done; \
    scripts/uv venv --quiet --python "$(command -v python3)" /opt/stacworker/venv; \
    scripts/uv pip install --quiet --python /opt/stacworker/venv/bin/python \
      --build-constraint requirements/build.txt --require-hashes "${locks[@]}"
COPY pyproject.toml README.md LICENSE ./
COPY stacworker stacworker
RUN scripts/uv build --quiet --wheel --out-dir dist --python /opt/stacworker/venv/bin/python \
      --build-constraint requirements/build.txt --require-hashes; \
    scripts/uv pip install --quiet --python /opt/stacworker/venv/bin/python --no-deps dist/*.whl; \
    mkdir /opt/stacworker/environments /pipelines

FROM ${PYTHON_IMAGE}
ARG VERSION=unversioned
ARG REVISION=unknown
LABEL org.opencontainers.image.title="stacworker" \
      org.opencontainers.image.description="The daemon that keeps STAC catalogues current: from SQS queues to items in pgstac" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/stacworker/venv /opt/stacworker/venv
COPY --from=build /pipelines /pipelines
# Written by `stacworker pipelines install` in images made from this one, read by whatever uid they run as.
COPY --from=build --chown=10001:0 /opt/stacworker/environments /opt/stacworker/environments
# Nothing below needs an entry in /etc/passwd or a home: any uid will do. What is written goes to /tmp.
ENV PATH=/opt/stacworker/venv/bin:$PATH \
    HOME=/tmp \
    TMPDIR=/tmp \
    PYTHONUNBUFFERED=1 \
    UV_NO_CACHE=1 \
    UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1 \
    STACWORKER_ENVIRONMENTS__FOLDER=/opt/stacworker/environments
# Where nothing else is mounted there, and for Fargate, which takes the rights of a mount from here.
VOLUME ["/tmp"]
WORKDIR /pipelines
USER 10001:0
EXPOSE 8080
STOPSIGNAL SIGTERM
# Whether it lives, not whether its dependencies do: nobody is helped by a restart while the database is away.
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s --retries=3 CMD ["stacworker", "healthcheck"]
ENTRYPOINT ["stacworker"]
CMD ["run"]
