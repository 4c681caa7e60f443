"""Convolutions over 1x1 and 2x2 maps as matrix products, which a CPU computes several times faster.

The last maps of a ResNet have 1x1 pixels at an image size of 32 px, and 2x2 at 64 px. There a 3x3 convolution is a linear
layer from all input pixels to all output pixels, and most of its weights only meet padding. oneDNN (torch 2.13) spends as
much time on the gradient of those weights as on a large map. Forward and backward pass in bfloat16, batches of 128, two cores:
512 channels at 1x1 take 14.2 ms as a convolution and 1.5 ms as a product; at 2x2 33 ms and 13.5 ms.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

Window = tuple[slice, slice]


class FoldedConv2d(nn.Conv2d):
    """An `nn.Conv2d` of which a batch normalization has become part (`trainables.models.heads`)."""


class SmallMapConv2d(nn.Conv2d):
    """An `nn.Conv2d` that is computed as one matrix product if all output pixels see the same input pixels.

    Parameters, their names and results equal those of `nn.Conv2d` up to the order of additions. In bfloat16 weights that
    only meet padding get the gradient 0, which oneDNN leaves unwritten in a strided convolution over one pixel.

    The matrix is kept from batch to batch while the module evaluates without gradients.
    """

    _kept: tuple[tuple[object, ...], Tensor] | None = None

    def train(self, mode: bool = True) -> Self:
        """Set the mode; training forgets the kept matrix, since steps of a fused optimizer are not counted in versions."""
        self._kept = None if mode else self._kept
        return super().train(mode)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Conv2d's own name
        """Return (N, C_out, H', W') of (N, C_in, H, W)."""
        seen, windows = self._find_windows(input.shape[-2], input.shape[-1])
        if not windows:
            return super().forward(input)
        product: Tensor = self._multiply(input, seen, windows)
        return product

    # Inductor (torch 2.13) takes minutes and gigabytes to compile the copies.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _multiply(self, input: Tensor, seen: Window, windows: tuple[Window, ...]) -> Tensor:  # noqa: A002
        kind = input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.weight.dtype
        matrix = self._make_matrix(windows, dtype)
        pixels = input[..., seen[0], seen[1]].permute(0, 2, 3, 1).flatten(1)
        side = round(len(windows) ** 0.5)
        bias = None if self.bias is None else self.bias.to(dtype).repeat(len(windows))
        return functional.linear(pixels, matrix, bias).view(-1, side, side, self.out_channels).permute(0, 3, 1, 2)

    def _make_matrix(self, windows: tuple[Window, ...], dtype: torch.dtype) -> Tensor:
        if self.training or torch.is_grad_enabled():
            made: Tensor = _Unfolded.apply(self.weight, windows, dtype)  # type: ignore[no-untyped-call]
            return made
        # A version counts the changes of a tensor in place.
        key = (self.weight.data_ptr(), self.weight._version, windows, dtype)
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, _Unfolded.apply(self.weight, windows, dtype))  # type: ignore[no-untyped-call]
        return self._kept[1]

    def _find_windows(self, height: int, width: int) -> tuple[Window, tuple[Window, ...]]:
        """Return the input pixels that all output pixels see, and the taps of each output pixel, row by row.

        There are no taps if output pixels see different input pixels or the map is not square.
        """
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        size = (height + 2 * padding - kernel) // stride + 1
        nothing = (slice(0), slice(0)), ()
        if height != width or not 1 <= size <= 2 or padding >= kernel:
            return nothing
        starts = [number * stride - padding for number in range(size)]
        seen = {(max(0, start), min(height, start + kernel)) for start in starts}
        if len(seen) > 1:
            return nothing
        first, last = seen.pop()
        taps = [slice(first - start, last - start) for start in starts]
        return (slice(first, last), slice(first, last)), tuple((rows, columns) for rows in taps for columns in taps)


def use_small_map_convolutions(model: nn.Module) -> None:
    """Let the square, ungrouped convolutions of `model` compute as `SmallMapConv2d`, with the parameters that they have."""
    for _, module in model.named_modules():
        if type(module) in {nn.Conv2d, FoldedConv2d} and _is_plain(module):
            module.__class__ = SmallMapConv2d


def _is_plain(convolution: nn.Conv2d) -> bool:
    sizes = (convolution.kernel_size, convolution.stride, convolution.padding)
    is_square = all(not isinstance(values, str) and len(set(values)) == 1 for values in sizes)
    # Others with a bias stay as they are, so that trials of earlier studies are reproduced bit for bit.
    has_none = convolution.bias is None or isinstance(convolution, FoldedConv2d)
    is_dense = convolution.groups == 1 and set(convolution.dilation) == {1}
    return is_square and has_none and is_dense and convolution.padding_mode == "zeros"


class _Unfolded(torch.autograd.Function):
    """The weights between all input pixels and all output pixels, as one matrix."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, windows: tuple[Window, ...], dtype: torch.dtype) -> Tensor:
        """Return (P * C_out, H * W * C_in) in `dtype` from (C_out, C_in, k, k), for P windows of H x W taps."""
        ctx.save_for_backward(weight)
        ctx.windows = windows
        taps = weight.permute(0, 2, 3, 1)
        rows, columns = windows[0]
        shape = (len(windows), taps.shape[0], rows.stop - rows.start, columns.stop - columns.start, taps.shape[3])
        matrix = torch.empty(shape, dtype=dtype, device=weight.device)
        for number, (rows, columns) in enumerate(windows):
            matrix[number] = taps[:, rows, columns]
        ctx.shape = shape
        return matrix.flatten(2).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Add up the gradients of each window's taps; those that only met padding are 0."""
        (weight,) = ctx.saved_tensors
        total = torch.zeros_like(weight)  # keeps the memory layout
        taps = total.permute(0, 2, 3, 1)
        for (rows, columns), gradient in zip(ctx.windows, gradients[0].view(ctx.shape), strict=True):
            taps[:, rows, columns] += gradient
        return total, None, None
