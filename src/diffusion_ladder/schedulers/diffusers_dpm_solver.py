"""diffusers' own DPM-Solver++ scheduler, under the name that the pipeline loads."""

from typing import Any

from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

from diffusion_ladder.schedulers import StepOutput


class Scheduler(DPMSolverMultistepScheduler):
    """Also takes clip_sample, which is thresholding at 1, and also tells the predicted x_0."""

    def __init__(self, clip_sample: bool = False, **options: Any) -> None:
        if clip_sample:
            options |= {"thresholding": True, "sample_max_value": 1.0}
        super().__init__(**options)

    def step(self, *arguments: Any, **options: Any) -> Any:
        """As in diffusers, whose model_outputs are the predictions of x_0."""
        output: Any = super().step(*arguments, **options)
        x0: Any = self.model_outputs[-1]
        return StepOutput(output.prev_sample, x0)
