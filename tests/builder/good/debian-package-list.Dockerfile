FROM debian:12-slim
COPY packages.txt /tmp/packages.txt
RUN apt-get update && xargs apt-get install -y < /tmp/packages.txt && rm -rf /var/lib/apt/lists/*
