# %% [markdown]
# # Part 3.1: faces by gender
#
# Portraits in colour with a label, a class-conditional U-Net of diffusers, and guidance. The portraits are drawn unless
# `datasets.faces.source` in `params.yaml` names photographs; the columns are those of the TMDB celebrities either way.
# Run the cells from top to bottom.
#
# Whoever runs it on photographs of people has these people in its outputs: clear them before the notebook goes
# anywhere.

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
        "data/raw/faces": "fetch@faces",
        "data/processed/faces.safetensors": "preprocess@faces",
        "models/faces": "train@faces",
        "data/samples/faces.trajectories.safetensors": "sample@faces",
        "reports/metrics/faces.json": "evaluate@faces",
    },
)

# %% [markdown]
# ## The device comes first

# %%
from diffusion_ladder.device import configure
from diffusion_ladder.params.whole import load_parameters

parameters = load_parameters()
rung = parameters.rungs["faces"]
compute = configure(parameters.runtime)
print("device:", compute.device, "  matrix products in", compute.precision)

# %% [markdown]
# ## The labels as they come
#
# The column `gender` is coded 0 not set, 1 female, 2 male, 3 non-binary. A stage of the pipeline keeps the rows that
# `params.yaml` names a class for.

# %%
import pandas

from diffusion_ladder.foundation.artifacts import read_json, read_metadata, read_tensors

raw = Path("data/raw/faces")
column = pandas.concat(
    [pandas.read_parquet(raw / file["name"], columns=["gender"]) for file in read_json(raw / "card.json")["files"]]
)["gender"]
print("in the column:", column.value_counts().sort_index().to_dict())
print("class of each code:", dict(parameters.datasets["faces"].preprocess.labels))

path = "data/processed/faces.safetensors"
data, names = read_tensors(path), read_metadata(path)["class_names"]
images, labels = data["train"], data["train_labels"]
print(
    f"{len(images):,} training images {tuple(images.shape[1:])} {images.dtype}:",
    dict(zip(names, labels.bincount().tolist(), strict=True)),
)

# %%
import torch
from IPython.display import Image, display

from diffusion_ladder.figures.canvas import house_style
from diffusion_ladder.figures.samples import encode_grid

synthetic = read_json(raw / "card.json")["synthetic"]
examples = torch.stack([images[labels == label][:12] for label in range(len(names))])
with house_style():
    picture = Image(encode_grid(examples, names, together=2, synthetic=synthetic))
picture

# %% [markdown]
# ## Common issue: labels 1 and 2 instead of 0 and 1
#
# A class embedding has a row for each class, counted from 0. Two classes called 1 and 2 ask for a third row. Where
# there is none, this fails (on a GPU with nothing but "device-side assert triggered"):

# %%
two_rows = torch.nn.Embedding(num_embeddings=2, embedding_dim=4)
try:
    two_rows(torch.tensor([1, 2]))
except IndexError as error:
    print("IndexError:", error)

# %% [markdown]
# With classifier-free guidance there is a third row: the null label, which means "anybody". Then nothing fails, and it
# is worse: code 1 (female) trains the row of men, code 2 the row of anybody, and row 0 is never trained. Further down,
# the trained model shows what each row draws.
#
# ## The forward process, every 50 timesteps
#
# $x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \varepsilon$. Bytes in [0, 255] become [-1, 1] first: see
# Part 2.1 for what happens if they stop at [0, 1].

# %%
from diffusion_ladder.data.normalise import IMAGES, normalise, unnormalise
from diffusion_ladder.figures.strips import encode_strip, forward_strip
from diffusion_ladder.figures.ways import forward_states, forward_timesteps
from diffusion_ladder.forward_process import forward_process
from diffusion_ladder.randomness import generator

schedule = forward_process(rung.schedule)
shown = examples[:, 0]
x_0 = normalise(shown, IMAGES)
epsilon = torch.randn(x_0.shape, generator=generator(parameters.seed, "notebook", "faces"))
timesteps = forward_timesteps(schedule.T, 50)
states = unnormalise(forward_states(x_0, epsilon, schedule.alpha_bar, timesteps), IMAGES)
with house_style():
    picture = Image(encode_strip(forward_strip(states, timesteps)[0], shown))
picture

# %% [markdown]
# ## The same, every 20 timesteps

# %%
timesteps = forward_timesteps(schedule.T, 20)
states = unnormalise(forward_states(x_0[:1], epsilon[:1], schedule.alpha_bar, timesteps), IMAGES)
for part in (slice(0, 17), slice(17, 34), slice(34, 50)):
    with house_style():
        display(Image(encode_strip(forward_strip(states[part], timesteps[part])[0], shown[:1])))

# %% [markdown]
# ## The network
#
# `UNet2DModel` with three levels, and a class embedding of three rows: two classes, and the null label. It predicts the
# velocity $v = \sqrt{\bar\alpha_t}\, \varepsilon - \sqrt{1 - \bar\alpha_t}\, x_0$, which asks for something at every
# timestep: the noise where there is little of it, the image where there is hardly anything else.

