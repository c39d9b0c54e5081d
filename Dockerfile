# streamseg on the CPU:            docker build -t streamseg .
# on an NVIDIA GPU:               docker build -t streamseg:gpu --target gpu .      (deploy/compose.gpu.yaml runs it)
#
#   docker run --rm -p 127.0.0.1:5555:5555 streamseg run synthetic://street --bind tcp://0.0.0.0:5555 --set publish.insecure=true
#
# Inside a container loopback reaches nobody, so the daemon must bind beyond it: keep the port on the host's loopback
# as above, or use CURVE (deploy/compose.yaml).

FROM debian:bookworm-slim AS wheel
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/streamseg
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY engines engines
COPY streamseg streamseg
RUN /opt/streamseg/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM wheel AS build
RUN /opt/streamseg/bin/pip install --no-cache-dir "$(ls /wheels/*.whl)[zstd]" \
    && /opt/streamseg/bin/pip uninstall --yes pip setuptools

# The CUDA libraries come with torch and TensorRT; the driver's, with those that decode, come from the host's container
# toolkit. So no CUDA base image is needed.
FROM wheel AS build-gpu
RUN /opt/streamseg/bin/pip install --no-cache-dir --extra-index-url https://pypi.nvidia.com \
        "$(ls /wheels/*.whl)[tensorrt,zstd]" \
    && /opt/streamseg/bin/pip uninstall --yes pip

FROM debian:bookworm-slim AS runtime
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --shell /usr/sbin/nologin --groups video --home-dir /var/lib/streamseg --create-home streamseg \
    && install --directory --owner streamseg /var/cache/streamseg
# Compiled engine plans go to /var/cache/streamseg; a volume there saves the compiling at every start.
ENV PATH=/opt/streamseg/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/var/cache \
    STREAMSEG_HEALTH_ENDPOINT=tcp://127.0.0.1:5555
USER streamseg
WORKDIR /var/lib/streamseg
EXPOSE 5555
STOPSIGNAL SIGTERM
# A heartbeat comes once a second for as long as the daemon lives, whatever its cameras do. With CURVE the check is one
# more client: give it the daemon's public key and a secret key file of its own, which authorised_keys lists.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s \
    CMD streamseg subscribe "$STREAMSEG_HEALTH_ENDPOINT" --kind heartbeat --count 1 --timeout 5 \
        ${STREAMSEG_HEALTH_SERVER_KEY:+--server-key "$STREAMSEG_HEALTH_SERVER_KEY" --key-file "$STREAMSEG_HEALTH_KEY_FILE"} \
        >/dev/null
ENTRYPOINT ["streamseg"]
CMD ["--help"]

FROM runtime AS gpu
# Triton compiles its kernels with a C compiler at first use.
USER root
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev python3-dev \
    && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
COPY --from=build-gpu /opt/streamseg /opt/streamseg
USER streamseg

FROM runtime
COPY --from=build /opt/streamseg /opt/streamseg
