"""A backbone, a source of images, a sampler and a training loop of one's own, for abstudy."""
