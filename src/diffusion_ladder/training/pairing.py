"""Which noise goes with which example of a batch."""

import torch
from torch import Tensor


def transported(x0: Tensor, noise: Tensor) -> Tensor:
    """The noise (B, ...) in the order that brings it closest to x0 (B, ...): the least sum of squared distances.

    Minibatch optimal transport (Tong et al., arXiv 2302.00482, section 3.2.2). Noise and data keep their distributions
    but are no longer independent, so that q(x_t | x_0) is no Gaussian: what is then learnt, E[epsilon | x_t], is no
    score, and DDPM's posterior (eq. 7) does not hold. It still gives the velocity of a flow from noise to data, with
    straighter paths, which samplers that add no noise follow.
    """
    from scipy.optimize import linear_sum_assignment  # here, because only this option needs SciPy

    cost = torch.cdist(x0.flatten(1).double(), noise.flatten(1).double()).square()  # (B, B)
    _, order = linear_sum_assignment(cost.numpy())
    return noise[torch.from_numpy(order)]
