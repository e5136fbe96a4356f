# %% [markdown]
# # The diffusion process
#
# Points of the plane turn into noise, and noise into points. Everything here is done by the project's library, and read
# from the artifacts of its pipeline: a notebook has no code of its own that the library has. Run the cells from top to
# bottom.

# %%
# In a hosted notebook, clone the project and open this file from the clone. This cell brings what is missing.
import sys
from pathlib import Path

project = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "params.yaml").exists())
sys.path.insert(0, str(project / "notebooks"))

from set_up import set_up

set_up(
    project,
    {
        "data/processed/circles.safetensors": "preprocess@circles",
        "models/circles": "train@circles",
        "reports/metrics/circles.json": "evaluate@circles",
    },
)

# %% [markdown]
# ## The device comes first
#
# Where is the work done? `runtime` in `params.yaml` says it, and `auto` takes a GPU where there is one.

# %%
from diffusion_ladder.device import configure
from diffusion_ladder.params.whole import load_parameters

parameters = load_parameters()
compute = configure(parameters.runtime)
print("device:", compute.device)

# %% [markdown]
# ## The data
#
# Two circles, standardised: mean 0 and standard deviation 1 in each coordinate, as the noise has.

# %%
from diffusion_ladder.data.normalise import Normalisation, normalise
from diffusion_ladder.foundation.artifacts import read_metadata, read_tensors

path = "data/processed/circles.safetensors"
data, normalisation = read_tensors(path), Normalisation.from_metadata(read_metadata(path))
x_0 = normalise(data["train"][:400], normalisation)  # (N, 2)
print(f"{len(data['train']):,} training points; of these {len(x_0)} are followed here")
print("mean", x_0.mean(0), "standard deviation", x_0.std(0))

# %% [markdown]
# ## The noise schedule
#
# $q(x_t \mid x_0) = \mathcal{N}(\sqrt{\bar\alpha_t}\, x_0, (1 - \bar\alpha_t) I)$: each step takes a little of the
# signal and adds a little noise.

# %%
from IPython.display import Image

from diffusion_ladder.figures.canvas import house_style
from diffusion_ladder.figures.training import encode_chart, schedule_figure
from diffusion_ladder.forward_process import forward_process

rung = parameters.rungs["circles"]
schedule = forward_process(rung.schedule)
with house_style():
    picture = Image(encode_chart(schedule_figure(schedule)))
picture

# %% [markdown]
# ## One jump
#
# No loop is needed: $x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \varepsilon$ reaches any timestep in
# one go.

# %%
import torch

from diffusion_ladder.randomness import generator

epsilon = torch.randn(x_0.shape, generator=generator(parameters.seed, "notebook", "forward"))
x_t = schedule.add_noise(x_0, epsilon, torch.tensor(499))
print("signal left at t = 500:", f"{schedule.alpha_bar[499].sqrt():.3f}", "of x_0; standard deviation", x_t.std(0))

# %% [markdown]
# ## Common issue: a missing `.long()`
#
# Timesteps are indices. Drawn as fractions, they can't look anything up. `randint` gives integers at once; whatever was
# computed as a float needs `.long()`.

# %%
t = torch.rand(4, generator=generator(parameters.seed, "notebook", "timesteps")) * schedule.T
print("drawn:", t)
try:
    schedule.alpha_bar[t]
except IndexError as error:
    print("IndexError:", error)
print("with .long():", schedule.alpha_bar[t.long()])

# %% [markdown]
# And mind the range: `torch.randint(0, T - 1, ...)` leaves out its upper bound, so that the last timestep would never
# be learnt. It is `torch.randint(T, ...)`.

# %% [markdown]
# ## The forward process, every 20 timesteps
#
# The green point is one training point, followed all the way with one noise vector.

# %%
from diffusion_ladder.figures.points import contact_sheet, encode_sheet
from diffusion_ladder.figures.ways import forward_states, forward_timesteps

timesteps = forward_timesteps(schedule.T, 20)
states = forward_states(x_0, epsilon, schedule.alpha_bar, timesteps)  # (F, N, 2)
with house_style():
    picture = Image(encode_sheet(contact_sheet(states, timesteps, x_0, "data $x_0$", clean_first=True)))
picture

# %% [markdown]
# ## The same, every 50 timesteps

# %%
timesteps = forward_timesteps(schedule.T, 50)
states = forward_states(x_0, epsilon, schedule.alpha_bar, timesteps)
with house_style():
    picture = Image(encode_sheet(contact_sheet(states, timesteps, x_0, "data $x_0$", clean_first=True)))
picture

# %% [markdown]
# ## Step by step comes to the same
#
# A thousand small steps, $x_t = \sqrt{1 - \beta_t}\, x_{t-1} + \sqrt{\beta_t}\, \varepsilon$, each with fresh noise,
# end in the same distribution as one jump.

# %%
from tqdm import tqdm

noise = generator(parameters.seed, "notebook", "steps")
x = x_0
for alpha in tqdm(schedule.alpha, desc="forward"):
    x = alpha.sqrt().float() * x + (1 - alpha).sqrt().float() * torch.randn(x.shape, generator=noise)

