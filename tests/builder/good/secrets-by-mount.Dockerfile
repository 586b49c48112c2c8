FROM node:20
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN --mount=type=secret,id=npm,env=NPM_TOKEN npm ci
COPY . .
CMD ["node", "index.js"]
