#!/bin/bash
# configure stops at a missing library and names its Debian package; contrib/common.sh installs just those.
top=${abs_top_srcdir:-.}
[ -x "$top/configure" ] || { echo "1..0 # SKIP there is no configure script"; exit 0; }
dir=$(mktemp -d /tmp/q2q-configure.XXXXXX) || exit 1
trap 'rm -rf "$dir"' EXIT
n=0

# What stands in configure.ac: "MODULE PACKAGE..." a line, the module without its version.
libraries() {
    sed -nE 's/.*Q2Q_LIB\(\[[A-Z]+\], \[([^] ]+)[^]]*\], \[([^]]+)\]\).*/\1 \2/p' "$top/configure.ac"
    echo "uthash.h uthash-dev"
}
mapfile -t LIBRARIES < <(libraries)
echo "1..$((${#LIBRARIES[@]} + 2))"

ok() { # ok NAME STATUS
    n=$((n + 1))
    if [ "$2" -eq 0 ]; then echo "ok $n - $1"; else
        echo "not ok $n - $1"
        tail -n 5 "$dir/log" | sed 's/^/# /'
    fi
}

# configure ARGUMENT...: runs it, quickly once the cache is there; true if it succeeded
configure() {
    (cd "$dir" && "$top/configure" "$@") >"$dir/log" 2>&1 </dev/null
}

# names PACKAGE: configure stopped and its last word is to install it
names() {
    grep -qF "is missing. On Debian: apt-get install $1" "$dir/log"
}

mkdir "$dir/empty"
! PKG_CONFIG_PATH='' PKG_CONFIG_LIBDIR=$dir/empty configure && names libssl-dev
ok "without any library, configure stops and names the first one's package" $?

# A pkg-config that knows every library but one.
cat >"$dir/pkg-config" <<'SCRIPT'
#!/bin/sh
case "$1 $2 " in
"--exists $MISSING "*) exit 1 ;;
--modversion*) echo 99 ;;
esac
exit 0
SCRIPT
chmod 0755 "$dir/pkg-config"
MISSING=none configure --cache-file="$dir/cache" PKG_CONFIG="$dir/pkg-config" # fills the cache
for library in "${LIBRARIES[@]}"; do
    module=${library%% *} packages=${library#* } header=yes
    [ "$module" = uthash.h ] && header=no
    ! MISSING=$module ac_cv_header_uthash_h=$header configure --cache-file="$dir/cache" PKG_CONFIG="$dir/pkg-config" && names "$packages"
    ok "without $module, it names $packages" $?
done

# Those it can do without, too: "libNAME is missing. On Debian: apt-get install PACKAGE".
optional=$(sed -nE 's/.*\[lib[A-Za-z_]+ is missing\. On Debian: apt-get install ([a-z0-9-]+)\].*/\1/p' "$top/configure.ac")
wanted=$(printf '%s\n' "${LIBRARIES[@]}" | cut -d ' ' -f 2- | tr ' ' '\n' | cat - <(echo "$optional") | grep . | sort)
installed=$(. "$top/contrib/common.sh" && tr ' ' '\n' <<<"$PACKAGES_BUILD" | grep -e '-dev$' | sort)
diff <(echo "$wanted") <(echo "$installed") >"$dir/log"
ok "contrib/common.sh installs the libraries that configure asks for, and no others" $?
