#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Builds the guest kernel of cvmm's tests and examples, reproducibly, from
# Debian's package linux-source-6.12, without a patch of ours or, with --patched,
# with those in patches/; or, with --linux 7.3, the same from linux-source-7.3 and
# patches-7.3/.
#
#   build.sh [--linux 6.12|7.3] [--patched | --lock-stat] [OUTPUT_DIR [CACHE_DIR]]
#
#   OUTPUT_DIR  gets bzImage-x86_64, config-x86_64.full and PROVENANCE.toml;
#               with --patched, bzImage-x86_64-patched and
#               PROVENANCE-patched.toml, and the configuration must come out as
#               the one beside this script.  With --lock-stat, only
#               bzImage-x86_64-lock-stat: the patched kernel that also counts the
#               waits for its locks, for `cargo lab bench --contend --kernel`.
#               With --linux 7.3, bzImage-x86_64-7.3, config-x86_64-7.3.full and
#               PROVENANCE-7.3.toml, each with -patched after the 7.3.  Of these
#               only PROVENANCE-7.3-patched.toml is kept beside this script.
#               Default: the directory of this script.
#   CACHE_DIR   gets the package index, the package, the source and the objects:
#               about 2 GB.  Default: ${XDG_CACHE_HOME:-~/.cache}/cvmm-guest-kernel
#
# Environment:
#   JOBS            parallel jobs, default: the number of processors
#   SOURCE_VERSION  the package version to build.  Default: the one named in the
#                   provenance file beside this script, if the archive still has
#                   it (or CACHE_DIR does), else the newest, with a notice.
#   CROSS_COMPILE   as in the kernel's build; needed on a host that is not x86_64
#
# The package comes through apt, with apt's checks of signature and hash, from
# the mirror that this machine's own apt sources name, but with a list folder of
# its own: nothing of the machine's apt configuration or state is changed.
# Debian 12 has 6.12 in bookworm-backports, Debian 13 in its main suite; 7.3 is
# that of trixie-backports on both.
#
# As root the missing build dependencies are installed with apt-get; otherwise
# the script names them and stops.
#
# The same package, compiler and linker versions give the same image, bit for
# bit; the last line printed says whether the one beside this script was met.

set -euo pipefail
# shellcheck source=kernel.sh
. "$(dirname "${BASH_SOURCE[0]}")/kernel.sh"

