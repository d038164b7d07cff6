# OpenClaw in a container. From the repository's root: docker build -t openclaw-proxy .
#
#   /etc/openclaw      openclaw.yaml, and policies/ beside it: mount yours here, read-only
#   /var/lib/openclaw  what outlives a restart (the ledger): a volume
#   /var/log/openclaw  for logging.output: file; by default the log goes to stdout
#
# It runs as user 10001 with a read-only root. Nothing but Debian's packages is fetched.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
WORKDIR /src
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends make
COPY Makefile VERSION ./
COPY deploy/*.mk deploy/
RUN make deps
COPY core core
COPY lua lua
COPY policies policies
COPY config config
COPY deploy deploy
RUN make build && make install DESTDIR=/out PREFIX=/usr

FROM ${BASE}
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends libuv1 libluajit-5.1-2 libyaml-0-2 libhiredis0.14 libpcre2-8-0 libsqlite3-0 \
      libmbedtls14 libmbedx509-1 libmbedcrypto7 lua-cjson ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* /usr/share/doc/* /usr/share/man/* \
 && groupadd -g 10001 openclaw && useradd -u 10001 -g openclaw -d /var/lib/openclaw -s /usr/sbin/nologin -M openclaw \
 && mkdir -p /etc/openclaw/policies /app/policies \
 && install -d -o openclaw -g openclaw /var/lib/openclaw /var/log/openclaw \
 && ln -s /usr/bin/openclaw-proxy /app/openclaw-proxy
COPY --from=build /out/usr/bin/openclaw-proxy /usr/bin/openclaw-proxy
# What runs when nothing is mounted: the mock, for whoever reaches the published port. The admin port stays inside.
COPY --from=build /out/etc/openclaw/openclaw.yaml /etc/openclaw/openclaw.yaml
RUN sed -i 's/^  listen_address: "127.0.0.1".*/  listen_address: "0.0.0.0"/' /etc/openclaw/openclaw.yaml \
 && openclaw-proxy -config /etc/openclaw/openclaw.yaml -check

USER 10001:10001
WORKDIR /app
ENV STATE_DIRECTORY=/var/lib/openclaw
VOLUME /var/lib/openclaw
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=10s --retries=3 \
  CMD ["openclaw-proxy", "-config", "/etc/openclaw/openclaw.yaml", "-health"]
CMD ["openclaw-proxy", "-config", "/etc/openclaw/openclaw.yaml"]
