"""A training and those who watch over it: log, progress bar, previews, checkpoints, signals and other processes."""

import copy
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from torch import Tensor
from tqdm import tqdm

from diffusion_ladder.foundation.artifacts import write_text
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.runtime import Stage
from diffusion_ladder.params.runtime import Runtime
from diffusion_ladder.params.training import Previews
from diffusion_ladder.processes import Processes, ProcessLostError
from diffusion_ladder.rungs import Rung
from diffusion_ladder.training.checkpoint import Checkpoints, give_to_all, noted_signals
from diffusion_ladder.training.history import History
from diffusion_ladder.training.loop import Task, draw_batch, initial_state, train

CHECKPOINTS = Path(".checkpoints")

IN_QUEUE = "in-queue"  # no rung can have this name

DrawPreview = Callable[[Rung], Tensor]  # few samples, from the same noise every time


def checkpoints_of(project: Path, model: str, key: str) -> tuple[Path, str, bool]:
    """Where a training's checkpoints are: a folder, the name in it, and whether other trainings may hold that name.

    They are in .checkpoints/ of the project. A queued experiment runs in a copy, PROJECT/.dvc/tmp/exps/NAME, which DVC
    removes when it ends, however it ends: its checkpoints are beside those of the project, where the same experiment
    finds them when it is queued again, each training under a name of its own.

    Args:
        project: the absolute path of the working directory.
        key: hash of all that decides the training's result.
    """
    if project.parts[-4:-1] != (".dvc", "tmp", "exps"):
        return CHECKPOINTS, model, False
    return project.parents[3] / CHECKPOINTS / IN_QUEUE, f"{model}-{key[:16]}", True


class Session:
    """One training of a rung, from its last checkpoint or from the beginning.

    Attributes:
        state: weights, averages and optimiser.
        history: log and previews.
        checkpoints: where it is saved.
    """

    def __init__(
        self,
        stage: Stage,
        task: Task,
        draw_preview: DrawPreview,
        processes: Processes,
    ) -> None:
        """Get ready; nothing is read or written yet.

        Args:
            stage: lists the rung's previews and the runtime.
            task: its rung with fresh weights, all of it on the stage's device.
            draw_preview: what the previews are drawn with.
            processes: among which each batch is shared.
        """
        self.stage, self.task, self.rung, self.settings = stage, task, task.rung, task.settings
        self.draw_preview, self.processes = draw_preview, processes
        shares = stage.section("previews", Previews).at
        self.previewed = {max(1, round(share * self.settings.steps)) for share in shares}  # steps
        if (mode := stage.parameter("runtime", Runtime).compile) != "never":
            self.rung.network.compile(mode=mode)  # in place: the weights keep their names
        self.state = initial_state(self.rung, self.settings)
        self.history = History(self.settings, self.rung.schedule.T, stage.device)
        key = stage.fingerprint()
        root, name, waits = checkpoints_of(Path.cwd(), stage.key, key)
        self.checkpoints = Checkpoints(
            root, name, key, stage.checkpoint_seconds, lambda step: draw_batch(task, step), waits
        )

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.stage.launch.is_main

    def locked(self) -> AbstractContextManager[None]:
        """Keep other runs from training the same model."""
        return self.checkpoints.locked() if self.is_main else nullcontext()

    def run(self) -> None:
        """Train to the end; SIGINT, SIGTERM and the loss of another process save and end it before."""
        self.begin()
        first, start = self.state.steps, time.perf_counter()
        with noted_signals(repeated=self.processes.count > 1) as signals, self.progress_bar() as progress:
            try:
                self.watch(signals, progress)
            except ProcessLostError as error:
                if not self.is_main:
                    raise
                saved = self.checkpoints.save(self.state, self.history)
                raise ProcessLostError(f"{error}; stopped after step {self.state.steps}, saved in {saved}") from None
        done = (self.state.steps - first) * self.settings.batch_size
        self.stage.note_work("example trained on", done, time.perf_counter() - start)

    def watch(self, signals: list[int], progress: tqdm) -> None:
        """Follow the training loop step by step."""
        for step in train(self.task, self.state, self.processes):
            self.history.add(step)
            progress.update(self.settings.batch_size)
            if self.history.row_is_due:
                self.checkpoints.require_finite(self.history)
                progress.set_postfix(loss=f"{self.history.close_row():.4f}")
                self.write_log()
            if step.number in self.previewed and self.is_main:
                self.history.add_preview(self.preview())
            if self.processes.any(bool(signals)):
                progress.close()
                self.stop(signals)
            if self.checkpoints.due and self.is_main:
                self.checkpoints.save(self.state, self.history)

    def begin(self) -> None:
        """Go back to the last checkpoint, if there is one, and say so."""
        label = self.stage.label
        if self.is_main:
            for folder in self.checkpoints.others():
                print(f"{label}: {folder} was made with other parameters, data or code: not used", file=sys.stderr)
            if path := self.checkpoints.restore(self.state, self.history):
                print(f"{label}: goes on after step {self.state.steps}, from {path}", file=sys.stderr)
        if self.processes.count > 1:
            give_to_all(self.processes, self.state, self.history)
        self.write_log()

    def stop(self, signals: list[int]) -> NoReturn:
        """Save, say where, and exit with the signal's usual code, once all processes have got here."""
        if self.is_main:
            saved = self.checkpoints.save(self.state, self.history)
            print(f"{self.stage.label}: stopped after step {self.state.steps}, saved in {saved}", file=sys.stderr)
        self.processes.wait()  # when the first process ends, the launcher ends the others
        sys.exit(128 + (signals or [signal.SIGTERM])[0])

    def preview(self) -> Tensor:
        """Samples by the averaged weights as they are; weights that give none have run away."""
        self.checkpoints.require_finite(self.history)
        network = copy.deepcopy(self.state.network)
        self.state.average.copy_to(network)
        try:
            return self.draw_preview(replace(self.rung, network=network.eval()))
        except UserError as error:
            raise UserError(f"preview after step {self.state.steps}: {error}; {self.checkpoints.words}") from error

    def write_log(self) -> None:
        """Write the log so far, in the main process: `dvc plots` shows it while it grows."""
        if self.is_main:
            write_text(f"reports/training/{self.stage.key}.tsv", self.history.log())

    def progress_bar(self) -> tqdm:
        """Loss, images per second and time left."""
        return tqdm(
            total=self.settings.steps * self.settings.batch_size,
            initial=self.state.steps * self.settings.batch_size,
            desc=self.stage.label,
            unit=" images" if self.rung.normalisation.bytes else " points",
            unit_scale=True,
            disable=not self.is_main,
        )
