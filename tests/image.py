"""The image from scratch: what it is, and that it answers as another user than root on a read-only root.

buildah builds and runs it in a chroot, with a store of its own that is removed at the end.
"""

import http.client
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
STORE = REPOSITORY / "target" / "image-store"
BUILDAH = ["buildah", "--storage-driver", "vfs", "--root", f"{STORE}/root", "--runroot", f"{STORE}/run"]
USER = 65532
MAX_BYTES = 25_000_000
PATIENCE = 20
STARTS = 5

# A root that nobody can write to, not even root, in a mount namespace of its own.
READ_ONLY = 'mount --make-rprivate / && mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


def main():
    shutil.rmtree(STORE, ignore_errors=True)
    STORE.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        directory.chmod(0o755)
        try:
            image = build()
            container = buildah("from", image)
            root = buildah("mount", container)
            inspect(image, root)
            believes_public_certificates(root)
            run_as_the_image_says(container, root, directory)
            run_on_a_read_only_root(root)
        finally:
            buildah("rm", "--all")
            shutil.rmtree(STORE)
    print("the image is what it should be")


def buildah(*arguments):
    """Runs buildah to its end; its output."""
    done = subprocess.run([*BUILDAH, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def build():
    """The image's id."""
    file = REPOSITORY / "deploy" / "docker" / "Dockerfile.scratch"
    context = REPOSITORY / "target" / "image"
    # OCI images have no HEALTHCHECK.
    return buildah("bud", "--quiet", "--isolation", "chroot", "--format", "docker", "--file", str(file), str(context))


def inspect(image, root):
    """Size, contents, user, health check."""
    described = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
    check(described["User"] == f"{USER}:{USER}", f"a user by number: {described['User']}")
    check(described["Healthcheck"]["Test"] == ["CMD", "/usr/bin/tollgate", "status"], "a health check")
    files = sorted(str(path.relative_to(root)) for path in pathlib.Path(root).rglob("*") if not path.is_dir())
    check(files == ["etc/ssl/certs/ca-certificates.crt", "usr/bin/tollgate"], f"nothing but what is needed: {files}")
    size = sum((pathlib.Path(root) / name).stat().st_size for name in files)
    print(f"size: {size} bytes")
    check(size < MAX_BYTES, f"less than {MAX_BYTES} bytes")


def believes_public_certificates(root):
    """A configuration that needs the system's authorities is valid: they are found where they lie."""
    yaml = "listen: 127.0.0.1:0\nupstream: https://localhost:1\nadmin: none\n"
    command = ["chroot", root, "/usr/bin/tollgate", "check", "-c", "-"]
    checked = subprocess.run(command, input=yaml, capture_output=True, text=True)
    check(checked.returncode == 0, f"the authorities are found: {checked.stdout}{checked.stderr}")


def run_as_the_image_says(container, root, directory):
    """By `buildah run`, with a configuration where the image looks for it."""
    web, admin = free_port(), free_port()
    (directory / "proxy.yaml").write_text(
        f"listen: 127.0.0.1:{web}\nupstream: echo\n"
        f"limits: [{{ name: two, key: client_ip, rate: 2/h }}]\nadmin: {{ address: 127.0.0.1:{admin} }}\n"
    )
    (directory / "proxy.yaml").chmod(0o644)
    run = [*BUILDAH, "run", "--isolation", "chroot", "--volume", f"{directory}:/etc/tollgate:ro", container, "--"]
    health = [*run, "/usr/bin/tollgate", "status"]
    check(subprocess.run(health, capture_output=True).returncode == 1, "the health check fails before the start")
    before = contents(root)
    running = subprocess.Popen([*run, "/usr/bin/tollgate", "run"], stdout=subprocess.DEVNULL)
    try:
        first_answer(web, running)
        statuses = [get(web) for _ in range(2)]
        check(statuses == [200, 429], f"the third request is denied: {statuses}")
        check(subprocess.run(health).returncode == 0, "the health check passes")
        process = descendant(running.pid, "tollgate")
        users = status_of(process)["Uid"].split()
        check(set(users) == {str(USER)}, f"not root: {users}")
        os.kill(process, 15)
        check(running.wait(PATIENCE) == 0, "TERM ends it in order")
    finally:
        end(running)
    # buildah makes mount points beside it.
    beside = ("dev", "proc", "sys", "run")
    written = {path for path in contents(root) - before if pathlib.Path(path).parts[0] not in beside}
    check(not written, f"nothing was written: {written}")


def run_on_a_read_only_root(root):
    """In a chroot to the image's root, mounted read-only; how long the first answer takes."""
    inside = ["unshare", "--mount", "sh", "-c", READ_ONLY, root]
    writing = [*inside, "chroot", root, "/usr/bin/tollgate", "init", "-o", "/x.yaml"]
    as_root = subprocess.run(writing, stderr=subprocess.PIPE, text=True)
    check(as_root.returncode == 1 and "Read-only file system" in as_root.stderr, f"read-only: {as_root.stderr}")
    times = []
    for _ in range(STARTS):
        port = free_port()
        command = ["chroot", f"--userspec={USER}:{USER}", root, "/usr/bin/tollgate", "run"]
        command += ["--from", f"127.0.0.1:{port}", "--to", "echo"]
        begun = time.monotonic()
        running = subprocess.Popen([*inside, *command], stderr=subprocess.DEVNULL)
        try:
            first_answer(port, running)
            times.append((time.monotonic() - begun) * 1000)
            users = status_of(running.pid)["Uid"].split()
            check(set(users) == {str(USER)}, f"not root: {users}")
            running.terminate()
            check(running.wait(PATIENCE) == 0, "TERM ends it in order")
        finally:
            end(running)
    each = ", ".join(f"{taken:.0f}" for taken in times)
    print(f"from start to first answer: {statistics.median(times):.0f} ms (median of {each})")


def first_answer(port, running):
    """Waits for the first 200."""
    begun = time.monotonic()
    while True:
        check(running.poll() is None, "it runs on")
        check(time.monotonic() - begun < PATIENCE, "there is an answer in time")
        try:
            status = get(port)
        except OSError:
            time.sleep(0.001)
            continue
        check(status == 200, f"the first answer is 200: {status}")
        return


def get(port):
    """The status of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


def contents(root):
    """Every path below."""
    return {str(path.relative_to(root)) for path in pathlib.Path(root).rglob("*")}


def descendant(ancestor, name):
    """The process of this name below another."""
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or status_of(entry.name).get("Name") != name:
            continue
        process = entry.name
        while process not in ("", "0", "1"):
            process = status_of(process).get("PPid", "")
            if process == str(ancestor):
                return int(entry.name)
    raise SystemExit(f"FAILED: no process {name} below {ancestor}")


def status_of(process):
    """The fields of /proc/PID/status; none when it has ended."""
    try:
        lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def end(running):
    """Ends what a failure left behind, with all that it started."""
    if running.poll() is None:
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit() and status_of(entry.name).get("PPid") == str(running.pid):
                os.kill(int(entry.name), 9)
        running.kill()
        running.wait()


def check(holds, what):
    """Ends the test when it does not hold."""
    if not holds:
        raise SystemExit(f"FAILED: {what}")


if __name__ == "__main__":
    sys.exit(main())
