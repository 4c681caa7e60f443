"""What images show before anything is trained: duplicates, odd images, and what frozen features, colors and small sizes tell."""
