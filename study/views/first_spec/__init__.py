"""`study init`: looks at a folder of images, and writes a spec that fits the images and the machine."""
