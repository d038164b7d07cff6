#!/usr/bin/env bash
# Builds the container image with what is there: docker, podman or buildah. deploy/image.sh [NAME]
# IMAGE_ARGS are given to the build, such as "--build-arg BASE=registry.example/debian:bookworm-slim".
set -eu
cd "$(dirname "$0")/.."
name=${1:-openclaw-proxy} version=$(cat VERSION)
if docker info >/dev/null 2>&1; then with="docker build"
elif command -v podman >/dev/null; then with="podman build --format docker"
elif command -v buildah >/dev/null; then with="buildah build --format docker" # OCI's format has no HEALTHCHECK
else echo "make image needs docker, podman or buildah" >&2; exit 1; fi
echo "building $name:$version with ${with%% *}"
$with ${IMAGE_ARGS:-} -t "$name:$version" -t "$name:latest" .
