# Both images, from source, under the names that the chart asks for:
#   docker build --target volt-node -t voltcluster/volt-node:0.1.0 .
#   docker build --target volt-operator -t voltcluster/volt-operator:0.1.0 .

FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
# The cache mounts keep the dependencies' objects from one build to the next; they are no part of an image.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --release --locked -p volt-node \
    && cargo build --release --locked -p volt-operator \
    && install -D -t /out target/release/volt-node target/release/volt-operator

FROM debian:bookworm-slim AS base
RUN groupadd --gid 10001 volt && useradd --uid 10001 --gid 10001 --home-dir /var/lib/volt --create-home volt
USER 10001:10001

FROM base AS volt-operator
COPY --from=build /out/volt-operator /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/volt-operator"]

FROM base AS volt-node
# Whom object stores are signed by, for archives.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/volt-node /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/volt-node"]
