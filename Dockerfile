# The image of kf-worker and wechat-simulator: built in one stage, run from another that holds little more than the C library.

# A mirror, or a digest instead of a tag, is named by --build-arg. Both stages are Debian 12, since the programs need at run time
# the C library that they were linked with; Rust is at least the `rust-version` of Cargo.toml.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-slim-bookworm
ARG RUN_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /build
# The dependencies by themselves, with programs that do nothing: this layer stays until Cargo.toml or Cargo.lock changes. What was
# made of the placeholders is removed, since a source file older than it would be taken for compiled already.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
RUN mkdir -p src/bin \
    && touch src/lib.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cp src/main.rs src/bin/wechat-simulator.rs \
    && cargo build --locked --release --bins \
    && cargo clean --frozen --release --package kf-worker \
    && rm -r src
COPY src src
# Two texts that the program holds.
COPY deploy/kf-worker.toml deploy/kf-worker.toml
COPY docs/reasons.md docs/reasons.md
# Without the network: everything that is compiled is in the layer above.
RUN cargo build --frozen --release --bins \
    && mkdir -p /image/programs /image/state/kf-worker \
    && cp target/release/kf-worker target/release/wechat-simulator /image/programs/

FROM ${RUN_IMAGE}
COPY --from=build /image/programs/ /usr/local/bin/
COPY LICENSE /usr/share/doc/kf-worker/LICENSE
# The only place that is written to, and only where the ledger is a file. A new volume takes over its owner.
COPY --from=build --chown=65532:65532 /image/state/ /var/lib/
# By number, so that Kubernetes can see that it isn't root.
USER 65532:65532
# No key is set by ENV, since the environment goes before a configuration file that is mounted later. The ledger's default place is
# relative, and so this is where it lies.
WORKDIR /var/lib/kf-worker
VOLUME ["/var/lib/kf-worker"]
# Documentation: as everywhere, the admin port listens on 127.0.0.1 until `admin.listen` says otherwise, since it has no login.
EXPOSE 9464
STOPSIGNAL SIGTERM
# It reads the same configuration as the worker, from KF_CONFIG and the environment, and asks /readyz for at most 5 s.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD ["kf-worker", "healthcheck"]
ENTRYPOINT ["kf-worker"]
CMD ["run"]
# Last, since they differ with every commit.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kf-worker" \
    org.opencontainers.image.description="Adds and deletes WeChat customer-service accounts on command from RabbitMQ" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
