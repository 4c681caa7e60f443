# The image of docs/kuberay.yaml, and of cluster.yaml where nodes are to start sooner: docker build -t REGISTRY/abstudy:0.2.0 .
FROM rayproject/ray:2.60.0-py311-gpu
COPY --chown=ray:users . /home/ray/abstudy
WORKDIR /home/ray
RUN python -m pip install --no-cache-dir --constraint abstudy/constraints.txt "./abstudy[timm,submit]"
RUN study --help > study.txt && python -c "import ray, timm, torch"
