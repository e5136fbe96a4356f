"""The table of samplers: a row each, with all that the rest of the project has to know of it before it is loaded.

The sampler NAME is schedulers/NAME.py: its mathematics as the function NAME_step, and `Scheduler`, which wraps them in
diffusers' interface. diffusers' own is schedulers/diffusers_NAME.py. Whoever adds a sampler adds that file and a row.

No torch here: the parameters are checked against this table.
"""

from dataclasses import dataclass

LIBRARY = "diffusers_"  # before a sampler's name: the module of diffusers' own
RANGE_OPTIONS = ("clip_sample", "thresholding", "dynamic_thresholding_ratio", "sample_max_value")
COMMON_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")  # that all of diffusers' schedulers know


@dataclass(frozen=True)
class Twin:
    """The same sampler in diffusers, and how it is held against ours.

    Attributes:
        class_name: in diffusers and in diffusion_ladder.schedulers.
        schedules: the noise schedules that it knows.
        rounds: whether it rounds each state to float32.
        clips_by_thresholding: whether it knows clipping only as thresholding at 1.
    """

    class_name: str
    schedules: tuple[str, ...] = COMMON_SCHEDULES
    rounds: bool = False
    clips_by_thresholding: bool = False


@dataclass(frozen=True)
class Sampler:
    """A row of the table.

    Attributes:
        name: of its module under schedulers/.
        title: as the literature calls it.
        colour: of its curves.
        marker: of its curves, so that they are told apart without colours as well.
        evaluations: of the network per step; the last step, to the data, takes one.
        stochastic: whether it can add noise.
        options: what its constructor takes of how x_0 is kept in range and how much noise is added.
        step_options: what its step takes besides a generator.
        is_noising: whether its `add_noise` is DDPM's eq. 4, so that training may use it.
        rescales: whether it can start at zero terminal SNR; one that counts in sigma = 1 / sqrt(SNR) can't.
        needs_place_for_data: whether its spacing, where not trailing, leaves the last timestep to the data.
        visits_fractions: whether its timesteps can lie between those of the schedule.
        twin: the same in diffusers, or None where nothing is compared.
    """

    name: str
    title: str
    colour: str
    marker: str
    evaluations: int = 1
    stochastic: bool = False
    options: tuple[str, ...] = ()
    step_options: tuple[str, ...] = ()
    is_noising: bool = False
    rescales: bool = True
    needs_place_for_data: bool = False
    visits_fractions: bool = False
    twin: Twin | None = None

    @property
    def library_module(self) -> str:
        """The module of diffusers' own, beside the module called `name`."""
        return LIBRARY + self.name

    @property
    def step_function(self) -> str:
        """The pure function in its module; the report's code and equation go by this name, too."""
        return f"{self.name}_step"

    def adds_noise(self, eta: float) -> bool:
        """Whether it does, where it is given this eta."""
        return self.stochastic and (eta > 0 or "eta" not in self.step_options)

    def steps_within(self, evaluations: int) -> int:
        """The most steps that take no more than so many evaluations of the network: k a step, and one in the last."""
        return (evaluations + self.evaluations - 1) // self.evaluations

    def most_steps(self, T: int, spacing: str) -> int:
        """The most of T timesteps that it can visit."""
        return T - 1 if self.needs_place_for_data and spacing != "trailing" else T


ROWS = (
    Sampler(
        "ddpm",
        "DDPM",
        colour="#0072b2",
        marker="o",
        stochastic=True,
        options=(*RANGE_OPTIONS, "variance_type"),
        is_noising=True,
        twin=Twin("DDPMScheduler", schedules=(*COMMON_SCHEDULES, "sigmoid")),
    ),
    Sampler(
        "ddim",
        "DDIM",
        colour="#e69f00",
        marker="s",
        stochastic=True,
        options=RANGE_OPTIONS,
        step_options=("eta", "use_clipped_model_output"),
        is_noising=True,
        twin=Twin("DDIMScheduler"),
    ),
    Sampler(
        "dpm_solver",
        "DPM-Solver++",
        colour="#d55e00",
        marker="^",
        options=RANGE_OPTIONS,
        needs_place_for_data=True,
        twin=Twin("DPMSolverMultistepScheduler", rounds=True, clips_by_thresholding=True),
    ),
    Sampler(
        "heun",
        "Heun",
        colour="#1f2933",
        marker="D",
        evaluations=2,
        options=("clip_sample",),
        rescales=False,
        visits_fractions=True,
        twin=Twin("HeunDiscreteScheduler"),
    ),
)
SAMPLERS = {row.name: row for row in ROWS}
MODULES = SAMPLERS | {row.library_module: row for row in ROWS if row.twin}  # by the names that params.yaml may use
NOISING_MODULES = tuple(module for module, row in MODULES.items() if row.is_noising)


def is_library(module: str) -> bool:
    """Whether a scheduler module is diffusers' own."""
    return module.startswith(LIBRARY)


def module_beside(name: str, module: str) -> str:
    """The module of the sampler called so that comes from where another module does: written here, or diffusers'."""
    row = SAMPLERS[name]
    return row.library_module if row.twin and is_library(module) else name


@dataclass(frozen=True)
class Variant:
    """A sampler as it is held against its twin: at one eta, where it takes one."""

    sampler: Sampler
    twin: Twin
    eta: float | None = None

    @property
    def key(self) -> str:
        """Names it in metrics."""
        return self.sampler.name if self.eta is None else f"{self.sampler.name}_eta_{self.eta:g}"

    @property
    def title(self) -> str:
        """Names it in the report."""
        return self.sampler.title if self.eta is None else f"{self.sampler.title}, η = {self.eta:g}"


VARIANTS = {
    variant.key: variant
    for row in ROWS
    if row.twin
    for eta in ((0.0, 1.0) if "eta" in row.step_options else (None,))
    for variant in [Variant(row, row.twin, eta)]
}
