# syntax=docker/dockerfile:1
FROM debian:12
RUN <<EOT
set -eu
apt-get update
apt-get install -y --no-install-recommends git
rm -rf /var/lib/apt/lists/*
EOT
COPY <<EOT /etc/motd
Hello
EOT
