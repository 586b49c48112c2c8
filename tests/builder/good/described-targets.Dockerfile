# dependencies shared by all
FROM debian:12 AS common
RUN true
# editor starts the editor
FROM common AS editor
RUN touch /editor
FROM common AS api
CMD ["api"]
FROM common AS jobs
CMD ["jobs"]
