FROM python:3.12-slim
WORKDIR /srv
COPY requirements.txt constraints.txt ./
RUN pip install --no-cache-dir -r requirements.txt -c constraints.txt
COPY . .
RUN python manage.py collectstatic --noinput
HEALTHCHECK --interval=30s CMD ["python", "manage.py", "check"]
CMD ["gunicorn", "site.wsgi"]
