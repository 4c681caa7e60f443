"""Small images in pages: strips, thumbnails, and the pages and sections that show test images."""
