FROM debian:bookworm-slim
ENV PG_MAJOR=16
ENV PG_VERSION=16.2-1.pgdg120+2
RUN set -ex; \
	apt-get update; \
	apt-get install -y --no-install-recommends "postgresql-$PG_MAJOR=$PG_VERSION"; \
	rm -rf /var/lib/apt/lists/*; \
	find /usr -name '*.pyc' -type f -exec bash -c 'for pyc; do rm "$pyc"; done' -- '{}' +
COPY docker-entrypoint.sh docker-ensure-initdb.sh /usr/local/bin/
STOPSIGNAL SIGINT
CMD ["postgres"]
