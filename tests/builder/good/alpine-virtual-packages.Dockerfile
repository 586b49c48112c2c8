FROM alpine:3.19
RUN apk add --no-cache --virtual .build-deps gcc musl-dev make \
    && wget -O /tmp/src.tar.gz https://example.com/src.tar.gz \
    && tar -xzf /tmp/src.tar.gz -C /tmp \
    && make -C /tmp/src install \
    && apk del .build-deps
COPY docker-entrypoint.sh /usr/local/bin/
ENTRYPOINT ["docker-entrypoint.sh"]
