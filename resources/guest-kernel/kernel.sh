# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash
#
# What build.sh and check-series.sh share: which kernels there are, and how their
# source is fetched, unpacked and configured.  To be sourced, with
# `set -euo pipefail`, by a script that then calls choose_kernel and sets $cache.

umask 022
export LC_ALL=C TZ=UTC
unset MAKEFLAGS KCFLAGS KAFLAGS KCPPFLAGS HOSTCFLAGS LOCALVERSION KCONFIG_CONFIG CDPATH

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here fragment=$here/x86_64.config

say() { printf '==> %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
sha256() { sha256sum "$1" | cut -d' ' -f1; }

# The comment at the top of the script.
usage() { sed -n '3,/^$/s/^# \{0,1\}//p' "$0"; exit 2; }

jobs=${JOBS:-$(nproc)}
cross=${CROSS_COMPILE:-}
[[ $(uname -m) == x86_64 || -n $cross ]] || cross=x86_64-linux-gnu-
readonly jobs cross

# --- The kernels -------------------------------------------------------------

# choose_kernel 6.12|7.3 sets
#   PACKAGE     the source package
#   series      the folder of its patches
#   suffix      of the names of what is built
#   record      the provenance file that names the version of the package
#   edits       what the fragment needs for this kernel: arguments of sed
choose_kernel() {
    linux=$1 edits=(-e '')
    case $linux in
    6.12) series=patches suffix='' record=PROVENANCE.toml ;;
    7.3)
        series=patches-7.3 suffix=-7.3 record=PROVENANCE-7.3-patched.toml
        # x86 has no PREEMPT_NONE any more, PROC_SYSCTL is a part of SYSCTL, and ext4 does not select CRYPTO.
        edits=(-e s/^CONFIG_PREEMPT_NONE=y/CONFIG_PREEMPT_LAZY=y/
            -e s/^CONFIG_PROC_SYSCTL=y/CONFIG_SYSCTL=y/
            -e /^CONFIG_CRYPTO_SHA256=y/iCONFIG_CRYPTO=y)
        ;;
    *) die "no patches for Linux $linux: 6.12 or 7.3" ;;
    esac
    PACKAGE=linux-source-$linux
    all_patches=("$here/$series"/*.patch)
    # The first, 0000, is the cover letter.
    all_patches=("${all_patches[@]:1}")
    readonly linux edits series suffix record PACKAGE all_patches
}

# The suite that has the package, on the Debian release $1.
suite() {
    case $linux:$1 in
    6.12:bookworm) echo bookworm-backports ;;
    6.12:*) echo "$1" ;;
    7.3:*) echo trixie-backports ;;
    esac
}

# --- Build dependencies ------------------------------------------------------

# install_dependencies [COMMAND:PACKAGE...]: those of the build, and the given.
install_dependencies() {
    local missing=() entry
    for entry in "${cross}gcc:${cross:+gcc-x86-64-linux-gnu}" gcc:gcc make:make flex:flex \
        bison:bison bc:bc perl:perl-base xz:xz-utils zstd:zstd dpkg:dpkg patch:patch "$@"; do
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
    local codename uri key suite
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && [[ ${ID-} == debian ]] && echo "${VERSION_CODENAME-}") || true
    [[ -n $codename ]] || die "this needs Debian 12 or later (or the package in $cache)"
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
    suite=$(suite "$codename")
    echo "deb ${key:+[signed-by=$key] }$uri $suite main" >"$cache/apt/sources.list"
    say "package list of $suite"
    private_apt apt-get -qq update
}

# recorded FIELD FILE
recorded() { sed -n "s/^$1 = \"\(.*\)\"\$/\1/p" "$here/$2" 2>/dev/null || true; }

# Sets $deb and $version.  All variants have the same source.
fetch_source() {
    local want offered
    want=${SOURCE_VERSION:-$(recorded source_version "$record")}
    deb=$cache/${PACKAGE}_${want//:/%3a}_all.deb
    if [[ -n $want && -f $deb && $(sha256 "$deb") == "$(recorded source_sha256 "$record")" ]]; then
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

# unpack_source FOLDER: the package's source, anew, without a patch.
unpack_source() {
    say "unpacking"
    rm -rf "$1" "$1.package"
    dpkg -x "$deb" "$1.package"
    mkdir "$1"
    tar -C "$1" --strip-components=1 -xf "$1.package/usr/src/$PACKAGE.tar.xz"
    rm -rf "$1.package"
}

# --- Configuration -----------------------------------------------------------

# make in $tree, with the objects in $objects.
kernel_make() {
    make -C "$tree" O="$objects" ARCH=x86_64 CROSS_COMPILE="$cross" \
        KBUILD_BUILD_TIMESTAMP='2025-01-01 00:00:00 UTC' KBUILD_BUILD_USER=cvmm \
        KBUILD_BUILD_HOST=cvmm KBUILD_BUILD_VERSION=1 KBUILD_VERBOSE=0 "$@"
}

# tinyconfig plus the fragment, with the edits of this kernel; every option the
# fragment does not ask for is off if it can be, as in tinyconfig itself
# (merge_config.sh -n).
configure() {
    say "configuring"
    mkdir -p "$objects"
    sed "${edits[@]}" "$fragment" >"$objects/fragment"
    kernel_make -s tinyconfig >/dev/null 2>&1
    mv "$objects/.config" "$objects/tiny.config"
    (cd "$tree" && ARCH=x86_64 CROSS_COMPILE="$cross" scripts/kconfig/merge_config.sh \
        -n -O "$objects" "$objects/tiny.config" "$objects/fragment") >"$objects/merge.log" 2>&1 ||
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
        echo "${0##*/}: not honoured: $line" >&2
        lost=1
    done <"$objects/fragment"
    ((lost == 0)) || die "the fragment does not fit this kernel version"
}