# %%
from diffusion_ladder.rehearsal import Rehearsal
from diffusion_ladder.rungs import parameter_count

training = rung.training.model_copy(update={"steps": 30, "warmup_steps": 5})
task = Rehearsal("faces", rung.model_copy(update={"training": training}), images, labels).task(compute)
fresh = task.rung
print(f"{parameter_count(fresh.network):,} parameters")
print("class embedding:", fresh.network.unet.class_embedding, "  null label:", fresh.null_label)

# %% [markdown]
# ## Common issue: model and data on two devices, labels as floats
#
# `Task` takes data and labels that are where the network is. A scheduler keeps its tables on the CPU and moves what it
# needs; a network moves nothing. And the labels are int64, as they were stored:

# %%
print(
    "network",
    next(fresh.network.parameters()).device,
    "  data",
    task.data.device,
    "  labels",
    task.labels.device,
    task.labels.dtype,
)

# %% [markdown]
# ## Training, live
#
# Thirty steps are enough to see the loss fall, and far too few to draw a face.

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
# The same network after all of its steps, with the library's loop: the same noise above each other, so that nothing but
# the class differs.

# %%
from dataclasses import replace

from diffusion_ladder.rungs import load_rung
from diffusion_ladder.sampling.loop import Drawing, draw_samples

trained = load_rung("models/faces")
trained = replace(trained, network=trained.network.to(compute.device))
sampling = rung.sampling.model_copy(update={"trajectory_count": 2})
drawing = Drawing(trained, sampling.sampler, sampling, 20, 12, parameters.seed, precision=compute.precision)
with tqdm(total=drawing.total * 20, desc="sampling", unit=" steps") as progress:
    drawn = draw_samples(drawing, progress.update)
with house_style():
    picture = Image(encode_grid(drawn.samples.unflatten(0, (len(names), -1)), names, together=2))
picture

# %% [markdown]
# ## What each row of the class embedding draws
#
# From the same noise: row 0, row 1, and the null label's row 2. Whoever trains on labels 1 and 2 has women in row 1 and
# men where "anybody" should be; guidance, which leads away from anybody, would then lead women away from men, and men
# nowhere.

# %%
from diffusion_ladder.model import Model

model = Model(trained, tuple(names))
rows, places = torch.arange(3).repeat_interleave(6), torch.arange(6).repeat(3)
with tqdm(total=len(rows) * 10, desc="rows", unit=" steps") as progress:
    by_row = model.draw(
        sampling.model_copy(update={"steps": 10}),
        rows,
        places,
        seed=0,
        precision=compute.precision,
        progress=progress.update,
    )
with house_style():
    picture = Image(
        encode_grid(
            by_row.unflatten(0, (3, 6)), [*(f"{row}: {name}" for row, name in enumerate(names)), "2: null label"]
        )
    )
picture

# %% [markdown]
# ## Common issue: `eval()` forgotten
#
# `load_rung` calls it, and so does the training loop at its end; the check costs a line. Batch norms and dropout would
# otherwise spoil the samples without a word: Part 2.1 shows how much.

# %%
print("in training mode:  fresh", fresh.network.training, "  trained", trained.network.training)

# %% [markdown]
# ## The reverse process
#
# The way of the pipeline's own samples, kept when they were drawn: above what the network saw, below the clean image
# that it expected.

# %%
from diffusion_ladder.figures.strips import reverse_strip
from diffusion_ladder.figures.ways import Way

kept = read_tensors("data/samples/faces.trajectories.safetensors")
final = kept["sampling.final"]
way = Way(
    "DDPM",
    [*(kept["sampling.timesteps"] + 1).tolist(), 0],
    *(torch.cat([kept[f"sampling.{part}"], final[None]]) for part in ("states", "predicted")),
)
first_of_each = [label * len(final) // len(names) for label in range(len(names))]
with house_style():
    picture = Image(encode_strip(reverse_strip(way.thinned(12).of(first_of_each), names)[0], final))
picture

# %% [markdown]
# ## How good is it?
#
# The floor is what real portraits score in the samples' place. `label_accuracy` is how often a judge finds the gender
# that was asked for. And a model of faces must not give its training faces away:

# %%
measured = read_json("reports/metrics/faces.json")
for name in ("frechet_distance", "label_accuracy", "copied_share"):
    samples, floor, ceiling = (measured[name + bound] for bound in ("", "_floor", "_ceiling"))
    print(f"{name:18} samples {samples:.4f}   floor {floor:.4f}   ceiling {ceiling:.4f}")

print(measured["memorisation_verdict"])

# %% [markdown]
# Go on with the report, and with what you would like to know: change a number in `params.yaml`, and `dvc repro`.
# Guidance can be written, too: `make exercise N=10`.
