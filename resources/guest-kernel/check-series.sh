#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Checks the patches for a kernel one by one, on its unpatched source: `git am`
# takes each, what it touches then compiles without a warning, and checkpatch.pl
# has nothing to say.
#
#   check-series.sh [--linux 6.12|7.3] [CACHE_DIR]
#
#   CACHE_DIR   as of build.sh, whose package it shares
#
# After each patch the folders of all C files that the series changes are built,
# in two configurations: that of the images here, and the same without CONFIG_OF,
# so that ACPI is what describes devices.  In both, vDPA is on as well.  Nothing is
# linked; build.sh does that for the whole series.
#
# checkpatch.pl runs with --strict --no-signoff.  Two of its warnings are expected,
# and shown: UNKNOWN_COMMIT_ID, since the source has no history, and
# FILE_PATH_CHANGES, the reminder to look at MAINTAINERS.  Its look at SPDX lines
# needs Python's ply (package python3-ply), and is left out without.
#
# A line for each patch; the exit status is 0 if there is nothing else to say.
# Environment: as of build.sh.

set -euo pipefail
# shellcheck source=kernel.sh
. "$(dirname "${BASH_SOURCE[0]}")/kernel.sh"

readonly expected='UNKNOWN_COMMIT_ID|FILE_PATH_CHANGES'

if [[ ${1-} == --linux ]]; then
    [[ $# -ge 2 ]] || usage
    choose_kernel "$2"
    shift 2
else
    choose_kernel 6.12
fi
[[ $# -le 1 && ${1-} != -* ]] || usage
cache=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/cvmm-guest-kernel}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

# git without anybody's configuration or name.
tree_git() {
    GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 git -C "$tree" \
        -c user.name=cvmm -c user.email=cvmm@localhost -c gc.auto=0 "$@"
}

# Files that the patches name after $1, "+++ b" or "--- a".
named() { sed -n "s,^$1/,,p" "${all_patches[@]}" | sort -u; }

# A repository of the files that the series changes: `git am` needs no others.
make_repository() {
    local file
    tree_git init -q
    while IFS= read -r file; do
        [[ ! -e $tree/$file ]] || tree_git add -f -- "$file"
    done < <(named '--- a')
    tree_git commit -q -m "$PACKAGE $version"
}

# use of|acpi: the objects of that configuration.
use() { objects=$cache/objects$suffix-series-$1; }

# Leaves what is asked for in $objects/wanted.config: what a patch makes possible
# comes with it.
prepare_configuration() {
    use "$1"
    rm -rf "$objects"
    configure
    local config=("$tree/scripts/config" --file "$objects/.config")
    "${config[@]}" -e VDPA -e VIRTIO_VDPA
    [[ $1 == of ]] || "${config[@]}" -d OF
    cp "$objects/.config" "$objects/wanted.config"
}

# Builds the folders; what it printed is in $objects/log.
build_folders() {
    use "$1"
    cp "$objects/wanted.config" "$objects/.config"
    { kernel_make -s olddefconfig && kernel_make -s -j"$jobs" KCFLAGS=-Werror "${folders[@]}"; } \
        >"$objects/log" 2>&1
}

# The types of what checkpatch.pl finds in the patch, on one line.
checkpatch() {
    { (cd "$tree" && perl scripts/checkpatch.pl --strict --no-signoff --show-types --terse "$1" \
        2>>"$cache/checkpatch.log") || true; } |
        sed -n 's/^.*: \(ERROR\|WARNING\|CHECK\):\([A-Z_]*\): .*/\2/p' | sort -u | tr '\n' ' '
}

install_dependencies git:git
fetch_source
tree=$cache/$PACKAGE-series
unpack_source "$tree"
make_repository
mapfile -t folders < <(named '+++ b' | sed -n 's,[^/]*\.c$,,p' | sort -u)
for configuration in of acpi; do
    prepare_configuration "$configuration"
    say "building ${folders[*]} without a patch ($configuration)"
    build_folders "$configuration" || { tail -n 20 "$objects/log"; die "the source does not build"; }
done

wrong=0
for patch in "${all_patches[@]}"; do
    line=$(basename "$patch" .patch)
    if ! tree_git am -q "$patch" >"$cache/am.log" 2>&1; then
        cat "$cache/am.log" >&2
        die "$line does not apply"
    fi
    line+=': applies'
    for configuration in of acpi; do
        if build_folders "$configuration"; then
            line+=", builds ($configuration)"
        else
            line+=", DOES NOT BUILD ($configuration, $objects/log)"
            wrong=1
        fi
    done
    types=$(checkpatch "$patch")
    types=${types% }
    line+=", checkpatch: ${types:-clean}"
    ! grep -qvxE "$expected" < <(tr ' ' '\n' <<<"$types" | grep .) || { line+=' UNEXPECTED'; wrong=1; }
    echo "$line"
done
use acpi
grep -qx '# CONFIG_OF is not set' "$objects/.config" && grep -qx CONFIG_DMA_RESTRICTED_POOL=y "$objects/.config" ||
    die "the series has no restricted pools without CONFIG_OF"
exit $wrong
