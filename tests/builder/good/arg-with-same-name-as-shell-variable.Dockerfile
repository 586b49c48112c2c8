ARG VERSION=1.0
FROM debian:12
RUN VERSION=$(cat /etc/debian_version) && echo "$VERSION" && for name in a b; do echo $name; done
