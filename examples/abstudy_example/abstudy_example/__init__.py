"""A backbone, a source of images and a sampler of one's own, for abstudy."""
