"""Views of a study: status, live view, inspection, reproduction, export, TensorBoard, notebook."""
