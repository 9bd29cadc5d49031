#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Builds the guest kernel of cvmm's tests and examples, reproducibly, from
# Debian's package linux-source-6.12, without a patch of ours or, with --patched,
# with those in patches/.
#
#   build.sh [--patched | --lock-stat] [OUTPUT_DIR [CACHE_DIR]]
#
#   OUTPUT_DIR  gets bzImage-x86_64, config-x86_64.full and PROVENANCE.toml;
#               with --patched, bzImage-x86_64-patched and
#               PROVENANCE-patched.toml, and the configuration must come out as
#               the one beside this script.  With --lock-stat, only
#               bzImage-x86_64-lock-stat: the patched kernel that also counts the
#               waits for its locks, for `cargo lab bench --contend --kernel`.
#               Default: the directory of this script.
#   CACHE_DIR   gets the package index, the package, the source and the objects:
#               about 2 GB.  Default: ${XDG_CACHE_HOME:-~/.cache}/cvmm-guest-kernel
#
# Environment:
#   JOBS            parallel jobs, default: the number of processors
#   SOURCE_VERSION  the package version to build.  Default: the one named in the
#                   PROVENANCE.toml beside this script, if the archive still has
#                   it (or CACHE_DIR does), else the newest, with a notice.
#   CROSS_COMPILE   as in the kernel's build; needed on a host that is not x86_64
#
# The package comes through apt, with apt's checks of signature and hash, from
# the mirror that this machine's own apt sources name, but with a list folder of
# its own: nothing of the machine's apt configuration or state is changed.
# Debian 12 has the package in bookworm-backports, Debian 13 in its main suite.
#
# As root the missing build dependencies are installed with apt-get; otherwise
# the script names them and stops.
#
# The same package, compiler and linker versions give the same image, bit for
# bit; the last line printed says whether the one beside this script was met.

set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC
unset MAKEFLAGS KCFLAGS KAFLAGS KCPPFLAGS HOSTCFLAGS LOCALVERSION KCONFIG_CONFIG CDPATH

readonly PACKAGE=linux-source-6.12
readonly CONFIG=config-x86_64.full
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here fragment=$here/x86_64.config

# What the two variants differ in.
variant= patches=() lock_stat=
if [[ ${1-} == --patched || ${1-} == --lock-stat ]]; then
    [[ $1 == --patched ]] || lock_stat=1
    variant=${1#-} patches=("$here"/patches/*.patch)
    # The first, 0000, is the cover letter.
    patches=("${patches[@]:1}")
    shift
fi
readonly variant patches lock_stat IMAGE=bzImage-x86_64$variant PROVENANCE=PROVENANCE$variant.toml

say() { printf '==> %s\n' "$*"; }
die() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }
sha256() { sha256sum "$1" | cut -d' ' -f1; }

