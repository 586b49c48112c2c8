FROM python:3.12 AS compile
RUN python -m venv /opt/venv
ENV PATH="/opt/venv/bin:/usr/local/bin:/usr/bin:/bin"
COPY requirements.txt .
RUN pip install -r requirements.txt
COPY pyproject.toml setup.cfg ./
COPY src ./src
RUN pip install .
FROM python:3.12-slim
COPY --from=compile /opt/venv /opt/venv
ENV PATH="/opt/venv/bin:/usr/local/bin:/usr/bin:/bin"
ENTRYPOINT ["app"]
