# One image for every role: `tessera registry`, `tessera ticket`, `tessera user`. Builds with and without BuildKit.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package cli

FROM debian:bookworm-slim
# The folder exists with its owner before a volume is mounted there: a new volume takes both over.
RUN useradd --system --uid 10001 --user-group --no-create-home tessera \
 && install -d -o tessera -g tessera /var/lib/tessera
COPY --from=build /src/target/release/tessera /usr/local/bin/tessera
USER tessera
WORKDIR /var/lib/tessera
# A container that is reached from outside listens on 0.0.0.0, for which a service wants --tls-cert and --tls-key, a registry
# --tls-ca too or --tokens, and else --insecure. The image says none of them by itself: that is for whoever runs it to decide.
ENTRYPOINT ["tessera"]
CMD ["--help"]
