# Starling's image, and two beside it:
#   runtime  the node: programs, engines' libraries, one short recording for `helm test`; no models, unless MODELS names some
#   fetch    the same with pip, by which `starling models fetch` gets models (the chart's init container)
#   models   models alone, to be mounted as an image volume; takes MODELS
# `cargo xtask image` builds them; `docker build --target runtime .` does too. buildah and podman need `--format docker` for HEALTHCHECK.

# Other images can stand in for these: a mirror's, or one's own.
ARG RUST_IMAGE=rust:1.95.0-bookworm
ARG DEBIAN_IMAGE=debian:bookworm-slim
# Where /out with the two programs is from: the stage below, or an image of what was built elsewhere.
ARG PROGRAMS=build

FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
# The names of functions stay, for backtraces; line tables would double the image.
ENV CARGO_PROFILE_DIST_STRIP=debuginfo
# What `starling --version` says; the repository itself is not in here.
ARG COMMIT=unknown
ARG COMMIT_SECONDS=0
RUN STARLING_BUILD_COMMIT="$COMMIT" SOURCE_DATE_EPOCH="$COMMIT_SECONDS" \
    cargo build --locked --profile dist --package starling --package starling-engine --bins --features starling/kubernetes \
    && mkdir /out \
    && cp target/dist/starling target/dist/starling-decoder /out/

FROM ${PROGRAMS} AS programs

FROM ${DEBIAN_IMAGE} AS fetch
# Debian's security updates come into these versions, so none is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3-pip \
    && rm -rf /var/lib/apt/lists/*
COPY --from=programs /out/ /usr/local/bin/
ENV STARLING_HOME=/var/lib/starling
# The catalogue holds versions and SHA-256 of the libraries: a fetch that gets anything else fails.
RUN starling models fetch vosk onnxruntime samples \
    && starling models verify vosk onnxruntime \
    && rm -rf /var/lib/starling/downloads /var/lib/starling/tmp /var/lib/starling/audio/two_cities.wav \
    && mkdir -p /var/lib/starling/models
USER 10001:10001
ENTRYPOINT ["starling"]

FROM fetch AS filled
USER 0:0
# Names of the catalogue with spaces between, such as "moonshine-tiny-en vosk-ko-small".
ARG MODELS=""
# Without quotes: each word is a name.
# hadolint ignore=SC2086
RUN if [ -n "$MODELS" ]; then starling models fetch $MODELS && starling models verify $MODELS; fi \
    && rm -rf /var/lib/starling/downloads /var/lib/starling/tmp
USER 10001:10001

FROM scratch AS models
COPY --from=filled /var/lib/starling/models/ /

FROM ${DEBIAN_IMAGE} AS runtime
COPY --from=programs /out/ /usr/local/bin/
COPY --from=filled /var/lib/starling/ /var/lib/starling/
ENV STARLING_HOME=/var/lib/starling
# Nothing is written but to /tmp, so the root file system can be read-only.
USER 10001:10001
# HTTP and the native protocol, vosk-server's; QUIC, gossip, data and control have ports of their own.
EXPOSE 8080/tcp 2700/tcp
HEALTHCHECK --interval=10s --timeout=3s --start-period=5m \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${STARLING_HEALTH_PORT:-8080} && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r -t 2 answer <&3 && [[ $answer == *' 200 '* ]]"]
ENTRYPOINT ["starling"]
CMD ["serve"]
