#!/usr/bin/env bash
# The units under a real systemd: two machines made by debootstrap and booted by
# systemd-nspawn in the lab's network; one runs q2q-server.service, the other
# q2q-tun.service and q2q-tun@bob.... Rebooted, the tunnel is back.
#
# The Debian tree is cached in /var/cache/q2q-tun-test.
. "$(dirname "$0")/tunnel_lab.sh"

CACHE=${Q2Q_TEST_CACHE:-/var/cache/q2q-tun-test}
# What the programs were linked with comes from ldd, for some libraries are optional.
PACKAGES=systemd,systemd-sysv,iproute2,iputils-ping,procps

reason=$(lab_need_root) || tap_skip_all "$reason"
for tool in debootstrap systemd-nspawn; do
    command -v $tool >/dev/null || tap_skip_all "$tool is missing"
done
[ -x "${abs_top_builddir:-/nonexistent}/tests/netns/root/usr/local/sbin/q2q-tund" ] ||
    tap_bail "q2q-tun is not installed into tests/netns/root; run this by make check"

# library_packages PROGRAM...: the Debian packages of the shared libraries that they need
library_packages() {
    local library
    for library in $(ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// { print $1 }' | sort -u); do
        dpkg -S "*/$library" 2>/dev/null | grep -v '^diversion' | sed 's/:.*//'
    done | sort -u
}

debian_tree() {
    local mirror root=$abs_top_builddir/tests/netns/root/usr/local
    PACKAGES=$PACKAGES,$(library_packages "$root"/sbin/q2q-tund "$root"/bin/q2q-server "$root"/bin/q2q-tun \
        "$root"/libexec/q2q-tun/* | paste -sd,)
    TREE=$CACHE/bookworm.$(echo "$PACKAGES" | sha256sum | cut -c1-12)
    [ -d "$TREE" ] && return
    mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE)' | awk '$2 == "bookworm" { print $1; exit }')
    mkdir -p "$CACHE"
    # One tree is enough: those of other lists are not used again.
    rm -rf "$CACHE"/bookworm*
    debootstrap --variant=minbase --include="$PACKAGES" bookworm "$TREE.new" ${mirror:+"$mirror"} \
        >"$CACHE/debootstrap.log" 2>&1 && mv "$TREE.new" "$TREE"
}
debian_tree || tap_skip_all "debootstrap cannot make a Debian tree here (see $CACHE/debootstrap.log)"

# machine_boot HOST: boots the host's tree in the host's network; waits until systemd is up.
machine_boot() {
    local host=$1
    systemd-nspawn -q --resolv-conf=off -D "$LAB_DIR/$host.tree" -b --register=no --keep-unit \
        --network-namespace-path="/proc/${LAB_PID[$host]}/ns/net" --machine="$host" \
        --capability=CAP_NET_ADMIN --bind=/dev/net/tun --console=pipe --kill-signal=SIGRTMIN+4 \
        >>"$LAB_DIR/$host-console.log" 2>&1 </dev/null &
    # In files: a test case runs in a shell of its own.
    echo $! >"$LAB_DIR/$host.machine-pid"
    wait_for 120 machine_is_up "$host"
}

machine_runs() {
    kill -0 "$(cat "$LAB_DIR/$1.machine-pid" 2>/dev/null)" 2>/dev/null
}

machine_leader() {
    local pid
    pid=$(cat "$LAB_DIR/$1.machine-pid")
    tr -d ' ' <"/proc/$pid/task/$pid/children"
}

machine_is_up() {
    local state
    state=$(in_machine "$1" systemctl is-system-running)
    [ "$state" = running ] || [ "$state" = degraded ]
}

in_machine() {
    local host=$1 leader
    shift
    leader=$(machine_leader "$host")
    [ -n "$leader" ] || { echo "the machine of $host does not run"; return 1; }
    nsenter -t "$leader" --mount --uts --ipc --net --pid --root -- \
        env -C / HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin "$@"
}

unit_starts() {
    in_machine "$1" systemctl enable --now "$2" && return
    in_machine "$1" journalctl -b --no-pager -n 40 -u "$2"
    return 1
}

machines_stop() {
    local host
    for host in alice server; do
        machine_runs $host && kill -KILL "$(machine_leader $host)" 2>/dev/null
    done
    wait_for 30 eval '! machine_runs alice && ! machine_runs server'
    lab_stop
}

machine_reboot() {
    local host=$1
    # The way `systemctl reboot` goes: every unit is stopped, file systems are left, the machine starts anew.
    in_machine "$host" systemctl poweroff >/dev/null 2>&1
    wait_for 90 eval "! machine_runs $host" || return 1
    machine_boot "$host"
}

lab_start systemd
trap machines_stop EXIT
lab_use_root "$abs_top_builddir/tests/netns/root"
lab_internet || tap_bail "the lab's network"
lab_dns core 192.0.2.1 --host-record=server.test,192.0.2.10 --srv-host=_q2q._tcp.server.test,server.test,8788
for host in server alice; do
    cp -a "$TREE" "$LAB_DIR/$host.tree"
    cp -a "$abs_top_builddir/tests/netns/root/." "$LAB_DIR/$host.tree/"
    echo "$host" >"$LAB_DIR/$host.tree/etc/hostname"
    rm -f "$LAB_DIR/$host.tree/etc/resolv.conf"
    echo "nameserver 192.0.2.1" >"$LAB_DIR/$host.tree/etc/resolv.conf"
    sed -i 's/^hosts:.*/hosts: files q2q dns/' "$LAB_DIR/$host.tree/etc/nsswitch.conf"
    chroot "$LAB_DIR/$host.tree" ldconfig
    chroot "$LAB_DIR/$host.tree" systemd-sysusers || tap_bail "systemd-sysusers"
done

tap "the server's machine boots" machine_boot server || tap_bail "systemd-nspawn"
tap "q2q-server init, as its own user" in_machine server q2q-server init server.test
in_machine server sh -c 'mkdir -p /etc/q2q-tun
    printf "[server]\nlisten = [::]:8788\nlisten = [::]:443\n" >/etc/q2q-tun/q2q-server.conf'
tap "q2q-server.service starts and stays" unit_starts server q2q-server.service
[ "$TAP_FAILED" -eq 0 ] || tap_bail "nothing works without the server"
tap "it listens on port 443 too" on server sh -c 'ss -Hltn "sport = :443" | grep -q .'
tap "its main process has no capability" in_machine server sh -c \
    'grep -q "^CapEff:.*0000000000000000" /proc/$(systemctl show -P MainPID q2q-server)/status'
lab_daemon_start bob || tap_bail "q2q-tund of bob"
echo "bob's password" | on bob sh -c 'umask 077; cat >/root/password'
invite=$(in_machine server q2q-server invite create)
tap "bob registers" on bob q2q-tun register bob@server.test --password-file /root/password --invite "$invite" --yes
tap "bob allows alice" on bob q2q-tun allow alice@server.test --yes

tap "alice's machine boots" machine_boot alice
tap "q2q-tun.service starts (Type=notify)" unit_starts alice q2q-tun.service
[ "$TAP_FAILED" -eq 0 ] || tap_bail "nothing works without the daemon"
tap "the monitor has CAP_NET_ADMIN alone" in_machine alice sh -c \
    'grep -q "^CapEff:.*0000000000001000" /proc/$(systemctl show -P MainPID q2q-tun)/status'
helper_has_nothing() {
    in_machine alice sh -c 'status=/proc/$(pgrep -x q2q-tun-upnp)/status && cat $status &&
        grep -q "^CapEff:.*0000000000000000" $status && grep -q "^Seccomp:.2" $status'
}
[ ! -e "$LAB_DIR/alice.tree/usr/local/libexec/q2q-tun/q2q-tun-upnp" ] ||
    tap "the process that talks UPnP runs, without any capability" wait_for 30 helper_has_nothing
tap "the gateway is found, and asked for a port" says 'your router (is being asked|maps)' in_machine alice q2q-tun doctor
echo "alice's password" >"$LAB_DIR/alice.tree/root/password"
invite=$(in_machine server q2q-server invite create)
tap "alice registers" in_machine alice q2q-tun register alice@server.test --password-file /root/password --invite "$invite" --yes
unit="q2q-tun@$(systemd-escape bob@server.test).service"
tap "alice trusts bob once, by hand" in_machine alice q2q-tun up bob@server.test --yes
tap "down again" in_machine alice q2q-tun down bob@server.test
tap "q2q-tun@bob brings the peer up" unit_starts alice "$unit"
tap "ping" in_machine alice ping -c 3 -i 0.2 -W 2 bob.server.test.q2q
tap "alice's machine reboots" machine_reboot alice
tap "the unit is active" wait_for 60 in_machine alice systemctl is-active "$unit"
tap "the tunnel is back" wait_for 60 in_machine alice ping -c 2 -i 0.2 -W 2 bob.server.test.q2q
tap "the server's machine reboots" machine_reboot server
tap "q2q-server.service is active" wait_for 60 in_machine server systemctl is-active q2q-server.service
online() {
    in_machine alice q2q-tun --json status | grep -q '"connected": true'
}
tap "alice finds it again" wait_for 60 online
tap "no unit failed" eval '! in_machine alice systemctl --failed --no-legend | grep . && ! in_machine server systemctl --failed --no-legend | grep .'

# reloaded HOST UNIT TEXT: `systemctl reload`, and what the journal then says
reloaded() {
    local before
    before=$(in_machine "$1" journalctl -b --no-pager -o cat -u "$2" | wc -l)
    in_machine "$1" systemctl reload "$2" || return
    wait_for 30 eval "in_machine $1 journalctl -b --no-pager -o cat -u $2 | tail -n +$((before + 1)) | grep -qE -- '$3'"
}
tap "systemctl reload q2q-tun" reloaded alice q2q-tun.service 'configuration was read again'
in_machine alice sh -c 'mkdir -p /etc/q2q-tun; echo nonsense >/etc/q2q-tun/q2q-tun.conf'
tap "a fault in the configuration changes nothing" reloaded alice q2q-tun.service 'the one before holds'
tap "and stands in the status" wait_for 20 eval 'in_machine alice systemctl show -P StatusText q2q-tun.service | grep -q fault'
in_machine alice rm /etc/q2q-tun/q2q-tun.conf
tap "nor does it end the service" eval 'in_machine alice systemctl is-active q2q-tun.service && in_machine alice ping -c 2 -i 0.2 -W 5 bob.server.test.q2q'
tap "systemctl reload q2q-server" reloaded server q2q-server.service 'configuration read again'
watchdog_restarts() {
    local before after
    before=$(in_machine alice systemctl show -P NRestarts q2q-tun.service)
    # A daemon that hangs is one that does not answer its watchdog.
    in_machine alice sh -c 'kill -STOP $(pgrep -n -x q2q-tund)'
    wait_for 60 eval '[ "$(in_machine alice systemctl show -P NRestarts q2q-tun.service)" -gt '"$before"' ]'
}
tap "a daemon that hangs is restarted by the watchdog" watchdog_restarts
tap "and the tunnel is back" wait_for 60 in_machine alice ping -c 2 -i 0.2 -W 2 bob.server.test.q2q
for host in alice server; do
    in_machine $host systemctl poweroff >/dev/null 2>&1
done
wait_for 20 eval "! machine_runs alice && ! machine_runs server"
tap_done
