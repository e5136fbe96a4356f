"""A trained model outside of the pipeline: `diffusion_ladder.load("models/mnist_scratch")`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_ladder.data.normalise import unnormalise
from diffusion_ladder.diffusion.schedules import NoiseSchedule
from diffusion_ladder.forward_process import forward_process
from diffusion_ladder.foundation.artifacts import read_json
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.section import validated
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.rungs import CARD, Rung, load_rung
from diffusion_ladder.sampling.between import finished
from diffusion_ladder.sampling.guidance import guided
from diffusion_ladder.sampling.loop import noise_of

UNUSED = {  # of a rung's settings: what the pipeline keeps and compares
    **{"seeds": 2, "count": 1, "comparison_steps": "all", "comparison_count": 1},
    **{"trajectory_count": 1, "trajectory_frames": 2},
}


@dataclass(frozen=True)
class Model:
    """A trained model and all that sampling needs.

    Attributes:
        rung: its network, schedule, sample shape and normalisation.
        class_names: of class 0, 1, ...; empty for an unconditional model.
    """

    rung: Rung
    class_names: tuple[str, ...]

    @property
    def network(self) -> nn.Module:
        """Called as `network(x_t, timestep, class_labels)`: (B, ...) noisy samples, (B,), (B,) or None to (B, ...)."""
        return self.rung.network

    @property
    def schedule(self) -> NoiseSchedule:
        """The forward process: alpha_bar (T,) and what follows from it, and `add_noise`."""
        return forward_process(self.rung.schedule)

    def to(self, device: str | torch.device) -> "Model":
        """The same model with its network on a device."""
        return replace(self, rung=replace(self.rung, network=self.rung.network.to(device)))

    def label_of(self, name: int | str) -> int:
        """The number of a class, given by name or number.

        Raises:
            UserError: there is no such class.
        """
        if name in self.class_names:
            return self.class_names.index(str(name))
        if isinstance(name, int) and 0 <= name < len(self.class_names):
            return name
        if not self.class_names:
            raise UserError(f"{self.rung.model} is told no class: leave {name} out")
        raise UserError(f"{self.rung.model} has no class {name!r}, but {', '.join(self.class_names)}")

    def sample(
        self,
        class_labels: Sequence[int | str] | None = None,
        count: int = 8,
        seed: int = 0,
        sampler: str = "dpm_solver",
        num_inference_steps: int = 20,
        guidance_scale: float = 1.0,
        **settings: Any,
    ) -> Tensor:
        """Draw samples.

        Args:
            class_labels: names or numbers of the classes, one a sample; None for an unconditional model.
            count: samples of an unconditional model.
            seed: the noise; samples of one class have different noise, the first of each class has the same.
            sampler: ddpm, ddim, dpm_solver or heun, or one of diffusers' own with diffusers_ before it.
            num_inference_steps: of the sampler.
            guidance_scale: of classifier-free guidance; 1 is the conditional model alone.
            settings: of `sampling` in params.yaml, such as eta, clip_sample, spacing or guidance_interval.

        Returns:
            (N, C, H, W) uint8 images, or (N, 2) float32 points in data units, on the CPU.

        Raises:
            UserError: a class or a setting that there isn't.
        """
        asked = {"sampler": sampler, "steps": num_inference_steps, "guidance_scale": guidance_scale}
        chosen = {"spacing": "trailing", "variance_type": "fixed_small", "batch_size": 64} | settings | asked
        if (class_labels is None) == bool(self.class_names):
            need = "class_labels are needed: one a sample" if self.class_names else "class_labels must be left out"
            raise UserError(f"{self.rung.model}: {need}")
        labels = None if class_labels is None else torch.tensor([self.label_of(name) for name in class_labels])
        drawn = validated(Sampling, UNUSED | chosen, "sampling", "sample")
        return self.draw(drawn, labels, places_of(labels, count), seed=seed)

    @torch.no_grad()
    def draw(
        self,
        settings: Sampling,
        labels: Tensor | None,
        numbers: Tensor,
        seed: int,
        root_seed: int = 0,
        precision: torch.dtype = torch.float32,
        progress: Any = None,
    ) -> Tensor:
        """Samples by settings as those of a rung: with its root seed and sampling seed, those of data/samples.

        Args:
            labels: (N,) classes, or None.
            numbers: (N,) which noise of the seed each starts from: in data/samples, its place within its class.
            seed: the sampling seed.
            root_seed: `seed` in params.yaml.
            precision: of matrix products.
            progress: called after every step with the number of samples.
        """
        if settings.guidance_scale != 1 and self.rung.null_label is None:
            raise UserError(f"{self.rung.model} was trained without a null label: guidance_scale can only be 1")
        parts = []
        for part in torch.arange(len(numbers)).split(settings.batch_size):
            x_T, generators = noise_of(self.rung, numbers[part], torch.full_like(part, seed), root_seed)
            predict = guided(self.rung, None if labels is None else labels[part].to(x_T.device), settings, precision)
            parts.append(finished(self.rung, settings, predict, x_T, generators, progress))
        return unnormalise(torch.cat(parts), self.rung.normalisation).cpu()


def places_of(labels: Tensor | None, count: int) -> Tensor:
    """(N,) how many samples of the same class stand before each; without classes, of all `count`."""
    if labels is None:
        return torch.arange(count)
    same = (labels[:, None] == labels[None, :]).tril(-1)  # (N, N)
    return same.sum(dim=1)


def load(folder: str | Path) -> Model:
    """The model that a training saved to a folder, such as models/mnist_scratch.

    Raises:
        UserError: there is none.
    """
    if not (Path(folder) / CARD).is_file():
        raise UserError(f"{folder} holds no trained model: {CARD} is missing there")
    rung = load_rung(folder)
    names = read_json(Path(folder) / CARD).get("class_names", [])
    return Model(rung, tuple(names) if rung.num_classes else ())
