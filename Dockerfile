# The MONAI Label server with this app. Linted, never run: no Docker was at hand where it was written.
FROM python:3.11-slim

# For builds without CUDA give the address of PyTorch's index of CPU packages; the versions stay those of constraints.txt.
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 SAM2_BUILD_CUDA=0

RUN useradd --create-home annotator && install --directory --owner=annotator /data
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY fewshot/__init__.py fewshot/
# The dependencies in a layer of their own: a change of the code installs none of them again.
RUN pip install --constraint constraints.txt torch \
    && pip install --constraint constraints.txt --editable '.[server]'
COPY fewshot fewshot
COPY lib lib
# MONAI Label makes folders beside the app.
COPY --chown=annotator apps apps

USER annotator
# What grows: the feature bank, adapters and label names, copies of images.
ENV FEWSHOT_BANK=/data/bank \
    MONAI_LABEL_DICOMWEB_CACHE_PATH=/data/dicom \
    MONAI_LABEL_SESSION_PATH=/data/sessions
VOLUME /data
EXPOSE 8000
# 0.0.0.0 is the container; who reaches it is decided where the port is published.
ENTRYPOINT ["fewshot", "serve", "--host", "0.0.0.0", "--conf", "workspace=/data/workspace"]
