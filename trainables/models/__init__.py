"""Networks: backbones, their weights, convolutions that are fast on a CPU."""
