"""The network of rung 0: the ideal denoiser of a finite data set, which has nothing to learn.

It minimises the training loss over these examples, whatever the network that is trained: see diffusion/exact.py.
"""

import torch
from torch import Tensor, nn

from diffusion_ladder.diffusion.exact import data_set_x0, prediction_of
from diffusion_ladder.diffusion.schedules import NoiseSchedule


class IdealDenoiser(nn.Module):
    """Predicts as well as can be: (B, ...), (B,) timesteps [, (B,) labels] to (B, ...), like every other network.

    Args:
        data: (N, ...) normalised: all that it knows, and what it has in the place of weights.
        labels: (N,) int64 classes of the data.
        schedule: the forward process.
        prediction_type: what it predicts: epsilon | v_prediction | sample.
    """

    def __init__(self, data: Tensor, labels: Tensor, schedule: NoiseSchedule, prediction_type: str) -> None:
        super().__init__()
        self.data = nn.Parameter(data, requires_grad=False)
        self.register_buffer("labels", labels)
        self.schedule = schedule
        self.prediction_type = prediction_type

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Predict the target of a noisy sample: of its class among the data, or of all of them.

        Args:
            sample: (B, ...) noisy samples x_t, normalised.
            timestep: (B,) integers in [0, T).
            class_labels: (B,) int64, each the label of some of the data; None for all data.
        """
        prediction = torch.empty_like(sample)
        for t in timestep.unique().tolist():
            for label in [None] if class_labels is None else class_labels.unique().tolist():
                asked = timestep == t if class_labels is None else (timestep == t) & (class_labels == label)
                if asked.any():
                    prediction[asked] = self.predict(sample[asked], int(t), label)
        return prediction

    def predict(self, x_t: Tensor, t: int, label: int | None) -> Tensor:
        """The same for samples (B, ...) of one timestep and one class."""
        alpha_bar = self.schedule.alpha_bar[t].item()
        known = self.data if label is None else self.data[self.labels == label]  # (n, ...)
        return prediction_of(self.prediction_type, data_set_x0(x_t, alpha_bar, known), x_t, alpha_bar)
