# syntax=docker/dockerfile:1
# One image for every role and for the operator's command:
#   docker build -t examwire . && docker run --rm examwire version
#   docker run … examwire run state-manager      (compose.yaml runs all of them)
# Nothing secret is in it: settings are variables (EXAMWIRE_…) or a file that is mounted (EXAMWIRE_CONFIG).

FROM python:3.11-slim-bookworm AS build
# The constraints hold for the build backend too.
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY protocol ./protocol
COPY actors ./actors
COPY cli ./cli
RUN python -m venv /opt/examwire \
    && /opt/examwire/bin/pip install '.[tracing]' \
    && chmod -R a+rX,go-w /opt/examwire

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /data --create-home --shell /usr/sbin/nologin examwire
COPY --from=build /opt/examwire /opt/examwire
ENV PATH=/opt/examwire/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    EXAMWIRE_DATA_DIR=/data \
    EXAMWIRE_SOCKET__HOST=0.0.0.0 \
    EXAMWIRE_SOCKET__PORT=9001 \
    EXAMWIRE_WEB__HOST=0.0.0.0 \
    EXAMWIRE_WEB__PORT=8080 \
    EXAMWIRE_METRICS__HOST=0.0.0.0 \
    EXAMWIRE_METRICS__PORT=9464
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080 9001 9464
# A role says on its metrics port whether its work goes on. python as process 1 obeys SIGTERM: the role drains.
HEALTHCHECK --interval=5s --timeout=4s --start-period=15m --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['EXAMWIRE_METRICS__PORT']), timeout=3); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["examwire"]
CMD ["--help"]
