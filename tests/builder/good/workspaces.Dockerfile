FROM node:20
WORKDIR /repo
COPY workspaces .
RUN npm ci
CMD ["npm", "start"]
