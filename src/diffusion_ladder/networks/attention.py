"""Multi-head self-attention with as few copies as there can be."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def attend(pixels: Tensor, projections: Sequence[nn.Linear], heads: int) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V (arXiv 1706.03762, eq. 1), with Q, K and V projected by one matrix product.

    Args:
        pixels: (B, N, C).
        projections: to queries, keys and values, C to C each.
        heads: a divisor of C.

    Returns:
        (B, N, C), the heads side by side.
    """
    weight = torch.cat([projection.weight for projection in projections])  # (3C, C)
    bias = torch.cat([projection.bias for projection in projections])
    projected = nn.functional.linear(pixels, weight, bias).unflatten(2, (3, heads, -1))  # (B, N, 3, heads, d)
    query, key, value = projected.permute(2, 0, 3, 1, 4)  # (B, heads, N, d) each
    if pixels.device.type == "cpu" and query.dtype == torch.bfloat16:
        # PyTorch's fused attention is slow backwards here, and its plain one searches for rows that are masked.
        weights = torch.softmax(query @ key.transpose(2, 3) * query.shape[3] ** -0.5, dim=3)
        attended = weights @ value
    else:
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
    return attended.transpose(1, 2).flatten(2)
