# %% [markdown]
# # Part 2.2: the same digits with Hugging Face diffusers
#
# Network and noise schedule come from the library diffusers now: `UNet2DModel` and `DDPMScheduler`. Training and
# sampling loop are those of Part 2.1, since the project's own schedulers speak diffusers' interface. Run the cells from
# top to bottom.

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
        "data/processed/mnist.safetensors": "preprocess@mnist",
        "models/mnist_scratch": "train@mnist_scratch",
        "models/mnist_diffusers": "train@mnist_diffusers",
        "reports/metrics/mnist_scratch.json": "evaluate@mnist_scratch",
        "reports/metrics/mnist_diffusers.json": "evaluate@mnist_diffusers",
    },
)

# %% [markdown]
# ## The device comes first

# %%
from diffusion_ladder.device import configure
from diffusion_ladder.params.whole import load_parameters

parameters = load_parameters()
rung = parameters.rungs["mnist_diffusers"]
compute = configure(parameters.runtime)
print("device:", compute.device, "  matrix products in", compute.precision)

# %% [markdown]
# ## The network
#
# `UNet2DModel` with the settings of the U-Net written here. Inside, squares of 2 x 2 pixels are channels.

# %%
from dataclasses import replace

from diffusion_ladder.rungs import load_rung, parameter_count

scratch, trained = (load_rung(f"models/{name}") for name in ("mnist_scratch", "mnist_diffusers"))
trained = replace(trained, network=trained.network.to(compute.device))
unet = trained.network.unet
for name in ("in_channels", "block_out_channels", "down_block_types", "up_block_types", "num_class_embeds"):
    print(f"{name:20}", unet.config[name])
print(f"{parameter_count(trained.network):,} parameters; from scratch {parameter_count(scratch.network):,}")

# %% [markdown]
# ## Common issue: the answer is no tensor
#
# A network of diffusers answers with an object, and the tensor is its `.sample`:

# %%
import torch

folded, t = torch.zeros(2, 4, 14, 14, device=compute.device), torch.full((2,), 500, device=compute.device)
asked = torch.tensor([3, 8], device=compute.device)
with torch.no_grad():
    answer = unet(folded, t, class_labels=asked)
try:
    answer - folded
except TypeError as error:
    print("TypeError:", error)
print("with .sample:", tuple((answer.sample - folded).shape))

# %% [markdown]
# ## The noise schedule
#
# Saved beside the network, so that it can't be mistaken for another. It is the same as the one written here, up to
# rounding:

# %%
from diffusers import DDPMScheduler

from diffusion_ladder.forward_process import forward_process

scheduler, schedule = DDPMScheduler.from_pretrained("models/mnist_diffusers"), forward_process(rung.schedule)
print("largest difference of alpha_bar:", f"{(scheduler.alphas_cumprod - schedule.alpha_bar).abs().max():.1g}")
print(f"signal left at the end: {schedule.alpha_bar[-1].sqrt():.3f} of x_0")

# %% [markdown]
# ## Common issue: timesteps without `.long()`
#
# `add_noise` looks up its coefficients at the timesteps. Drawn by `torch.rand(...) * T` they are no indices:

# %%
from diffusion_ladder.data.normalise import IMAGES, normalise, unnormalise
from diffusion_ladder.figures.ways import first_of_each_class
from diffusion_ladder.foundation.artifacts import read_tensors
from diffusion_ladder.randomness import generator

data = read_tensors("data/processed/mnist.safetensors")
images, labels = data["train"], data["train_labels"]
chosen = first_of_each_class(labels, 10)  # one of each digit
x_0 = normalise(images[chosen], IMAGES)
random = generator(parameters.seed, "notebook", "diffusers")
epsilon, fractions = torch.randn(x_0.shape, generator=random), torch.rand(10, generator=random) * schedule.T
try:
    scheduler.add_noise(x_0, epsilon, fractions)
except IndexError as error:
    print("IndexError:", error)
print("with .long():", tuple(scheduler.add_noise(x_0, epsilon, fractions.long()).shape))

# %% [markdown]
# ## The forward process, every 50 timesteps
#
# By diffusers' own `add_noise`. Its timesteps count from 0: $x_t$ of the papers is at index t - 1.

# %%
from IPython.display import Image, display

from diffusion_ladder.figures.canvas import house_style
from diffusion_ladder.figures.strips import encode_strip, forward_strip
from diffusion_ladder.figures.ways import forward_timesteps

timesteps, followed = forward_timesteps(schedule.T, 50), [3, 5, 8]
states = torch.stack([scheduler.add_noise(x_0[followed], epsilon[followed], torch.tensor(t - 1)) for t in timesteps])
with house_style():
    picture = Image(encode_strip(forward_strip(unnormalise(states, IMAGES), timesteps)[0], images[:3]))
picture

# %% [markdown]
# ## The same, every 20 timesteps

# %%
timesteps = forward_timesteps(schedule.T, 20)
states = torch.stack([scheduler.add_noise(x_0[[8]], epsilon[[8]], torch.tensor(t - 1)) for t in timesteps])
states = unnormalise(states, IMAGES)
for part in (slice(0, 17), slice(17, 34), slice(34, 50)):
    with house_style():
        display(Image(encode_strip(forward_strip(states[part], timesteps[part])[0], images[:1])))

# %% [markdown]
# ## Training, live
#
# The loop is the one of Part 2.1, for a hundred steps, with diffusers' network and scheduler in it.

# %%
from tqdm import tqdm

from diffusion_ladder.rehearsal import Rehearsal
from diffusion_ladder.training.loop import train

