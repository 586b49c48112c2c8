FROM fedora:40
RUN dnf install -y httpd && dnf clean all
COPY httpd.conf /etc/httpd/conf/httpd.conf
CMD ["httpd", "-DFOREGROUND"]
