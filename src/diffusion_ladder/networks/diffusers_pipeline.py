"""A pipeline of diffusers for networks that are told a class, that work on folded pixels, or both.

This file travels with the model, as pipeline.py in its folder. It needs torch and diffusers, and nothing else:

    pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    pipe(class_labels=[0, 1], guidance_scale=2.0, num_inference_steps=40).images
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, SchedulerMixin, UNet2DModel
from diffusers.utils.torch_utils import randn_tensor
from torch import Generator, Tensor
from torch.nn.functional import conv2d, pixel_shuffle, pixel_unshuffle


class LadderPipeline(DiffusionPipeline):
    """Draws images from noise, by the scheduler that it holds; any of diffusers' schedulers may take its place.

    Args:
        unet: the network, on folded images; the row of its class embedding after those of the classes means none.
        scheduler: the sampler.
        patch_size: side of the squares of pixels that are channels inside the network; 1 for none.
        folding: "haar" where these channels are Haar coefficients, None where they are the pixels themselves.
        id2label: names of the classes by number, or None for a network that is told none.
    """

    model_cpu_offload_seq = "unet"

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        patch_size: int = 1,
        folding: str | None = None,
        id2label: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(patch_size=patch_size, folding=folding, id2label=id2label)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: Sequence[int | str] | None = None,
        batch_size: int = 1,
        guidance_scale: float = 1.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        num_inference_steps: int = 50,
        eta: float = 0.0,
        generator: Generator | list[Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Draw images.

        Args:
            class_labels: numbers or names of the classes, one an image; None for images without a class.
            batch_size: images without a class.
            guidance_scale: w of classifier-free guidance, null + w (conditional - null) (arXiv 2207.12598, eq. 6 with
                w = 1 + theirs): 1 is the conditional prediction alone, 0 the one without a class.
            guidance_interval: of t / T in which guidance acts, its end left out (arXiv 2404.07724).
            num_inference_steps: of the scheduler.
            eta: noise of DDIM: 0 deterministic, 1 as much as DDPM's; of no meaning to other schedulers.
            generator: for all noise; or a list, one an image, so that an image doesn't depend on its batch.
            latents: (B, C, H, W) standard normal noise to start from, drawn if None.
            output_type: "pil", "np" for (B, H, W, C) or "pt" for (B, C, H, W), both in [0, 1].
            return_dict: whether images come as `.images`, or as a tuple of one.
        """
        labels = self.labels_of(class_labels)  # (B,)
        count = batch_size if labels is None else len(labels)
        null = self.null_labels(count)  # (B,)
        if self.class_names and null is None and (labels is None or guidance_scale != 1):
            raise ValueError("this network knows no null label: give class_labels, and guidance_scale=1")
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        x = self.noise(count, generator, latents) * self.scheduler.init_noise_sigma  # (B, C, H, W)
        options = self.step_options(generator, eta)
        first, end = guidance_interval
        for t in self.progress_bar(self.scheduler.timesteps):
            x_t = self.scheduler.scale_model_input(x, t)
            inside = first <= float(t) / self.scheduler.config.num_train_timesteps < end
            prediction = self.guided(x_t, t, labels, null, guidance_scale if inside else 1.0)
            x = self.scheduler.step(prediction, t, x, **options).prev_sample
        self.maybe_free_model_hooks()
        images = (x / 2 + 0.5).clamp(0, 1)  # the network's [-1, 1] to [0, 1]
        if output_type != "pt":
            images = images.float().cpu().permute(0, 2, 3, 1).numpy()  # (B, H, W, C)
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    @property
    def class_names(self) -> list[str]:
        """Of class 0, 1, ...; none for a network that is told none."""
        names = self.config.id2label or {}
        return [names[number] for number in sorted(names, key=int)]

    def guided(self, x_t: Tensor, t: Tensor, labels: Tensor | None, null: Tensor | None, scale: float) -> Tensor:
        """The prediction (B, C, H, W) at x_t and t: of one evaluation where one will do, else of two."""
        if labels is None or scale == 0:
            return self.predict(x_t, t, null)
        conditional = self.predict(x_t, t, labels)
        if scale == 1:
            return conditional
        without = self.predict(x_t, t, null)
        return without + scale * (conditional - without)

    def predict(self, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """The network's prediction for images (B, C, H, W): folded before it, unfolded after it."""
        folded = self.fold(x_t)  # (B, C p^2, H/p, W/p)
        return self.unfold(self.unet(folded, t, class_labels=labels).sample)

    def fold(self, images: Tensor) -> Tensor:
        """Squares of pixels become channels: (B, C, H, W) to (B, C p^2, H/p, W/p)."""
        squares = pixel_unshuffle(images, self.config.patch_size)
        return conv2d(squares, self.haar(squares)) if self.config.folding == "haar" else squares

    def unfold(self, folded: Tensor) -> Tensor:
        """Undo `fold`: the transform is orthonormal, so that its transpose is its inverse."""
        squares = conv2d(folded, self.haar(folded).transpose(0, 1)) if self.config.folding == "haar" else folded
        return pixel_shuffle(squares, self.config.patch_size)

    def haar(self, squares: Tensor) -> Tensor:
        """The Haar transform of each square (B, C p^2, ...), as a convolution's kernel (C p^2, C p^2, 1, 1)."""
        rows = haar_matrix(self.config.patch_size)
        square = torch.kron(rows, rows).to(squares.device, squares.dtype)  # (p^2, p^2)
        return torch.block_diag(*[square] * (squares.shape[1] // len(square)))[:, :, None, None]

    def labels_of(self, class_labels: Sequence[int | str] | None) -> Tensor | None:
        """Numbers (B,) of classes that are given by number or by name; None where none is given.

        Raises ValueError for a class that there isn't.
        """
        if class_labels is None:
            return None
        names = self.class_names
        known = {name: number for number, name in enumerate(names)} | {number: number for number in range(len(names))}
        given = class_labels.tolist() if isinstance(class_labels, Tensor) else list(class_labels)
        for label in given:
            if label not in known:
                raise ValueError(f"there is no class {label!r}, but {', '.join(names) or 'none at all'}")
        return torch.tensor([known[label] for label in given], device=self._execution_device)

    def null_labels(self, count: int) -> Tensor | None:
        """The label (B,) that stands for no class; None where the network was trained without one."""
        classes = len(self.class_names)
        if not classes or self.unet.config.num_class_embeds == classes:
            return None
        return torch.full((count,), classes, device=self._execution_device)

    def noise(self, count: int, generator: Generator | list[Generator] | None, latents: Tensor | None) -> Tensor:
        """The noise (B, C, H, W) to start from; raises ValueError where the one that is given has another shape."""
        p, size = self.config.patch_size, self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        shape = (count, self.unet.config.in_channels // p**2, height * p, width * p)
        if latents is None:
            return randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.unet.dtype)
        if latents.shape != shape:
            raise ValueError(f"latents have the shape {tuple(latents.shape)}, and {shape} is needed")
        return latents.to(self._execution_device, self.unet.dtype)

    def step_options(self, generator: Generator | list[Generator] | None, eta: float) -> dict[str, Any]:
        """What the scheduler's step takes: not all of them take a generator, and DDIM alone takes eta.

        Where x_0 is clipped, DDIM goes on with the noise that fits the clipped x_0.
        """
        clipped = bool(self.scheduler.config.get("clip_sample") or self.scheduler.config.get("thresholding"))
        options = {"generator": generator, "eta": eta, "use_clipped_model_output": clipped}
        taken = inspect.signature(self.scheduler.step).parameters
        return {name: value for name, value in options.items() if name in taken}


def haar_matrix(size: int) -> Tensor:
    """The orthonormal Haar transform of vectors of length 1, 2, 4 ...: (size, size) float64, coarse rows first."""
    if size == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    coarse = torch.kron(haar_matrix(size // 2), torch.tensor([[1.0, 1.0]], dtype=torch.float64))
    details = torch.kron(torch.eye(size // 2, dtype=torch.float64), torch.tensor([[1.0, -1.0]], dtype=torch.float64))
    return torch.cat([coarse, details]) / 2**0.5
