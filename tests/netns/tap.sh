# shellcheck shell=bash
# Test Anything Protocol for the scripts beside this file.

TAP_N=0
TAP_FAILED=0 # cases

# tap DESCRIPTION COMMAND...: one case; the command's output is shown when it fails.
tap() {
    local description=$1 output
    shift
    TAP_N=$((TAP_N + 1))
    if output=$("$@" 2>&1); then
        echo "ok $TAP_N - $description"
        return 0
    fi
    # shellcheck disable=SC2001
    echo "$output" | sed 's/^/# /'
    echo "not ok $TAP_N - $description"
    TAP_FAILED=$((TAP_FAILED + 1))
    tap_logs
    return 1
}

# The last lines of the lab's logs, as comments.
tap_logs() {
    local log
    for log in "${LAB_DIR:-/nonexistent}"/*.log; do
        [ -s "$log" ] && { echo "# -- ${log##*/}"; tail -n 12 "$log" | cut -c1-300 | sed 's/^/#    /'; }
    done
}

tap_done() {
    echo "1..$TAP_N"
}

tap_skip_all() {
    echo "1..0 # SKIP $*"
    exit 0
}

tap_bail() {
    tap_logs
    echo "Bail out! $*"
    exit 1
}

# exits_with CODE COMMAND...
exits_with() {
    local want=$1 got
    shift
    "$@"
    got=$?
    [ "$got" -eq "$want" ] || { echo "exit code $got instead of $want: $*"; return 1; }
}

# says PATTERN COMMAND...: its output (both streams) matches the extended pattern, whatever its exit code
says() {
    local pattern=$1 output
    shift
    output=$("$@" 2>&1)
    echo "$output"
    grep -qE -- "$pattern" <<<"$output"
}
