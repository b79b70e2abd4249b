#!/bin/sh
# The manual pages and the example configuration know every option and key that the programs do.
top=${abs_top_srcdir:-.}
n=0
missing=

# all_in PAGE NAME...: NAMEs that PAGE does not have; hyphens may be written \-
all_in() {
    page=$1
    shift
    [ $# -gt 0 ] || missing="nothing was found to look for"
    for name in "$@"; do
        sed 's/\\-/-/g' "$top/$page" | grep -qE "(^|[^a-z-])$name([^a-z-]|\$)" || missing="$missing $name"
    done
}

result() {
    n=$((n + 1))
    if [ -z "$missing" ]; then echo "ok $n - $1"; else
        echo "# missing: $missing"
        echo "not ok $n - $1"
    fi
    missing=
}

options() {
    sed -nE 's/^[[:space:]]*\{ "([a-z-]+)", *(KEY_[A-Z_]+|'"'.'"'),.*/--\1/p' "$top/$1"
}
daemon_keys() {
    sed -nE 's/.*\.section = "([a-z *]+)", \.name = "([a-z-]+)".*/\2/p' "$top/src/daemon/options.c"
}
server_keys() {
    sed -nE 's/^[[:space:]]*\{ "[a-z *]+", *"([a-z-]+)", *CONF_.*/\1/p' "$top/src/server/options.c"
}

echo 1..8
# shellcheck disable=SC2046 # lists of words
{
    all_in man/q2q-tund.8 $(options src/monitor/main.c)
    result "q2q-tund(8) has every option"
    all_in man/q2q-server.8 $(options src/server/main.c)
    result "q2q-server(8) has every option"
    all_in man/q2q-tun.conf.5 $(daemon_keys)
    result "q2q-tun.conf(5) has every key"
    all_in contrib/q2q-tun.conf $(daemon_keys)
    result "the example configuration has every key"
    all_in man/q2q-server.8 $(server_keys)
    result "q2q-server(8) has every key"
}

# Each line of the example, taken out of its comment, is a key that the daemon knows.
missing=$(sed -nE 's/^#([a-z-]+) = .*/\1/p' "$top/contrib/q2q-tun.conf" | while read -r key; do
    daemon_keys | grep -qx -e "$key" || echo "$key"
done)
result "the example configuration has no other key"

for page in "$top"/man/*.[1-8]; do
    sed -nE '/^dist_man_MANS/s/.*\+= *//p' "$top/man/local.mk" | tr ' ' '\n' | grep -qx "man/${page##*/}" ||
        missing="$missing ${page##*/}"
done
result "every page is installed"

if command -v man >/dev/null && command -v troff >/dev/null; then
    for page in "$top"/man/*.[1-8]; do
        said=$(LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null)
        [ -z "$said" ] || missing="$missing ${page##*/}: $said"
    done
    result "groff has nothing to say about the pages"
else
    echo "ok 8 # SKIP man or groff is missing (packages man-db, groff-base)"
fi
