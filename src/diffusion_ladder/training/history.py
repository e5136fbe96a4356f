"""What a training leaves behind besides its model: the log, and samples drawn on the way."""

import math
from typing import Any

import torch
from torch import Tensor

from diffusion_ladder.params.training import Training
from diffusion_ladder.training.loop import Step

BINS = 8  # of timesteps, equally wide; the first holds those with the least noise
COLUMNS = ("step", "images", "loss", "gradient_norm", "learning_rate", *(f"loss_bin_{i}" for i in range(1, BINS + 1)))


def sums_by_bin(losses: Tensor, timesteps: Tensor, T: int) -> Tensor:
    """The losses (B,) added up in each bin of their timesteps (B,), then how many they are: (2 BINS,)."""
    bins = torch.arange(BINS, device=timesteps.device)[:, None]  # (BINS, 1)
    inside = timesteps * BINS // T == bins  # (BINS, B)
    return torch.cat([(inside * losses).sum(1), inside.sum(1)])


def likely_cause(step: int, loss: float) -> str:
    """Why a loss or a gradient is no finite number, and what to do."""
    if step == 1:
        return "the data or the first weights hold such a number: check data/processed and training.learning_rate"
    if math.isfinite(loss):
        return "the gradient overflows: lower training.learning_rate, or set runtime.precision to float32"
    return "the weights have run away: lower training.learning_rate or lengthen training.warmup_steps"


class History:
    """Grows with every step, without waiting for the device but where a row of the log is due.

    Attributes:
        rows: of the log, each the mean over the steps since the row before.
        preview_steps: after which samples were drawn.
        previews: those samples, (N, ...) each, in data units.
    """

    def __init__(self, settings: Training, T: int, device: torch.device) -> None:
        self.settings = settings
        self.T = T
        self.rows: list[str] = []
        self.preview_steps: list[int] = []
        self.previews: list[Tensor] = []
        self.window = torch.zeros(settings.log_every, 2 + 2 * BINS, device=device)  # steps of the row to come
        self.filled = 0
        self.rate = 0.0
        self.steps = 0

    def add(self, step: Step) -> None:
        """Take note of a step."""
        sums = sums_by_bin(step.losses, step.timesteps, self.T)
        self.window[self.filled] = torch.cat([torch.stack([step.loss, step.gradient_norm]), sums])
        self.filled, self.rate, self.steps = self.filled + 1, step.learning_rate, step.number

    @property
    def row_is_due(self) -> bool:
        """Whether a row of the log is complete."""
        return self.filled == self.settings.log_every or self.steps == self.settings.steps

    def failure(self) -> str | None:
        """The first step since the last row whose loss or gradient is no finite number, in words; None if all are."""
        values = self.window[: self.filled, :2].cpu()
        bad = (~values.isfinite().all(1)).nonzero().flatten().tolist()
        if not bad:
            return None
        step, (loss, norm) = self.steps - self.filled + bad[0] + 1, values[bad[0]].tolist()
        return f"step {step}: the loss is {loss:g}, the gradient's norm {norm:g}; likely {likely_cause(step, loss)}"

    def close_row(self) -> float:
        """Write the row that is due; its loss. A bin without an example is nan."""
        values = self.window[: self.filled].cpu().double()
        loss, norm = values[:, :2].mean(0).tolist()
        sums, counts = values[:, 2:].sum(0).split(BINS)
        numbers = [loss, norm, self.rate, *(sums / counts).tolist()]
        images = self.steps * self.settings.batch_size
        self.rows.append("\t".join([str(self.steps), str(images), *(f"{number:.6g}" for number in numbers)]))
        self.filled = 0
        return loss

    def log(self) -> str:
        """The log as tab-separated values under a header."""
        return "\n".join(["\t".join(COLUMNS), *self.rows]) + "\n"

    def final_loss(self) -> float:
        """The mean loss of the last tenth of the log."""
        losses = [float(row.split("\t")[COLUMNS.index("loss")]) for row in self.rows]
        last = losses[-max(1, len(losses) // 10) :]
        return sum(last) / len(last)

    def add_preview(self, samples: Tensor) -> None:
        """Keep samples drawn after the last step."""
        self.preview_steps.append(self.steps)
        self.previews.append(samples)

    def all_previews(self) -> dict[str, Tensor]:
        """Samples (P, N, ...) of all previews, and the steps (P,) after which they were drawn."""
        return {"samples": torch.stack(self.previews), "steps": torch.tensor(self.preview_steps)}

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds of it, with `facts`."""
        previews = {f"preview.{step}": samples for step, samples in zip(self.preview_steps, self.previews, strict=True)}
        return {"window": self.window[: self.filled], **previews}

    def facts(self) -> dict[str, Any]:
        """What a checkpoint holds of it, with `tensors`."""
        return {"rows": self.rows, "preview_steps": self.preview_steps, "rate": self.rate, "steps": self.steps}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Become what `tensors` and `facts` were taken from."""
        self.rows, self.preview_steps = facts["rows"], facts["preview_steps"]
        self.rate, self.steps = facts["rate"], facts["steps"]
        self.previews = [tensors[f"preview.{step}"] for step in self.preview_steps]
        self.filled = len(tensors["window"])
        self.window[: self.filled] = tensors["window"].to(self.window.device)
