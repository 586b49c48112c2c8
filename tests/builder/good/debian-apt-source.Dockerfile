FROM debian:12
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl gnupg \
 && curl -fsSL https://example.com/key.gpg | gpg --dearmor -o /usr/share/keyrings/example.gpg \
 && rm -rf /var/lib/apt/lists/*
COPY example.list /etc/apt/sources.list.d/
RUN apt-get update && apt-get install -y example && rm -rf /var/lib/apt/lists/*
