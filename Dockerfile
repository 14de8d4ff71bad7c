# One image for every intentstream service: worker, monitor, simulator, topics. PyTorch without CUDA, not root.
#   docker build -t intentstream .
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/intentstream
ENV PATH=/opt/intentstream/bin:$PATH
WORKDIR /src
# The version is constraints.txt's; the index serves the same one without CUDA, which is 2 GB smaller.
COPY constraints.txt .
RUN pip install --no-deps --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml README.md ./
COPY intentstream intentstream
COPY stream stream
COPY learner learner
COPY state state
COPY monitor monitor
RUN pip install --constraint constraints.txt .

FROM python:3.11-slim-bookworm
# The folders are here so that a new volume on them belongs to this user.
RUN useradd --uid 10001 --no-create-home --home-dir /var/lib/intentstream intentstream \
    && mkdir -p /var/lib/intentstream/state /var/lib/intentstream/view /var/lib/intentstream/shop \
    && chown -R intentstream:intentstream /var/lib/intentstream
COPY --from=build /opt/intentstream /opt/intentstream
ENV PATH=/opt/intentstream/bin:$PATH PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp/matplotlib
USER 10001
WORKDIR /var/lib/intentstream
VOLUME ["/var/lib/intentstream/state", "/var/lib/intentstream/view", "/var/lib/intentstream/shop"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["intentstream"]
CMD ["--help"]
