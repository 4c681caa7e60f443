"""A backbone, a source of images, a sampler and a custom training loop, for abstudy."""
