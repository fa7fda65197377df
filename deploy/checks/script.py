"""What deploy/terraform/starling asks of Terraform, AWS and the cluster, with programs in their place.

Those write down how they were called, and hold as much of the world as the script goes by: buckets are files, and a state of
Terraform's is a file with a bucket's name in it.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

TERRAFORM = Path(__file__).resolve().parent.parent / "terraform"

# What they have in common: each call is a line of the log.
HEAD = """#!/usr/bin/env bash
set -eu
echo "${0##*/} $*" >>"$WORLD/log"
value() { local name=$1; shift; for word; do [[ $word != "$name"=* ]] || echo "${word#*=}"; done; }
refuse() { echo "An error occurred ($1) when calling the HeadBucket operation: $2" >&2; exit 254; }
"""

STUBS = {
    "aws": """
        case "$*" in
        *get-caller-identity*) echo 111122223333 ;;
        "configure get region") echo eu-central-1 ;;
        *head-bucket*)
            [[ ! -e $WORLD/forbidden ]] || refuse 403 Forbidden
            [[ -e $WORLD/buckets/${4} ]] || refuse 404 "Not Found" ;;
        *describe-images*) [[ -e $WORLD/image ]] ;;
        *get-resources*) cat "$WORLD/left" 2>/dev/null || true ;;
        esac""",
    # What init was told holds for the folder of notes that it was told it in, as with the real one.
    "terraform": """
        folder=${1#-chdir=} notes=${TF_DATA_DIR:-${1#-chdir=}/.terraform}/notes
        mkdir -p "${notes%/*}"; [[ -e $notes ]] || echo "$folder/terraform.tfstate" >"$notes"
        case "$*" in
        *"/bootstrap init"*) for word; do [[ $word != -backend-config=path=* ]] || echo "${word#*=*=}" >"$notes"; done ;;
        *"/aws init"*) for word; do [[ $word != -backend-config=bucket=* ]] || echo "${word#*=*=}" >"$notes"; done
            [[ -e $WORLD/buckets/$(cat "$notes") ]] || { echo "the bucket $(cat "$notes") does not exist" >&2; exit 1; } ;;
        *"/bootstrap state list"*) cat "$(cat "$notes")" ;;
        *"/bootstrap import"*) echo "$(value bucket "$@")" >"$(cat "$notes")"; : >"$WORLD/imported" ;;
        *"/bootstrap apply"*)
            state=$(cat "$notes") wanted=$(value bucket "$@")
            # Another name is another bucket, in place of the one in the state.
            [[ ! -e $state || $(cat "$state") == "$wanted" ]] || rm "$WORLD/buckets/$(cat "$state")"
            : >"$WORLD/buckets/$wanted"; echo "$wanted" >"$state"; rm -f "$WORLD/imported" ;;
        *"/bootstrap destroy"*)
            [[ ! -e $WORLD/imported ]] || { echo BucketNotEmpty >&2; exit 1; }
            state=$(cat "$notes"); rm "$WORLD/buckets/$(cat "$state")" "$state" ;;
        *"/aws output"*) echo registry.example/starling ;;
        esac""",
    "kubectl": "",
    "cargo": "",
    "buildah": "cat >/dev/null",
}


class World:
    """A folder with the script and all that it can see."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.home = self.folder / "checkout" / "deploy" / "terraform"
        for made in (self.home / "bootstrap", self.home / "aws", self.folder / "bin", self.folder / "buckets"):
            made.mkdir(parents=True)
        shutil.copy(TERRAFORM / "starling", self.home)
        for name, body in STUBS.items():
            path = self.folder / "bin" / name
            path.write_text(HEAD + body)
            path.chmod(0o755)

    def run(self, *arguments, **variables):
        """The exit code, what was asked of others, and what was said."""
        (self.folder / "log").write_text("")
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "WORLD": str(self.folder),
            **variables,
        }
        done = subprocess.run(
            [self.home / "starling", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        return done.returncode, (self.folder / "log").read_text().replace(str(self.home) + "/", ""), done.stdout + done.stderr

    def buckets(self):
        return {path.name for path in (self.folder / "buckets").iterdir()}


ONE, TWO = (f"{name}-state-111122223333-eu-central-1" for name in ("one", "two"))


def two_clusters(world):
    for name in ("one", "two", "one"):
        code, _, said = world.run("apply", f"name={name}")
        assert code == 0, said
    assert world.buckets() == {ONE, TWO}, f"two clusters have the buckets {world.buckets()}"
    code, log, said = world.run("destroy", "name=two")
    assert code == 0 and world.buckets() == {ONE}, f"after the second one's end there are {world.buckets()}: {said}"
    kinds = [
        log.index(what)
        for what in (
            "delete service",
            "delete statefulset",
            "delete nodepools",
            "-chdir=aws destroy",
            "-chdir=bootstrap destroy",
        )
    ]
    assert kinds == sorted(kinds), f"not in the order in which it can be taken away: {log}"


def a_bucket_that_no_file_here_knows(world):
    world.run("apply", "name=one")
    (world.home / "bootstrap" / f"{ONE}.tfstate").unlink(missing_ok=True)
    code, log, said = world.run("destroy", "name=one")
    assert code == 0 and not world.buckets(), said
    assert "bootstrap import" in log, log
    # And then once more.
    code, log, said = world.run("destroy", "name=one")
    assert code == 0 and "nothing is left" in said, said
    assert "terraform" not in log and "get-resources" in log, f"without a bucket there is nothing to ask Terraform: {log}"
    (world.folder / "left").write_text("arn:aws:ec2:eu-central-1:111122223333:volume/vol-1\n")
    code, _, said = world.run("destroy", "name=one")
    assert code == 1 and "vol-1" in said, said


def a_bucket_of_somebody_else(world):
    (world.folder / "forbidden").touch()
    for command in ("apply", "destroy"):
        code, log, said = world.run(command)
        assert code == 1 and "Forbidden" in said and " apply " not in log and " destroy " not in log, f"{command}: {said}"


def the_region(world):
    code, log, said = world.run("apply", "region=us-east-1", AWS_REGION="eu-west-1")
    assert code == 0 and "region=us-east-1" in log and "eu-west-1" not in log and "eu-central-1" not in log, f"{said}{log}"
    _, log, _ = world.run("apply", AWS_REGION="eu-west-1")
    assert "region=eu-west-1" in log and "eu-central-1" not in log, log


def the_image(world):
    _, log, _ = world.run("apply", "image_tag=2")
    assert "cargo xtask image --push --builder buildah --repository registry.example/starling --tag 2" in log, log
    (world.folder / "image").touch()
    _, log, _ = world.run("apply", "image_tag=2")
    assert "cargo" not in log, f"a tag that is there is built again: {log}"
    (world.folder / "image").unlink()
    code, log, said = world.run("apply", "image=registry.example/speech/starling:3")
    assert code == 0 and "cargo" not in log and "-target" not in log and "image=registry.example/speech/starling:3" in log, (
        f"{said}{log}"
    )


def what_is_refused(world):
    for arguments, words in (
        (["aply"], "aply"),
        ([], "no command"),
        (["apply", "callers"], '"callers"'),
        (["models"], "which?"),
        (["models", "../x"], "../x"),
    ):
        code, log, said = world.run(*arguments)
        assert code == 64 and words in said and "terraform" not in log, f"{arguments}: {code}, {said}{log}"


def faults():
    """What the script does that it must not, or does not do."""
    wrong = []
    for case in (
        two_clusters,
        a_bucket_that_no_file_here_knows,
        a_bucket_of_somebody_else,
        the_region,
        the_image,
        what_is_refused,
    ):
        with tempfile.TemporaryDirectory() as folder:
            try:
                case(World(folder))
            except AssertionError as error:
                wrong.append(f"{case.__name__}: {error}")
    return wrong
