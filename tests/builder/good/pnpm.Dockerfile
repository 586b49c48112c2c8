FROM node:20-slim AS base
ENV PNPM_HOME="/pnpm"
ENV PATH="$PNPM_HOME:/usr/local/bin:/usr/bin:/bin"
RUN corepack enable
WORKDIR /app
FROM base AS build
COPY pnpm-lock.yaml ./
RUN --mount=type=cache,id=pnpm,target=/pnpm/store pnpm fetch
COPY . .
RUN --mount=type=cache,id=pnpm,target=/pnpm/store pnpm install --offline --frozen-lockfile
RUN pnpm run build
FROM base
COPY --from=build /app/dist /app/dist
CMD ["node", "/app/dist/index.js"]