training = rung.training.model_copy(update={"steps": 100, "warmup_steps": 10})
task = Rehearsal("mnist_diffusers", rung.model_copy(update={"training": training}), images, labels).task(compute)
print("adds the noise:", type(task.scheduler))
steps = list(tqdm(train(task), total=training.steps, desc="training"))

# %%
from diffusion_ladder.data.normalise import mean_square
from diffusion_ladder.figures.training import TARGETS, at_the_end, encode_chart, training_figure
from diffusion_ladder.training.loop import zero_loss

log = {
    "step": [step.number for step in steps],
    "loss": [float(step.loss) for step in steps],
    "learning_rate": [step.learning_rate for step in steps],
    "gradient_norm": [float(step.gradient_norm) for step in steps],
}
nothing_learnt = zero_loss(task.rung, training.loss_weight, mean_square(images, IMAGES))
with house_style():
    figure = training_figure(log, at_the_end(log["loss"]), nothing_learnt, TARGETS[rung.schedule.prediction_type])
    picture = Image(encode_chart(figure))
picture

# %% [markdown]
# ## The pipeline's trained model
#
# By this project's loop, with diffusers' samplers: they can be exchanged without training anew. One noise a row, one
# digit a column. DDPM adds new noise at every step, which covers what a small network gets wrong; DDIM and DPM-Solver
# need fewer steps, and carry its errors along.

# %%
from diffusion_ladder.figures.samples import encode_grid
from diffusion_ladder.sampling.loop import Drawing, draw_samples

samplers = {"diffusers_ddpm": 50, "diffusers_ddim": 20, "diffusers_dpm_solver": 10}
sampling = rung.sampling.model_copy(update={"trajectory_count": 10})
drawn = {}
for sampler, count in samplers.items():
    drawing = Drawing(trained, sampler, sampling, count, 20, parameters.seed, precision=compute.precision)
    with tqdm(total=drawing.total * count, desc=sampler, unit=" steps") as progress:
        drawn[f"{sampler.removeprefix('diffusers_')}, {count} steps"] = draw_samples(drawing, progress.update).samples

# %%
rows = torch.stack([samples.unflatten(0, (10, 2)).transpose(0, 1) for samples in drawn.values()]).flatten(0, 1)
titles = [name if row == 0 else "" for name in drawn for row in range(2)]
with house_style():
    picture = Image(encode_grid(rows, titles, together=2))
picture

# %% [markdown]
# ## Without this project
#
# The folder is a pipeline of diffusers, complete with network and scheduler: this is all that somebody else needs.
# `trust_remote_code` lets it bring `pipeline.py`, since diffusers' own `DDPMPipeline` knows no classes.

# %%
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("models/mnist_diffusers", trust_remote_code=True).to(compute.device)
answers = pipe(
    class_labels=range(10),
    guidance_scale=2.0,
    num_inference_steps=20,
    output_type="pt",
    generator=torch.Generator().manual_seed(3),
).images
print("images", tuple(answers.shape), f"from {answers.min():.0f} to {answers.max():.0f}")
with house_style():
    picture = Image(encode_grid((answers.cpu()[None] * 255).round().to(torch.uint8), [""]))
picture

# %% [markdown]
# ## Common issue: [0, 1] against [-1, 1]
#
# Pipelines of diffusers give images in [0, 1], and networks take them in [-1, 1]. Here the pictures above go back to
# the network, noised up to t = 600, and it is asked what was there. Above as they must be; below as the pipeline gave
# them, without `* 2 - 1`:

# %%
t, asked = torch.tensor(599), torch.arange(10, device=compute.device)
pictures, guesses = (answers.cpu() * 255).round().to(torch.uint8), {}
for name, given in {"given in [-1, 1]": answers * 2 - 1, "given in [0, 1]": answers}.items():
    x_t = scheduler.add_noise(given, epsilon.to(compute.device), t)
    with torch.no_grad():
        prediction = trained.network(x_t, t.expand(10).to(compute.device), asked)
    guesses[name] = unnormalise(scheduler.step(prediction, t, x_t).pred_original_sample, IMAGES).cpu()
    error = (guesses[name].float() - pictures.float()).abs().mean()
    print(f"{name}: the guess is off by {error:.1f} of 255 grey levels")
with house_style():
    picture = Image(encode_grid(torch.stack([*guesses.values()]), [*guesses]))
picture

# %% [markdown]
# ## Common issue: `eval()` forgotten
#
# `from_pretrained` and `load_rung` give a network in evaluation mode; one that was just built is in training mode.
# Dropout, where a network has it, would then go on dropping values while it draws: nothing fails, the samples are
# worse.

# %%
from diffusion_ladder.rungs import build_network

just_built = build_network(trained.settings, trained.sample_shape, 11, parameters.seed, "mnist_diffusers")
print(
    "in training mode:  just built",
    just_built.training,
    "  load_rung",
    trained.network.training,
    "  from_pretrained",
    pipe.unet.training,
)

# %% [markdown]
# ## From scratch or from the library?
#
# The same settings, data and steps: the numbers should be as near to each other as two trainings with other seeds are.

# %%
from diffusion_ladder.foundation.artifacts import read_json

measured = {name: read_json(f"reports/metrics/{name}.json") for name in ("mnist_scratch", "mnist_diffusers")}
for name in ("frechet_distance", "label_accuracy", "copied_share"):
    print(
        f"{name:18}",
        "   ".join(
            f"{model} {numbers[name]:.4f} (floor {numbers[name + '_floor']:.4f})" for model, numbers in measured.items()
        ),
    )

# %% [markdown]
# Go on with `part_3_1_celeb_face`, or write one step of DDPM yourself: `make exercise N=8`.
