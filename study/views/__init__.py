"""What a person looks at: status, live view, inspection, reproduction, export, TensorBoard, notebook."""