# %%
jump = schedule.add_noise(x_0, epsilon, torch.tensor(schedule.T - 1))
print("steps:", x.mean(0), x.std(0))
print("jump: ", jump.mean(0), jump.std(0))

# %% [markdown]
# ## What should a network answer?
#
# The best answer is known: the mean of all training points, each weighted by how likely it became the noisy one. This
# ideal denoiser needs no training. Above noisy points, below what it expects: the middle of the data where there is
# only noise, one training point where there is hardly any.

# %%
from diffusion_ladder.figures.points import prediction_sheet
from diffusion_ladder.figures.ways import Way
from diffusion_ladder.networks.ideal_denoiser import IdealDenoiser

ideal = IdealDenoiser(x_0, data["train_labels"][:400], schedule, "sample")
timesteps = [1000, 800, 600, 450, 300, 200, 100, 50, 20, 1]
states = forward_states(x_0, epsilon, schedule.alpha_bar, timesteps)
with torch.no_grad():
    expected = torch.stack([ideal(x, torch.full((len(x),), t - 1)) for x, t in zip(states, timesteps, strict=True)])
with house_style():
    picture = Image(encode_sheet(prediction_sheet(Way("ideal denoiser", timesteps, states, expected))))
picture

# %% [markdown]
# It draws perfect samples, and they are the training points themselves: the report's rung 0 shows it. A network that is
# trained falls short of it, and so makes something new.

# %% [markdown]
# ## A network, before training

# %%
from dataclasses import replace

from diffusion_ladder.rungs import build_network, build_scheduler, load_rung, parameter_count

trained = load_rung("models/circles")
fresh = replace(
    trained, network=build_network(trained.settings, trained.sample_shape, None, parameters.seed, "circles")
)
print(f"{parameter_count(fresh.network):,} parameters")

# %% [markdown]
# ## Training, live
#
# Algorithm 1 of DDPM, some hundred steps of it: draw points, timesteps and noise; guess the noise; descend.

# %%
from diffusion_ladder.training.loop import Task, train

settings = rung.training.model_copy(update={"steps": 300, "warmup_steps": 30})
scheduler = build_scheduler(rung.schedulers.training, rung.schedule)
task = Task(fresh, scheduler, data["train"], data["train_labels"], settings, parameters.seed)
losses = [float(step.loss) for step in tqdm(train(task), total=settings.steps, desc="training")]

# %%
from diffusion_ladder.data.normalise import mean_square
from diffusion_ladder.figures import canvas
from diffusion_ladder.figures.training import draw_loss
from diffusion_ladder.training.loop import zero_loss

nothing_learnt = zero_loss(fresh, settings.loss_weight, mean_square(data["train"], normalisation))
with house_style():
    figure = canvas.blank(900, 320)
    axes = canvas.place_axes(figure, 76, 20, 740, 240)
    draw_loss(axes, range(1, len(losses) + 1), losses, sum(losses[-30:]) / 30, nothing_learnt)
    picture = Image(encode_chart(figure))
picture

# %% [markdown]
# The loss doesn't go to nought, and shouldn't: in nearly pure noise nobody can tell the noise from the data.
#
# ## The pipeline's trained model
#
# The same network after all of its steps lies under `models/circles`. Both draw from the same noise.

# %%
from diffusion_ladder.figures.samples import Panel, scatter_row
from diffusion_ladder.sampling.loop import Drawing, draw_samples

fresh.network.eval()
sampling = rung.sampling.model_copy(update={"trajectory_frames": 50, "trajectory_count": 400})
few, many = (draw_samples(Drawing(each, "ddpm", sampling, 100, 400, parameters.seed)) for each in (fresh, trained))
sets = {"after 300 steps": few.samples, "the pipeline's model": many.samples, "held-out data": data["test"][:400]}
with house_style():
    panels = [Panel(title, normalise(points, normalisation), None) for title, points in sets.items()]
    picture = Image(encode_sheet(scatter_row(panels)))
picture

# %% [markdown]
# ## The reverse process
#
# The trained network walks noise back to data. The green point is the first sample, from noise to its place.

# %%
way = normalise(many.states, normalisation)
with house_style():
    sheet = contact_sheet(
        way, (many.timesteps + 1).tolist(), normalise(many.final, normalisation), "samples $x_0$", clean_first=False
    )
    picture = Image(encode_sheet(sheet))
picture

# %% [markdown]
# ## How good is it?
#
# A number is worth what it is compared with: the floor is what real data score in the samples' place, the ceiling what
# noise scores.

# %%
from diffusion_ladder.foundation.artifacts import read_json

measured = read_json("reports/metrics/circles.json")
for name in ("wasserstein_2", "outside_tube_share", "copied_share"):
    samples, floor, ceiling = (measured[name + bound] for bound in ("", "_floor", "_ceiling"))
    print(f"{name:20} samples {samples:.4f}   floor {floor:.4f}   ceiling {ceiling:.4f}")


# %% [markdown]
# Go on with `part_2_1_diffusion_from_scratch_pytorch`, or write the functions yourself: `make exercise N=1`.