[[ $# -le 2 && ${1-} != -* ]] || { sed -n '3,/^$/s/^# \{0,1\}//p' "$0"; exit 2; }
out=${1:-$here}
cache=${2:-${XDG_CACHE_HOME:-$HOME/.cache}/cvmm-guest-kernel}
mkdir -p "$out" "$cache"
out=$(cd "$out" && pwd)
cache=$(cd "$cache" && pwd)
jobs=${JOBS:-$(nproc)}

cross=${CROSS_COMPILE:-}
[[ $(uname -m) == x86_64 || -n $cross ]] || cross=x86_64-linux-gnu-

# --- Build dependencies ------------------------------------------------------

install_dependencies() {
    local missing=() entry
    for entry in "${cross}gcc:${cross:+gcc-x86-64-linux-gnu}" gcc:gcc make:make flex:flex \
        bison:bison bc:bc perl:perl-base xz:xz-utils zstd:zstd dpkg:dpkg patch:patch; do
        command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}")
    done
    # objtool links against libelf, the host programs against libc.
    printf '#include <gelf.h>\n' | gcc -E - >/dev/null 2>&1 || missing+=(libelf-dev)
    printf '#include <stdio.h>\n' | gcc -E - >/dev/null 2>&1 || missing+=(libc6-dev)
    ((${#missing[@]})) || return 0
    if ((EUID == 0)); then
        say "installing build dependencies: ${missing[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            "${missing[@]}" >/dev/null
    else
        die "missing build dependencies, please run: apt-get install ${missing[*]}"
    fi
}

# --- The source package ------------------------------------------------------

# A private apt: own sources, lists and caches, under $cache/apt.
private_apt() {
    local tool=$1
    shift
    "$tool" -o Dir::Etc::sourcelist="$cache/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o Dir::State::lists="$cache/apt/lists" -o Dir::Cache="$cache/apt/cache" \
        -o APT::Sandbox::User=root -o APT::Get::List-Cleanup=false "$@"
}

# Writes the private sources: this machine's mirror, the suites with the package.
prepare_apt() {
    local codename suites uri key suite
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && [[ ${ID-} == debian ]] && echo "${VERSION_CODENAME-}") || true
    [[ -n $codename ]] || die "this needs Debian 12 or later (or the package in $cache)"
    suites=$codename
    [[ $codename != bookworm ]] || suites=bookworm-backports
    # The mirror is the one that serves the machine's own main suite, by code
    # name or as "stable"; indextargets reads both formats of apt's sources.
    uri=$(apt-get indextargets --format '$(RELEASE)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' |
        awk -F'|' -v c="$codename" '$2 == "main" && ($1 == c || $1 == "stable") && !n++ { print $3 }')
    [[ -n $uri ]] || die "no main suite of $codename in this machine's apt sources"
    # Debian's own key ring; without the file, what apt trusts by default.
    key=
    for key in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp} ''; do
        [[ ! -e $key ]] || break
    done
    mkdir -p "$cache/apt/lists/partial" "$cache/apt/cache/archives/partial"
    for suite in $suites; do
        echo "deb ${key:+[signed-by=$key] }$uri $suite main"
    done >"$cache/apt/sources.list"
    say "package lists of $suites"
    private_apt apt-get -qq update
}

# recorded FIELD FILE
recorded() { sed -n "s/^$1 = \"\(.*\)\"\$/\1/p" "$here/$2" 2>/dev/null || true; }

# Sets $deb and $version.  Both variants have the same source.
fetch_source() {
    local want offered
    want=${SOURCE_VERSION:-$(recorded source_version PROVENANCE.toml)}
    deb=$cache/${PACKAGE}_${want//:/%3a}_all.deb
    if [[ -n $want && -f $deb && $(sha256 "$deb") == "$(recorded source_sha256 PROVENANCE.toml)" ]]; then
        say "using $PACKAGE $want from the cache"
    else
        prepare_apt
        offered=$(private_apt apt-cache madison "$PACKAGE" | awk '{ print $3 }')
        [[ -n $offered ]] || die "the archive does not offer $PACKAGE"
        if ! grep -qxF -- "$want" <<<"$offered"; then
            [[ -z ${SOURCE_VERSION-} ]] || die "not offered: $want; offered: ${offered//$'\n'/ }"
            [[ -z $want ]] || say "NOTICE: $want is no longer offered, the image will differ"
            want=$(head -n1 <<<"$offered")
        fi
        deb=$cache/${PACKAGE}_${want//:/%3a}_all.deb
        say "downloading $PACKAGE $want"
        (cd "$cache" && private_apt apt-get -qq download "$PACKAGE=$want")
    fi
    version=$(dpkg-deb -f "$deb" Version)
    [[ $version == "$want" ]] || die "$deb holds $version"
}

unpack_source() {
    local digest patch
    digest=$(cat "$deb" "${patches[@]}" | sha256sum | cut -d' ' -f1)
    tree=$cache/$PACKAGE$variant
    if [[ $(cat "$tree.unpacked" 2>/dev/null) != "$digest" ]]; then
        say "unpacking"
        rm -rf "$cache/package$variant" "$tree" "$tree.unpacked"
        dpkg -x "$deb" "$cache/package$variant"
        mkdir "$tree"
        tar -C "$tree" --strip-components=1 -xf "$cache/package$variant/usr/src/$PACKAGE.tar.xz"
        rm -rf "$cache/package$variant"
        for patch in "${patches[@]}"; do
            say "applying ${patch##*/}"
            patch -d "$tree" -p1 -s -F0 --no-backup-if-mismatch <"$patch" || die "$patch does not apply"
        done
        echo "$digest" >"$tree.unpacked"
    fi
}

# --- Build -------------------------------------------------------------------

kernel_make() {
    make -C "$tree" O="$objects" ARCH=x86_64 CROSS_COMPILE="$cross" \
        KBUILD_BUILD_TIMESTAMP='2025-01-01 00:00:00 UTC' KBUILD_BUILD_USER=cvmm \
        KBUILD_BUILD_HOST=cvmm KBUILD_BUILD_VERSION=1 KBUILD_VERBOSE=0 "$@"
}

# tinyconfig plus the fragment; every option the fragment does not ask for is
# off if it can be, as in tinyconfig itself (merge_config.sh -n).
configure() {
    say "configuring"
    mkdir -p "$objects"
    kernel_make -s tinyconfig >/dev/null 2>&1
    mv "$objects/.config" "$objects/tiny.config"
    (cd "$tree" && ARCH=x86_64 CROSS_COMPILE="$cross" scripts/kconfig/merge_config.sh \
        -n -O "$objects" "$objects/tiny.config" "$fragment") >"$objects/merge.log" 2>&1 ||
        { cat "$objects/merge.log" >&2; die "merge_config.sh failed"; }
    local line name lost=0
    while IFS= read -r line; do
        if [[ $line =~ ^'# '(CONFIG_[A-Z0-9a-z_]+)' is not set'$ ]]; then
            name=${BASH_REMATCH[1]}
            ! grep -q "^$name=" "$objects/.config" && continue
        elif [[ $line == CONFIG_* ]]; then
            grep -qxF -- "$line" "$objects/.config" && continue
        else
            continue
        fi
        echo "build.sh: not honoured: $line" >&2
        lost=1
    done <"$fragment"
    ((lost == 0)) || die "the fragment does not fit this kernel version"
    [[ -n $lock_stat ]] || return 0
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
    [[ -n $variant ]] || install -m 644 "$objects/.config" "$out/$CONFIG"
}

# The patched image has the configuration of the other one, to the letter.
check_configuration() {
    [[ -z $variant ]] || cmp "$objects/.config" "$here/$CONFIG" ||
        die "the patches change the configuration"
}

# A TOML value: "none", or the patches in the order in which they are applied.
patch_list() {
    local patch
    [[ -n $variant ]] || { echo '"none"'; return; }
    echo '['
    for patch in "${patches[@]}"; do
        echo "    { file = \"patches/${patch##*/}\", sha256 = \"$(sha256 "$patch")\" },"
    done
    echo ']'
}

write_provenance() {
    local with='without a patch'
    [[ -z $variant ]] || with='with the patches below'
    cat >"$out/$PROVENANCE" <<EOF
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
fragment_sha256 = "$(sha256 "$fragment")"
config = "$CONFIG"
config_sha256 = "$(sha256 "$objects/.config")"

compiler = "$("${cross}gcc" --version | head -n1)"
linker = "$("${cross}ld" --version | head -n1)"
EOF
}

install_dependencies
fetch_source
unpack_source
objects=$cache/objects$variant
rm -rf "$objects"
expected=$(recorded image_sha256 "$PROVENANCE")
configure
if [[ -n $lock_stat ]]; then
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
    say "NOT identical to the recorded image (see source_version, compiler and linker)"
fi
