#!/usr/bin/env bash
# Punching through NATs that the kernel does: every pair of the easy kinds opens
# at once, an open INPUT chain included; two kinds that need more say why not.
. "$(dirname "$0")/lab.sh"
. "$(dirname "$0")/tap.sh"
lab_need_root >/dev/null 2>&1 || tap_skip_all "namespaces or nft are missing, or this is not root"
PUNCH=${abs_top_builddir:?}/tests/netns/punch
[ -x "$PUNCH" ] || tap_bail "$PUNCH is missing"
lab_start punch
lab_internet easy easy || tap_bail "no lab"
spawn server stun.log "$PUNCH" stun 3478 3479

# punch KIND KIND PATTERN: what both sides print matches.
punch() {
    local signals=$LAB_DIR/signals bob alice
    rm -f "$signals"
    lab_nat nat-a "$1" && lab_nat nat-b "$2" || return
    on bob "$PUNCH" peer 1 "$signals" 10.2.0.2 192.0.2.10 3478 3479 \
        >"$LAB_DIR/bob.out" 2>&1 </dev/null &
    bob=$!
    wait_for 20 test -S "$signals" || return
    on alice "$PUNCH" peer 0 "$signals" 10.1.0.2 192.0.2.10 3478 3479 \
        >"$LAB_DIR/alice.out" 2>&1 </dev/null
    alice=$?
    wait "$bob" || alice=1
    cat "$LAB_DIR/alice.out" "$LAB_DIR/bob.out"
    [ "$(grep -cE -- "$3" "$LAB_DIR/alice.out" "$LAB_DIR/bob.out" | grep -c ':1$')" -eq 2 ] || return
    case $3 in ^none*) [ "$alice" -ne 0 ] ;; *) [ "$alice" -eq 0 ] ;; esac
}

for a in easy easy-open-input easy-eif; do
    for b in easy easy-open-input easy-eif; do
        tap "$a and $b are direct in the first round" punch "$a" "$b" '^direct 0 '
    done
done
tap "hard and easy-eif are direct in the first round" punch hard easy-eif '^direct 0 '
tap "hard and easy are told apart from the rest" punch hard easy '^none .* another port to each destination'
tap_done
