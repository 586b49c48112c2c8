FROM python:3.12-slim
WORKDIR /app
COPY requirements.txt ./
RUN set -eux; \
    apt-get update; \
    apt-get install -y --no-install-recommends gcc libpq-dev; \
    pip install --no-cache-dir -r requirements.txt; \
    apt-get purge -y --auto-remove gcc; \
    rm -rf /var/lib/apt/lists/*
COPY app ./app
CMD ["python", "-m", "app"]
