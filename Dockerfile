# Two stages: the first installs from the hashed locks and builds the project's wheel (lua/ and
# config.yaml are in it), the second holds the finished environment and nothing that builds. It runs
# as a plain user and needs no writable file outside /var/lib/quota-gateway (its volume) and /tmp:
#   docker run --read-only --tmpfs /tmp -v quota:/var/lib/quota-gateway -p 8790:8790 IMAGE

FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements/build.lock requirements/run.lock requirements/
RUN python -m venv --without-pip /opt/build \
    && python -m venv --without-pip /opt/quota-gateway \
    && python -m pip --python /opt/build/bin/python install --no-cache-dir --require-hashes \
        --only-binary :all: -r requirements/build.lock \
    && python -m pip --python /opt/quota-gateway/bin/python install --no-cache-dir \
        --require-hashes --only-binary :all: -r requirements/run.lock
COPY pyproject.toml README.md LICENSE config.yaml ./
COPY gateway/ gateway/
COPY lua/ lua/
RUN python -m pip --python /opt/build/bin/python wheel --no-deps --no-build-isolation \
        --wheel-dir /opt/wheel . \
    && python -m pip --python /opt/quota-gateway/bin/python install --no-cache-dir --no-deps \
        /opt/wheel/*.whl

FROM python:3.11-slim
# initdb asks for the name behind its uid, so the user is a real one. 10001 collides with none.
RUN useradd --uid 10001 --user-group --home-dir /var/lib/quota-gateway --create-home \
        --shell /usr/sbin/nologin quota
COPY --from=build /opt/quota-gateway /opt/quota-gateway
COPY config.yaml /etc/quota-gateway/config.yaml

# Inside a container, loopback reaches nobody. The admin port stays on it.
ENV QUOTA_PROXY_LISTEN=0.0.0.0:8790
ENV QUOTA_OPS_LISTEN=0.0.0.0:8791
ENV QUOTA_STATE_DIR=/var/lib/quota-gateway
ENV PYTHONDONTWRITEBYTECODE=1
ENV PYTHONUNBUFFERED=1

WORKDIR /etc/quota-gateway
USER 10001:10001
VOLUME /var/lib/quota-gateway
EXPOSE 8790 8791
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s CMD ["/opt/quota-gateway/bin/python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['QUOTA_OPS_LISTEN'].rpartition(':')[2]), timeout=2); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["/opt/quota-gateway/bin/quota-gateway"]
CMD ["serve"]
