"""Writes a container image that containerd can import, without Docker: `image.py NAME:TAG OUT.tar PROGRAM [PROGRAM...]`.

The first program is the image's entry point. Each lands in /usr/local/bin, beside the shared libraries that it needs,
the libraries that glibc loads by itself to resolve names, and an /etc just large enough. The image runs as user 10001.
"""

import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile

USER = 10001
ETC = {
    "/etc/passwd": f"root:x:0:0::/:/\nvolt:x:{USER}:{USER}::/var/lib/volt:/\n",
    "/etc/group": f"root:x:0:\nvolt:x:{USER}:\n",
    "/etc/nsswitch.conf": "hosts: files dns\n",
}
FOLDERS = {"/tmp": (0o1777, 0), "/var/lib/volt": (0o700, USER)}
MEDIA = "application/vnd.oci.image"


def libraries(program):
    """The files that the dynamic loader will ask for, and the loader; none for a static program."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    needed = {word for line in listed.splitlines() for word in line.split() if word.startswith("/")}
    beside_libc = {os.path.dirname(path) for path in needed if os.path.basename(path) == "libc.so.6"}
    for name in ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"):
        needed |= {path for path in (os.path.join(folder, name) for folder in beside_libc) if os.path.exists(path)}
    return needed


def read(path):
    with open(os.path.realpath(path), "rb") as file:
        return file.read()


def tar(files, folders=None):
    """The same input gives the same bytes, so that an unchanged image keeps its digest."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, (mode, owner) in sorted((folders or {}).items()):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, owner, owner
            archive.addfile(entry)
        for path, (data, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def layer(programs):
    files = {path: (text.encode(), 0o644) for path, text in ETC.items()}
    for program in programs:
        files["/usr/local/bin/" + os.path.basename(program)] = (read(program), 0o755)
        files |= {path: (read(path), 0o755) for path in libraries(program)}
    return tar(files, FOLDERS)


def archive(name, programs):
    blobs = {}

    def blob(kind, data):
        digest = hashlib.sha256(data).hexdigest()
        blobs["blobs/sha256/" + digest] = (data, 0o644)
        return {"mediaType": f"{MEDIA}.{kind}", "digest": "sha256:" + digest, "size": len(data)}

    content = blob("layer.v1.tar", layer(programs))
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": ["/usr/local/bin/" + os.path.basename(programs[0])], "User": f"{USER}:{USER}"},
        "rootfs": {"type": "layers", "diff_ids": [content["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{MEDIA}.manifest.v1+json",
        "config": blob("config.v1+json", json.dumps(config).encode()),
        "layers": [content],
    }
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rsplit(":", 1)[1]}
    entry = blob("manifest.v1+json", json.dumps(manifest).encode()) | {"annotations": names}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    return tar(blobs | {"oci-layout": (b'{"imageLayoutVersion":"1.0.0"}', 0o644), "index.json": (index, 0o644)})


if __name__ == "__main__":
    image_name, out, *image_programs = sys.argv[1:]
    with open(out, "wb") as image_file:
        image_file.write(archive(image_name, image_programs))