if [[ ${1-} == --linux ]]; then
    [[ $# -ge 2 ]] || usage
    choose_kernel "$2"
    shift 2
else
    choose_kernel 6.12
fi

# What the variants of a kernel differ in.
variant= patches=() lock_stat=
if [[ ${1-} == --patched || ${1-} == --lock-stat ]]; then
    [[ $1 == --patched ]] || lock_stat=1
    variant=${1#-} patches=("${all_patches[@]}")
    shift
fi
readonly variant patches lock_stat
readonly IMAGE=bzImage-x86_64$suffix$variant PROVENANCE=PROVENANCE$suffix$variant.toml
# Both variants of 6.12 have the configuration of the one without patches; of 7.3
# none is kept, so each build has its own.
CONFIG=config-x86_64.full
[[ -z $suffix ]] || CONFIG=config-x86_64$suffix$variant.full
readonly CONFIG

[[ $# -le 2 && ${1-} != -* ]] || usage
out=${1:-$here}
cache=${2:-${XDG_CACHE_HOME:-$HOME/.cache}/cvmm-guest-kernel}
mkdir -p "$out" "$cache"
out=$(cd "$out" && pwd)
cache=$(cd "$cache" && pwd)

prepare_source() {
    local digest patch
    digest=$(cat "$deb" "${patches[@]}" | sha256sum | cut -d' ' -f1)
    tree=$cache/$PACKAGE$variant
    if [[ $(cat "$tree.unpacked" 2>/dev/null) != "$digest" ]]; then
        rm -f "$tree.unpacked"
        unpack_source "$tree"
        for patch in "${patches[@]}"; do
            say "applying ${patch##*/}"
            patch -d "$tree" -p1 -s -F0 --no-backup-if-mismatch <"$patch" || die "$patch does not apply"
        done
        echo "$digest" >"$tree.unpacked"
    fi
}

count_waits() {
    "$tree/scripts/config" --file "$objects/.config" -e DEBUG_KERNEL -e LOCK_DEBUGGING_SUPPORT -e LOCK_STAT
    kernel_make -s olddefconfig
    grep -qx CONFIG_LOCK_STAT=y "$objects/.config" || die "CONFIG_LOCK_STAT can't be had"
}

build() {
    say "building with $jobs jobs (objects in $objects)"
    kernel_make -s -j"$jobs" bzImage
    local built=$objects/arch/x86/boot/bzImage
    # No path of this machine may be in the image: look in the unpacked kernel.
    local where
    for where in "$cache" "$here"; do
        ! grep -qaF -- "$where" "$objects/arch/x86/boot/compressed/vmlinux.bin" "$built" ||
            die "the image contains the path $where"
    done
    install -m 644 "$built" "$out/$IMAGE"
}

# The patched image has the configuration of the other one, to the letter.
check_configuration() {
    if [[ -n $variant && -z $suffix ]]; then
        cmp "$objects/.config" "$here/$CONFIG" || die "the patches change the configuration"
    else
        install -m 644 "$objects/.config" "$out/$CONFIG"
    fi
}

# A TOML value: "none", or the patches in the order in which they are applied.
patch_list() {
    local patch
    [[ -n $variant ]] || { echo '"none"'; return; }
    echo '['
    for patch in "${patches[@]}"; do
        echo "    { file = \"$series/${patch##*/}\", sha256 = \"$(sha256 "$patch")\" },"
    done
    echo ']'
}

# A line of TOML with the edits of the fragment, if there are any.
fragment_edits() {
    local edit list=
    for edit in "${edits[@]}"; do
        [[ -z $edit || $edit == -e ]] || list+="${list:+, }\"$edit\""
    done
    [[ -z $list ]] || printf '\nfragment_edits = [%s]' "$list"
}

write_provenance() {
    local with='without a patch'
    [[ -z $variant ]] || with='with the patches below'
    cat >"$out/$PROVENANCE" <<END
# Written by build.sh.
image = "$IMAGE"
image_sha256 = "$(sha256 "$out/$IMAGE")"
image_size = $(stat -c %s "$out/$IMAGE")
architecture = "x86_64"
kernel_release = "$(cat "$objects/include/config/kernel.release")"
licence = "GPL-2.0-only"

# The complete corresponding source is this Debian package, $with:
#   apt-get download $PACKAGE=$version
# and, when the archive has moved on, Debian's snapshot archive under the same
# name and version.
source_package = "$PACKAGE"
source_version = "$version"
source_sha256 = "$(sha256 "$deb")"
source_patches = $(patch_list)

fragment = "${fragment##*/}"
fragment_sha256 = "$(sha256 "$fragment")"$(fragment_edits)
config = "$CONFIG"
config_sha256 = "$(sha256 "$objects/.config")"

compiler = "$("${cross}gcc" --version | head -n1)"
linker = "$("${cross}ld" --version | head -n1)"
END
}

install_dependencies
fetch_source
prepare_source
objects=$cache/objects$suffix$variant
rm -rf "$objects"
expected=$(recorded image_sha256 "$PROVENANCE")
configure
if [[ -n $lock_stat ]]; then
    count_waits
    build
    say "$out/$IMAGE: $(stat -c %s "$out/$IMAGE") bytes"
    exit
fi
check_configuration
build
write_provenance
say "$out/$IMAGE: $(stat -c %s "$out/$IMAGE") bytes, sha256 $(sha256 "$out/$IMAGE")"
if [[ -z $expected ]]; then
    say "nothing to compare with"
elif [[ $expected == "$(sha256 "$out/$IMAGE")" ]]; then
    say "identical to the recorded image"
else
    say "NOT identical to the recorded image (see source_version, patches, compiler and linker)"
fi
