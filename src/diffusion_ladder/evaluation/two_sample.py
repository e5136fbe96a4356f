"""The classifier two-sample test of images: can a network that is trained for it tell samples from held-out images?

Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests" (arXiv 1610.06545). Whatever differs between two sets
can be learnt, be it content, colour or grain; so no choice of features stands between the images and this number. It
is the accuracy on images that the network hasn't seen: a half where the sets have one distribution.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from diffusion_ladder.evaluation.classifier import draw_weights, shuffled_batches
from diffusion_ladder.params.evaluation import TwoSampleTest


class Discriminator(nn.Module):
    """Convolutions of stride 2 with batch norm, the mean over all places, and one logit: positive for the second set.

    The first convolution looks at every pixel as it is, and the mean keeps what happens everywhere a little, as grain
    does, from being lost beside what happens in one place.
    """

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        """Build the network for images of so many channels."""
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((in_channels, *channels), channels, strict=False):
            convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Linear(channels[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B,)."""
        return self.head(self.convolutions(images).mean(dim=(-2, -1)))[:, 0]


def two_sample_accuracy(
    first: Tensor, second: Tensor, how: TwoSampleTest, draws: Generator, device: torch.device | None = None
) -> float:
    """How often a network can tell which of two sets an image is from.

    Cross-fitting: each set is halved at random; a network trained on the one half of both judges the other, and the
    other way round. So every image counts once, and none was learnt from by the network that judges it.

    Images are not augmented: a mirrored checkerboard is another one, and a difference that is hidden is not found.

    Args:
        first, second: (N, C, H, W) uint8 of the same N.
        draws: gives the halves, the weights and the order of training.
    """
    images = standardised(torch.cat([first, second])).to(device or first.device)
    of_second = (torch.arange(len(images)) >= len(first)).to(images.device)
    halves = [torch.randperm(len(values), generator=draws).chunk(2) for values in (first, second)]
    folds = [torch.cat([own, len(first) + other]) for own, other in zip(*halves, strict=True)]
    right = 0
    for train, test in (folds, folds[::-1]):
        network = discriminator(images[train], of_second[train], how, draws)
        right += sum(int(((network(images[part]) > 0) == of_second[part]).sum()) for part in test.split(256))
    return right / len(images)


def standardised(images: Tensor) -> Tensor:
    """Images (N, C, H, W) uint8 with mean 0 and variance 1 in each channel, over all images and places."""
    std, mean = torch.std_mean(images.double(), dim=(0, 2, 3), keepdim=True)
    return ((images - mean) / std.clamp(min=1)).float()  # a channel that never varies stays 0


def discriminator(images: Tensor, of_second: Tensor, how: TwoSampleTest, draws: Generator) -> Discriminator:
    """A network trained to tell the sets of images (N, C, H, W) apart; of_second: (N,) booleans."""
    with torch.random.fork_rng(devices=[]):  # the constructors draw weights, which are replaced
        network = Discriminator(images.shape[1], how.channels)
    draw_weights(network, draws)
    network.to(images.device)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=how.weight_decay, fused=True)
    batches = shuffled_batches(len(images), how.batch_size, draws)
    for step in range(how.steps):
        for group in optimiser.param_groups:
            group["lr"] = how.learning_rate * 0.5 * (1 + math.cos(math.pi * step / how.steps))
        index = next(batches).to(images.device)
        loss = nn.functional.binary_cross_entropy_with_logits(network(images[index]), of_second[index].float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval().requires_grad_(False)
