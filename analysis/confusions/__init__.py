"""Which classes are confused: matrix, rates, clusters, label issues, scores of classes."""
