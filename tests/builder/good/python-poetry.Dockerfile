FROM python:3.11 AS base
ENV POETRY_VIRTUALENVS_CREATE=false
RUN pip install --no-cache-dir poetry==1.8.2
WORKDIR /code
COPY pyproject.toml poetry.lock ./
RUN poetry install --no-root --only main
COPY . .
RUN poetry install --only-root
CMD ["uvicorn", "main:app", "--host", "0.0.0.0"]
