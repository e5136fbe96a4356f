# %% [markdown]
# # Part 2.1: diffusion of digits, from scratch in PyTorch
#
# Handwritten digits turn into noise, a U-Net learns the way back, and draws the digit that it is asked for. Network,
# schedule and sampler are the project's own; this notebook calls them, and reads what the pipeline has made. Run the
# cells from top to bottom.

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
        "data/judges/mnist": "train_classifier@mnist",
        "reports/metrics/mnist_scratch.json": "evaluate@mnist_scratch",
    },
)

# %% [markdown]
# ## The device comes first

# %%
from diffusion_ladder.device import configure
from diffusion_ladder.params.whole import load_parameters

parameters = load_parameters()
rung = parameters.rungs["mnist_scratch"]
compute = configure(parameters.runtime)
print("device:", compute.device, "  matrix products in", compute.precision)

# %% [markdown]
# ## The data
#
# Images as they are stored: bytes, (N, C, H, W), and a label for each.

# %%
import torch
from IPython.display import Image

from diffusion_ladder.figures.canvas import house_style
from diffusion_ladder.figures.samples import encode_grid
from diffusion_ladder.foundation.artifacts import read_metadata, read_tensors

path = "data/processed/mnist.safetensors"
data, names = read_tensors(path), read_metadata(path)["class_names"]
images, labels = data["train"], data["train_labels"]
print(f"{len(images):,} training images {tuple(images.shape[1:])} {images.dtype}; labels {labels.dtype}")
with house_style():
    picture = Image(encode_grid(torch.stack([images[labels == label][:10] for label in range(len(names))]), names))
picture

# %% [markdown]
# ## Common issue: [0, 1] against [-1, 1]
#
# Noise is as often below zero as above, so the data are too: bytes become [-1, 1]. The usual `ToTensor` stops at [0,
# 1]. A network trained on that answers in [0, 1]; brought back as if it were [-1, 1], black is grey:

# %%
from diffusion_ladder.data.normalise import IMAGES, normalise, unnormalise
from diffusion_ladder.figures.ways import first_of_each_class

chosen = first_of_each_class(labels, 10)  # one of each digit
x_0 = normalise(images[chosen], IMAGES)
halfway = images[chosen].float() / 255
print(f"normalised: {x_0.min():.0f} to {x_0.max():.0f}, mean {x_0.mean():.2f}")
print(f"as ToTensor has it: {halfway.min():.0f} to {halfway.max():.0f}, mean {halfway.mean():.2f}")
with house_style():
    rows = torch.stack([unnormalise(x_0, IMAGES), unnormalise(halfway, IMAGES)])
    picture = Image(encode_grid(rows, ["[-1, 1], and back", "[0, 1], back as if [-1, 1]"]))
picture

# %% [markdown]
# The library has one pair of functions for both ways, and refuses what has been scaled before:

# %%
try:
    normalise(halfway, IMAGES)
except TypeError as error:
    print("TypeError:", error)

# %% [markdown]
# ## The forward process, every 50 timesteps
#
# $x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \varepsilon$, with one noise image for all timesteps, so
# that each row is one way.

# %%
from diffusion_ladder.figures.strips import encode_strip, forward_strip
from diffusion_ladder.figures.ways import forward_states, forward_timesteps
from diffusion_ladder.forward_process import forward_process
from diffusion_ladder.randomness import generator

schedule = forward_process(rung.schedule)
epsilon = torch.randn(x_0.shape, generator=generator(parameters.seed, "notebook", "digits"))
timesteps = forward_timesteps(schedule.T, 50)
followed = [2, 4, 7]
states = unnormalise(forward_states(x_0[followed], epsilon[followed], schedule.alpha_bar, timesteps), IMAGES)
with house_style():
    picture = Image(encode_strip(forward_strip(states, timesteps)[0], images[:3]))
picture

# %% [markdown]
# ## The same, every 20 timesteps
#
# In three parts. The digit is lost to the eye long before the end.

# %%
from IPython.display import display

timesteps = forward_timesteps(schedule.T, 20)
states = unnormalise(forward_states(x_0[[4]], epsilon[[4]], schedule.alpha_bar, timesteps), IMAGES)
for part in (slice(0, 17), slice(17, 34), slice(34, 50)):
    with house_style():
        display(Image(encode_strip(forward_strip(states[part], timesteps[part])[0], images[:1])))

# %% [markdown]
# ## The network
#
# A U-Net: down to half the size, across, and up again, with a skip connection at each level. It is told the timestep,
# and the digit. One row more than there are digits is the null label, for "any digit".

# %%
from diffusion_ladder.rehearsal import Rehearsal
from diffusion_ladder.rungs import parameter_count

training = rung.training.model_copy(update={"steps": 200, "warmup_steps": 20})
task = Rehearsal("mnist_scratch", rung.model_copy(update={"training": training}), images, labels).task(compute)
fresh = task.rung
print(f"{parameter_count(fresh.network):,} parameters")
print("class embedding:", fresh.network.class_embedding)

# %% [markdown]
# ## Common issue: labels without `.long()`
#
# An embedding is a table, and a label the number of a row. Labels that went through a float tensor, a data frame with
# gaps or a mean are no numbers of rows any more:

