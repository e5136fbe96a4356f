"""Sharing through a DVC remote: what one clone pushes, another pulls, to the byte, and finds nothing left to do."""

import importlib.util
import shutil
import sys

import pytest
from conftest import run

from diffusion_ladder.foundation.hashes import md5_of_output
from diffusion_ladder.foundation.section import load_yaml

pytestmark = pytest.mark.slow
HAS_S3 = all(importlib.util.find_spec(name) for name in ("moto", "dvc_s3"))


def succeed(folder, *command, **environment):
    done = run([*command], folder, **environment)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.skipif(not HAS_S3, reason="moto and dvc-s3"))])
def remote(request, tmp_path, monkeypatch):
    """How a clone is told of the remote: options of `dvc remote add` and `dvc remote modify`."""
    if request.param == "folder":
        yield [["add", "--default", "storage", str(tmp_path / "storage")]]
        return
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "anybody")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    import boto3

    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="ladder")
    yield [
        ["add", "--default", "storage", "s3://ladder/storage"],
        ["modify", "storage", "endpointurl", endpoint],
    ]
    server.stop()


def be_somebody(clone):
    for name, value in (("name", "test"), ("email", "test@localhost")):
        succeed(clone, "git", "config", f"user.{name}", value)


def tell(clone, remote):
    for command in remote:
        succeed(clone, "dvc", "remote", command[0], "--local", *command[1:])


def test_what_is_pushed_from_one_clone_is_pulled_in_another(smoke, tmp_path, remote):
    """Artifacts, the run cache, and an experiment by its name."""
    first, second, origin = tmp_path / "first", tmp_path / "second", tmp_path / "origin.git"
    shutil.copytree(smoke, first, symlinks=True)
    (first / ".dvc/config.local").unlink()
    succeed(tmp_path, "git", "init", "-q", "--bare", str(origin))
    succeed(first, "git", "init", "-q", "-b", "main")
    be_somebody(first)
    for command in (["add", "-A"], ["commit", "-qm", "built"], ["remote", "add", "origin", str(origin)]):
        succeed(first, "git", *command)
    tell(first, remote)
    override = "rungs.circles.figures.frames_per_second=5"
    succeed(first, "dvc", "exp", "run", "--name", "short", "-S", override, "render@circles")
    succeed(first, "git", "checkout", "-q", "--", ".")
    succeed(first, "dvc", "checkout", "--force")
    succeed(first, "dvc", "push", "--quiet", "--run-cache")
    succeed(first, "git", "push", "-q", "origin", "main")
    succeed(first, "dvc", "exp", "push", "origin", "short")

    succeed(tmp_path, "git", "clone", "-q", "-b", "main", str(origin), str(second))
    be_somebody(second)
    tell(second, remote)
    succeed(second, "dvc", "pull", "--quiet", "--run-cache")
    for path in ("data/samples", "data/processed", "models"):
        assert md5_of_output(path, second) == md5_of_output(path, smoke)
    assert "up to date" in succeed(second, "dvc", "repro")
    assert sorted(path.name for path in (second / ".dvc/cache/runs").glob("*/*")) == sorted(
        path.name for path in (smoke / ".dvc/cache/runs").glob("*/*")
    )
    verified = run([sys.executable, "-m", "diffusion_ladder.verify"], second)
    assert verified.returncode == 0, verified.stdout

    succeed(second, "dvc", "exp", "pull", "origin", "short")
    assert "short" in succeed(second, "dvc", "exp", "list")
    succeed(second, "dvc", "exp", "apply", "short")
    assert load_yaml(second / "params.yaml")["rungs"]["circles"]["figures"]["frames_per_second"] == 5
