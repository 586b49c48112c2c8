ARG VERSION=1.0
ARG REGISTRY=docker.io
FROM ${REGISTRY}/library/debian:12
ARG VERSION
LABEL org.opencontainers.image.version=$VERSION
RUN echo "$VERSION" > /version
