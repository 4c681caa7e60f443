"""Settings of the recipe that exclude each other; without torch, because a spec is checked with it."""

# The gradients of a CUDA graph are overwritten by its next replay, before they are added up (torch 2.13).
ACCUMULATION_IN_GRAPHS = (
    'train.accumulate > 1 cannot be combined with train.compile = "cuda_graphs"; use "inductor" or "none", '
    "or a larger batch_size"
)