# %%
x_t = schedule.add_noise(x_0, epsilon, torch.full((10,), 500)).to(compute.device)
t = torch.full((10,), 500, device=compute.device)
try:
    fresh.network(x_t, t, labels[chosen].float().to(compute.device))
except RuntimeError as error:
    print("RuntimeError:", error)
with torch.no_grad():
    print("with .long():", tuple(fresh.network(x_t, t, labels[chosen].long().to(compute.device)).shape))

# %% [markdown]
# ## Common issue: model and data on two devices
#
# `network.to(device)` moves a network in place; `tensor.to(device)` gives a moved copy and leaves the tensor where it
# was, so the result must be kept. Here the data go elsewhere (to PyTorch's device `meta` where there is no GPU: it has
# shapes and no numbers):

# %%
elsewhere = "meta" if compute.device.type == "cpu" else "cpu"
try:
    fresh.network(x_t.to(elsewhere), t.to(elsewhere), labels[chosen].to(elsewhere))
except (RuntimeError, NotImplementedError) as error:
    print(f"{type(error).__name__}:", str(error).splitlines()[0])
print("network on", next(fresh.network.parameters()).device, "and data on", x_t.device)

# %% [markdown]
# ## Training, live
#
# Algorithm 1 of DDPM: draw images, timesteps and noise; guess the noise; descend. Two hundred steps of it.

# %%
from tqdm import tqdm

from diffusion_ladder.training.loop import train

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
nothing_learnt = zero_loss(fresh, training.loss_weight, mean_square(images, IMAGES))
with house_style():
    figure = training_figure(log, at_the_end(log["loss"]), nothing_learnt, TARGETS[rung.schedule.prediction_type])
    picture = Image(encode_chart(figure))
picture

# %% [markdown]
# ## The pipeline's trained model
#
# The same network after all of its steps. Both draw by algorithm 2 from the same noise: the first three samples of each
# digit, none left out.

# %%
from dataclasses import replace

from diffusion_ladder.rungs import load_rung
from diffusion_ladder.sampling.loop import Drawing, draw_samples

trained = load_rung("models/mnist_scratch")
trained = replace(trained, network=trained.network.to(compute.device))
sampling = rung.sampling.model_copy(update={"trajectory_count": 10, "trajectory_frames": 12})
drawn = {}
for name, each in {"after 200 steps": fresh, "the pipeline's model": trained}.items():
    drawing = Drawing(
        each, sampling.sampler, sampling, sampling.steps, 30, parameters.seed, precision=compute.precision
    )
    with tqdm(total=drawing.total * sampling.steps, desc=name, unit=" steps") as progress:
        drawn[name] = draw_samples(drawing, progress.update)

# %%
rows = torch.stack([samples.samples.unflatten(0, (10, 3)).transpose(0, 1) for samples in drawn.values()]).flatten(0, 1)
titles = [name if row == 0 else "" for name in drawn for row in range(3)]
with house_style():
    picture = Image(encode_grid(rows, titles, together=3))
picture

# %% [markdown]
# ## The reverse process
#
# Above what the network sees, below the clean image that it expects: first a blur of all digits of the kind, then more
# and more one digit.

# %%
from diffusion_ladder.figures.strips import reverse_strip
from diffusion_ladder.figures.ways import Way

samples = drawn["the pipeline's model"]
way = Way(
    "DDPM",
    [*(samples.timesteps + 1).tolist(), 0],
    *(torch.cat([part, samples.final[None]]) for part in (samples.states, samples.predicted)),
)
with house_style():
    picture = Image(encode_strip(reverse_strip(way.of([2, 4, 7]), ["2", "4", "7"])[0], samples.final))
picture

# %% [markdown]
# ## Common issue: `eval()` forgotten
#
# Dropout and batch norms work differently in training. This U-Net has neither (its group norms look at one image
# alone), so that nothing changes; networks with them change, and say nothing. The judge, a classifier that tells which
# digit an image shows, has batch norms:

# %%
import copy

from diffusion_ladder.evaluation.classifier import load_classifier

judge = load_classifier("data/judges/mnist/classifier")[0]
left_in_training = copy.deepcopy(judge).train()
eights = data["test"][data["test_labels"] == 8]
with torch.no_grad():
    for name, network in {"eval()": judge, "train()": left_in_training}.items():
        found = network(normalise(eights, IMAGES)).argmax(dim=1)
        print(f"{name:8} {(found == 8).float().mean():.1%} of {len(eights)} held-out eights are taken for eights")

# %% [markdown]
# A batch of eights alone has other means than digits have, and in training a batch norm takes the batch's own. It also
# changed the network's running statistics for ever. `load_rung` and the training loop's end call `eval()`; and
# `train()` is due before training goes on.
#
# ## How good is it?
#
# Numbers are worth what they are compared with: the floor is what real images score in the samples' place, the ceiling
# what noise (or a copy) does.

# %%
from diffusion_ladder.foundation.artifacts import read_json

measured = read_json("reports/metrics/mnist_scratch.json")
for name in ("frechet_distance", "label_accuracy", "copied_share"):
    samples, floor, ceiling = (measured[name + bound] for bound in ("", "_floor", "_ceiling"))
    print(f"{name:18} samples {samples:.4f}   floor {floor:.4f}   ceiling {ceiling:.4f}")


# %% [markdown]
# Go on with `part_2_2_huggingface_diffusers`, where the library does the same, or write the training loss yourself:
# `make exercise N=5`.
