ARG GO_VERSION=1.22
FROM golang:${GO_VERSION} AS base
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
FROM base AS lint
RUN go vet ./...
FROM base AS test
RUN go test ./...
FROM base AS build
ARG VERSION=dev
RUN go build -ldflags "-X main.version=$VERSION" -o /app .
FROM scratch AS binaries
COPY --from=build /app /
FROM debian:12-slim
COPY --from=build /app /usr/bin/app
CMD ["app"]
