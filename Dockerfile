# Web, worker and poller in one container, with the record in the volume /data: docs/deploy.md.
FROM python:3.13-slim

WORKDIR /app
COPY requirements.txt ./
RUN pip install --no-cache-dir --require-hashes -r requirements.txt
COPY wsgi.py gunicorn.conf.py ./
COPY receiver receiver
COPY submitter submitter
COPY sandbox sandbox

# The code belongs to root, so the processes can change only /data.
RUN useradd --uid 10001 --create-home receiver && install -d -o receiver -g receiver -m 750 /data
USER 10001
VOLUME /data

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DATABASE_URL=sqlite:////data/receiver.db \
    HOOKS_FILE=/data/hooks.toml \
    PORT=8000
EXPOSE 8000

# Checks liveness, not readiness: a restart does not help if the disk is full.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s \
  CMD python -c "import os, urllib.request as r; r.urlopen('http://127.0.0.1:%s/healthz' % os.environ['PORT'], timeout=8)"

CMD ["sh", "-c", "python -m receiver migrate --wait && exec python -m receiver serve"]
