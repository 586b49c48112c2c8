FROM node:20 AS builder
WORKDIR /repo
COPY services/api/package.json services/api/package-lock.json ./
RUN npm ci
COPY services/api ./
RUN npm run build
FROM node:20-slim
WORKDIR /app
COPY --from=builder /repo/dist ./dist
CMD ["node", "dist/main.js"]
