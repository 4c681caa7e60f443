"""Views of a study: status, live view, inspection, replay, reproduction, export, TensorBoard, notebook."""
