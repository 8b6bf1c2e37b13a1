#!/bin/bash
# Writes man pages and completion from the option tables. usage: update-docs.sh PIMOE-CLI-DOCS [ROOT]
set -euo pipefail
tool=$(realpath "$1")
cd "${2:-$(dirname "$0")/../..}"
mkdir -p docs/man tools/completion
"$tool" man pimoec >docs/man/pimoec.1
"$tool" man pimoe >docs/man/pimoe.1
"$tool" man pimoe-opt >docs/man/pimoe-opt.1
"$tool" bash >tools/completion/pimoe.bash
"$tool" zsh pimoec >tools/completion/_pimoec
"$tool" zsh pimoe >tools/completion/_pimoe
"$tool" zsh pimoe-opt >tools/completion/_pimoe-opt
