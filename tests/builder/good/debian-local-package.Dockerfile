FROM debian:12-slim
COPY app_1.0_amd64.deb /tmp/
RUN apt-get update && apt-get install -y /tmp/app_1.0_amd64.deb && rm -rf /var/lib/apt/lists/* /tmp/*.deb
CMD ["app"]
