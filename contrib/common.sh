# shellcheck shell=bash
# What contrib/demo and contrib/check share. Sourced by bash.

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=${BUILD:-$TOP/build}

PACKAGES_BUILD="gcc make autoconf automake libtool pkg-config libssl-dev libnl-3-dev libnl-route-3-dev
 libcap-ng-dev libseccomp-dev libevent-dev libc-ares-dev libjansson-dev libinih-dev libsmartcols-dev
 libisal-dev libminiupnpc-dev libsqlite3-dev libcmocka-dev uthash-dev"
# Seals packets several times as fast; Debian has it for amd64 alone.
[ "$(uname -m)" != x86_64 ] || PACKAGES_BUILD="$PACKAGES_BUILD libipsec-mb-dev"
PACKAGES_LAB="iproute2 nftables dnsmasq-base openssh-server openssh-client iputils-ping procps util-linux"
PACKAGES_TEST="clang libclang-rt-14-dev python3 python3-twisted python3-openssl python3-service-identity
 man-db xz-utils binutils iperf3 systemd systemd-container debootstrap tayga miniupnpd miniupnpd-nftables coturn"

# What runs apart ends with the script, however that ends.
APART=
end_apart() {
    [ -z "$APART" ] || kill -TERM -- "-$APART" 2>/dev/null
}
trap end_apart EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# apart COMMAND...: runs it as a session of its own, so that all of it can be ended.
apart() {
    local result
    setpriv --pdeathsig TERM setsid "$@" </dev/null &
    APART=$!
    wait "$APART"
    result=$?
    APART=
    return $result
}

say() {
    printf '\n\033[1m== %s\033[0m\n' "$*"
}

# need PACKAGE...: installs what is missing, and nothing else.
need() {
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ]; then
        echo "These Debian packages are missing: ${missing[*]}" >&2
        echo "Run this script with sudo, and it installs them by itself." >&2
        return 1
    fi
    say "Installing Debian packages: ${missing[*]}"
    # Services that packages bring along have no business starting here (a chroot's way, policy-rc.d).
    local policy=/usr/sbin/policy-rc.d made_policy=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 0755 "$policy"
        made_policy=yes
    fi
    apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    local result=$?
    [ -z "$made_policy" ] || rm -f "$policy"
    return $result
}

# build DIRECTORY [CONFIGURE-OPTION...]: an out-of-tree build, made again only where needed.
build() {
    local directory=$1 log
    shift
    log=$directory/build.log
    if ! mkdir -p "$directory" 2>/dev/null || [ ! -w "$directory" ]; then
        echo "Cannot write to $directory; if another user built it, remove it, or build elsewhere:" >&2
        echo "BUILD=/some/directory $0" >&2
        return 1
    fi
    if ! {
        { [ -x "$TOP/configure" ] && [ "$TOP/configure" -nt "$TOP/configure.ac" ] &&
            [ -z "$(find "$TOP" -name '*.mk' -newer "$TOP/configure" -not -path '*/.git/*' | head -n 1)" ]; } ||
            apart "$TOP/autogen.sh"
        cd "$directory" &&
            { [ Makefile -nt "$TOP/configure" ] || apart "$TOP/configure" --enable-werror "$@"; } &&
            apart make -s -j"$(nproc)"
    } >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        echo "The build failed; the whole log is $log" >&2
        return 1
    fi
}
