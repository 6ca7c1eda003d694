FROM python:3.13-slim AS build
RUN python -m venv --without-pip /opt/venv
COPY requirements.txt ./
# Wheels only: nothing is compiled, and no package's own set-up code runs.
RUN pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --require-hashes --no-deps --only-binary :all: -r requirements.txt \
    && pip --python /opt/venv/bin/python check
COPY gateway /app/gateway
COPY static /app/static
# Its user may read it, even where it was cloned under a umask of 077.
RUN python -m compileall -q /app/gateway && chmod -R a+rX /app

FROM python:3.13-slim
LABEL org.opencontainers.image.title="ollama-sse-gateway" \
      org.opencontainers.image.description="Server-Sent Events gateway for Ollama" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    GATEWAY_HOST=0.0.0.0 \
    GATEWAY_PORT=8000
# Mount a directory here that holds gateway.toml, and the module of a hook if there is one.
WORKDIR /config
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --start-interval=1s \
    CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['GATEWAY_PORT']), timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "gateway"]
