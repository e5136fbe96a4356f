"""What a notebook needs before its first cell can go on: packages, the project's code, the artifacts of the pipeline.

Of Python's own library alone, since it runs where nothing is installed yet. Where all is there, it does nothing.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

NEEDED = ("torch", "diffusers", "dvc", "pydantic", "threadpoolctl", "matplotlib", "safetensors", "pandas", "tqdm")


def set_up(project: Path, artifacts: dict[str, str]) -> None:
    """Go to the project's folder, and bring what is missing there; says what it does.

    Args:
        project: the folder of params.yaml.
        artifacts: files or folders that the notebook reads, and the stage of dvc.yaml that makes each.
    """
    os.chdir(project)
    sys.path.insert(0, str(project / "src"))
    os.environ["PYTHONPATH"] = str(project / "src")
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))  # for stages
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        print(
            f"Missing: {', '.join(missing)}. Installing requirements.txt; if an import fails then, restart the kernel."
        )
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "-r", "requirements.txt"], check=True)
    stages = list(dict.fromkeys(stage for path, stage in artifacts.items() if not Path(path).exists()))
    if stages:
        print(f"Building {', '.join(stages)} and what they need: minutes the first time, nothing afterwards.")
        subprocess.run([sys.executable, "-m", "dvc", "repro", *stages], check=True)
    if not missing and not stages:
        print("Everything is there: nothing to set up.")
