# The suite, ready to run:
#
#   docker build -t longtail-bench .
#   docker run --rm --gpus all -v "$PWD/data:/longtail/data" -v "$PWD/results:/longtail/results" longtail-bench run quick
#
# TORCH chooses the build of torch: "cuda" takes pip's usual one; "cpu" needs TORCH_INDEX, an index with CPU builds, and
# is a few GB smaller. REVISION is what records name as the code's (git rev-parse --short=10 HEAD), EXTRAS what is
# installed besides, as "wandb,hub". UID should be yours, so that what is written to mounted folders is yours.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG TORCH=cuda
ARG TORCH_INDEX=""
ARG EXTRAS=tensorboard
ARG UID=1000
ARG REVISION=""

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 \
    LONGTAIL_REVISION=${REVISION} LONGTAIL_DATA=/longtail/data HF_HOME=/longtail/data/.cache/huggingface

RUN useradd --create-home --uid ${UID} bench \
 && install -d -o bench /longtail /longtail/data /longtail/results /longtail/reports
WORKDIR /opt/longtail-bench

# What changes rarely first: torch alone is most of the image.
COPY constraints.txt ./
RUN if [ "${TORCH}" = cpu ]; then \
      : "${TORCH_INDEX:?TORCH=cpu needs TORCH_INDEX, an index with CPU builds of torch}"; \
      pip install -c constraints.txt --index-url "${TORCH_INDEX}" torch torchvision; \
    else \
      pip install -c constraints.txt torch torchvision; \
    fi

COPY . .
RUN pip install -c constraints.txt ".[${EXTRAS}]" && rm -rf build *.egg-info

USER bench
WORKDIR /longtail
ENTRYPOINT ["longtail-bench"]
CMD ["--help"]
