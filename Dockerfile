# The server as a container image:  docker build -t secureconnect .
# Everything it keeps is in its one volume; nothing else of it is written, so that the rest may be read-only.
# The interpreter is of the version that the tests run with.
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
COPY . /build
# The build brings what the web client encrypts with from npm, and holds it against the lock.
RUN pip wheel --no-deps --wheel-dir /wheels /build
RUN python -m venv --without-pip /opt/secureconnect \
 && pip --python /opt/secureconnect/bin/python install /wheels/*.whl

FROM ${PYTHON}
LABEL org.opencontainers.image.title="SecureConnect" \
      org.opencontainers.image.description="Self-hosted secure messaging, calls and files in one light process." \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 secureconnect \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/secureconnect \
            --shell /usr/sbin/nologin secureconnect \
 && install -d -m 0700 -o 10001 -g 10001 /var/lib/secureconnect
COPY --from=build /opt/secureconnect /opt/secureconnect
ENV PATH=/opt/secureconnect/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    SECURECONNECT_DATA_DIR=/var/lib/secureconnect \
    SECURECONNECT_GATEWAY__HOST=0.0.0.0 \
    SECURECONNECT_GATEWAY__PORT=8080 \
    SECURECONNECT_LOG__FORMAT=json
USER 10001:10001
WORKDIR /var/lib/secureconnect
VOLUME /var/lib/secureconnect
EXPOSE 8080
# drains; give it longer than gateway.drain_notice_s + gateway.drain_s + 5
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
  CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 8080, timeout=2); c.request('GET', '/readyz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["secureconnect"]
