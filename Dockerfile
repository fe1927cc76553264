# The command line in a small image: docker run --rm -v "$PWD:/work" studperf predict class.csv -o scored.csv
# It predicts with the model that ships with the package, or with one mounted at /work/artifacts/production.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY requirements/core.lock requirements/
RUN python -m venv /opt/studperf \
 && /opt/studperf/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/core.lock
COPY settings.ini setup.py pyproject.toml README.md LICENSE ./
COPY studperf studperf
RUN /opt/studperf/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="studperf" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/studperf /opt/studperf
ENV PATH=/opt/studperf/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /work
USER 10001:10001
ENTRYPOINT ["studperf"]
CMD ["--help"]
