#!/usr/bin/env bash
# Builds the API server of Kubernetes from the Go module registry into the given folder (default: .venv/kubernetes).
# Needs Go 1.22 or later; takes some minutes. Then: WARMPATH_KUBE_APISERVER=<folder>/kube-apiserver npm run interop -- kubernetes
set -euo pipefail
version=1.31.4
folder=$(realpath -m "${1:-.venv/kubernetes}")
mkdir -p "$folder/source"
cd "$folder/source"
proxy=$(go env GOPROXY | cut -d, -f1)
curl -fsS -m 60 "$proxy/k8s.io/kubernetes/@v/v$version.mod" -o kubernetes.mod
{
  printf 'module apiserver\n\ngo 1.22.0\n\nrequire k8s.io/kubernetes v%s\n\nreplace (\n' "$version"
  # Parts of the same release, which the module names without a version.
  grep -oE 'k8s\.io/[a-z-]+ v0\.0\.0$' kubernetes.mod | awk -v release="v0.${version#1.}" '{ print "\t" $1 " => " $1 " " release }'
  printf ')\n'
} > go.mod
cat > main.go <<'GO'
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() { os.Exit(cli.Run(app.NewAPIServerCommand())) }
GO
export GOFLAGS=-mod=mod CGO_ENABLED=0
go mod tidy -e
go build -o "$folder/kube-apiserver" -ldflags '-s -w' .
echo "$folder/kube-apiserver"
