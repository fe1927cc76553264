# The service, and the page for people under /app:  docker run --rm -p 127.0.0.1:8080:8080 -e STUDPERF_API_KEYS=... studperf
# The service alone, in a third of the memory:      docker run --rm -p 127.0.0.1:8080:8080 -e STUDPERF_API_KEYS=... studperf serve
# Its command line, on a folder:                    docker run --rm -v "$PWD:/work" studperf predict class.csv -o scored.csv
# It predicts with the model that ships with the package, or with one mounted at /work/artifacts/production.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY requirements/core.lock requirements/
RUN python -m venv /opt/studperf \
 && /opt/studperf/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/core.lock
COPY settings.ini setup.py pyproject.toml README.md LICENSE ./
COPY studperf studperf
RUN /opt/studperf/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
 && mkdir /data && chown 10001:10001 /data

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="studperf" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/studperf /opt/studperf
COPY --from=build --chown=10001:10001 /data /data
ENV PATH=/opt/studperf/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 STUDPERF_DATABASE=sqlite:////data/predictions.db HOST=0.0.0.0 PORT=8080
# The page's kernels write their connection files below HOME; where the file system is read-only, /tmp is to be a tmpfs (podman's is).
ENV HOME=/tmp
WORKDIR /work
USER 10001:10001
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '8080') + '/readyz', timeout=2)"]
ENTRYPOINT ["studperf"]
# Without keys in STUDPERF_API_KEYS it makes one for this run, and shows it once in its output.
CMD ["serve", "--new-key", "--ui"]
