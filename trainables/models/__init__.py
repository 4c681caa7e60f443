"""Backbones, pretrained weights, and convolutions that are fast on a CPU."""
