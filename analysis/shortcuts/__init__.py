"""What a model relies on beside the object: audits that swap rings, frequencies and colors between images."""
