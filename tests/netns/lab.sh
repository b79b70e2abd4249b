# shellcheck shell=bash
# A lab of machines on one kernel. Source this file from bash, as root.
#
# Each host is a set of namespaces (network, mount, pid, host name) with its own
# /etc, /run, /root and /var/lib/q2q-*, so that programs run in it with their
# ordinary paths, as on a machine of its own. When the script that made the lab
# ends, however it ends, the kernel takes everything away: each host's first
# process dies with the script, and a pid namespace dies with its first process.
#
#   lab_start NAME                 begin (sets a trap that ends it)
#   lab_host HOST...               make hosts
#   lab_link A ADDR/LEN B ADDR/LEN [IFA IFB]     a cable between two hosts
#   on HOST COMMAND...             run in a host
#   spawn HOST LOG COMMAND...      run in the background in a host; sets SPAWNED_PID (outer pid)
#   lab_internet                   core, server, nat-a + alice, nat-b + bob (see below)
#   lab_nat HOST KIND              make a host a NAT; the kinds stand there
#   lab_dns HOST ADDR LINE...      dnsmasq with the given options, and resolv.conf everywhere
#
# The internet of lab_internet (documentation addresses, routed by "core"):
#
#     alice 10.1.0.2 -- nat-a 198.51.100.2 -- core -- 203.0.113.2 nat-b -- 10.2.0.2 bob
#                                              |
#                                     192.0.2.10 server

LAB_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
LAB_HOSTS=() LAB_OUTER=()
declare -A LAB_PID

lab_need_root() {
    [ "$(id -u)" -eq 0 ] || { echo "this needs root"; return 1; }
    [ -c /dev/net/tun ] || { echo "/dev/net/tun is missing"; return 1; }
    local said
    said=$(unshare --net --mount --uts --pid --fork true 2>&1) ||
        { echo "namespaces are not allowed here: $said"; return 1; }
    command -v nft >/dev/null || { echo "nft is missing (package nftables)"; return 1; }
}

lab_start() {
    LAB_NAME=$1
    LAB_DIR=$(mktemp -d "/tmp/q2q-lab-$LAB_NAME.XXXXXX")
    trap lab_stop EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

lab_stop() {
    trap '' INT TERM HUP
    # Also those that were only about to start; --kill-child passes it on.
    {
        [ ${#LAB_OUTER[@]} -eq 0 ] || kill -KILL "${LAB_OUTER[@]}"
        wait
    } 2>/dev/null
    LAB_HOSTS=() LAB_OUTER=()
    # Logs are kept only if somebody asks for them.
    if [ -n "${LAB_KEEP:-}" ]; then
        echo "lab: logs are in $LAB_DIR" >&2
    else
        rm -rf "$LAB_DIR"
    fi
}

# What a host's first process does: private places over the shared ones, then wait for ever.
lab_init_script() {
    cat <<'INIT'
host=$1 dir=$2
shift 2
kept=("$@")
# cover PLACE MODE: an empty place over the shared one; the trees of source and build stay to be seen.
cover() {
    local keep
    mount -t tmpfs -o "mode=$2" tmpfs "$dir/new"
    for keep in "${kept[@]}"; do
        case $keep in
        "$1"/*) mkdir -p "$dir/new${keep#"$1"}" && mount --rbind "$keep" "$dir/new${keep#"$1"}" ;;
        esac
    done
    mount --move "$dir/new" "$1"
}
mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs "$dir/etc"
cp -a /etc/. "$dir/etc/"
mount --move "$dir/etc" /etc
cover /run 0755
cover /root 0700
cover /var/lib 0755
mkdir -p /run/sshd /run/lock
mkdir -p /var/lib/q2q-tun /var/lib/q2q-server
mount --bind "$dir/state" /var/lib/q2q-tun
mount --bind "$dir/server" /var/lib/q2q-server
mount -t sysfs sysfs /sys 2>/dev/null
hostname "$host"
rm -f /etc/resolv.conf
printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n' "$host" >/etc/hosts
: >/etc/resolv.conf
grep -q '^q2q-tun:' /etc/group || echo 'q2q-tun:x:64188:' >>/etc/group
grep -q '^q2q-tun:' /etc/passwd || echo 'q2q-tun:x:64188:64188:q2q-tun:/nonexistent:/usr/sbin/nologin' >>/etc/passwd
grep -q '^q2q-monitor:' /etc/passwd || echo 'q2q-monitor:x:64190:64188:q2q-monitor:/nonexistent:/usr/sbin/nologin' >>/etc/passwd
grep -q '^q2q-server:' /etc/group || echo 'q2q-server:x:64189:' >>/etc/group
grep -q '^q2q-server:' /etc/passwd || echo 'q2q-server:x:64189:64189:q2q-server:/nonexistent:/usr/sbin/nologin' >>/etc/passwd
chown 64188:64188 /var/lib/q2q-tun
chown 64189:64189 /var/lib/q2q-server
chmod 0700 /var/lib/q2q-tun /var/lib/q2q-server
ip link set lo up
sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
    net.ipv4.conf.all.rp_filter=0 2>/dev/null
touch "$dir/ready"
# The first process of a pid namespace inherits orphans; bash reaps them while it waits.
while :; do
    sleep 3600 &
    wait
done
INIT
}

lab_host() {
    local host dir outer
    for host in "$@"; do
        dir=$LAB_DIR/$host
        mkdir -p "$dir/etc" "$dir/new" "$dir/state" "$dir/server"
        # Dies with this script: setpriv arms it, --kill-child passes it on.
        setpriv --pdeathsig KILL unshare --net --mount --uts --pid --fork --kill-child=KILL \
            --mount-proc bash -c "$(lab_init_script)" lab-init "$host" "$dir" \
            "$LAB_TOP" "${abs_top_builddir:-${BUILD:-$LAB_TOP}}" \
            >"$dir/init.log" 2>&1 </dev/null &
        outer=$!
        LAB_OUTER+=("$outer")
        LAB_PID[$host]=
        for _ in $(seq 1500); do
            [ -e "$dir/ready" ] && break
            sleep 0.02
        done
        [ -e "$dir/ready" ] || { echo "lab: host $host did not start: $(cat "$dir/init.log")" >&2; return 1; }
        LAB_PID[$host]=$(cat "/proc/$outer/task/$outer/children")
        LAB_PID[$host]=${LAB_PID[$host]%% *}
        LAB_HOSTS+=("$host")
    done
}

on() {
    local host=$1
    shift
    nsenter -t "${LAB_PID[$host]}" --net --mount --uts --pid --root --wd=/ -- \
        env HOME=/root "PATH=${LAB_PATH:-$PATH}" ${LAB_LIBRARY_PATH:+LD_LIBRARY_PATH=$LAB_LIBRARY_PATH} "$@"
}

spawn() {
    local host=$1 log=$2
    shift 2
    on "$host" "$@" >"$LAB_DIR/$log" 2>&1 </dev/null &
    SPAWNED_PID=$!
}

# The pid of a program inside a host's own pid namespace, by its exact name.
lab_pids() {
    on "$1" pgrep -x "$2"
}

lab_link() {
    local a=$1 a_addr=$2 b=$3 b_addr=$4 a_if=${5:-eth0} b_if=${6:-eth0}
    ip link add "q2qa$$" netns "${LAB_PID[$a]}" type veth peer name "q2qb$$" netns "${LAB_PID[$b]}" || return
    on "$a" ip link set dev "q2qa$$" name "$a_if"
    on "$b" ip link set dev "q2qb$$" name "$b_if"
    on "$a" ip addr add "$a_addr" dev "$a_if"
    on "$b" ip addr add "$b_addr" dev "$b_if"
    on "$a" ip link set dev "$a_if" up
    on "$b" ip link set dev "$b_if" up
}

lab_forward() {
    on "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
}

# ---- NATs and firewalls ---------------------------------------------------------
#
# A kind is words joined by commas (RFC 4787 has the terms):
#   mapping     independent (the default) | address | random | sequential
#               the last two give another port to each destination
#   filtering   by-port (the default) | by-address | none; for independent mapping
#   hairpin     packets from inside to an outside port of ours come back in
#   open-input  the firewall does not drop what is for the router itself, so that a
#               stranger's early packet takes the outside port of a flow of ours
#   timeout=S   a UDP mapping lives S seconds
#   block=A-B   the ports that a random mapping takes, as a carrier gives them out
#   no-udp, only-443, no-icmp    what the firewall lets nobody do
#   plain       no NAT at all, only the firewall, which is there for IPv6 in every kind
# or a name:
#   easy (a home's, RFC 4787: endpoint-independent mapping, address-and-port-dependent
#   filtering), easy-eif, easy-adf (other filtering), easy-open-input, short (30 s);
#   hard (endpoint-dependent mapping, random ports), hard-sequential, hard-address

declare -A LAB_NAT_KIND

lab_nat_words() {
    case $1 in
    easy) echo independent ;;
    easy-open-input) echo independent open-input ;;
    easy-eif) echo independent none ;;
    easy-adf) echo independent by-address ;;
    short) echo independent timeout=30 ;;
    hard) echo random ;;
    hard-sequential) echo sequential ;;
    hard-address) echo address ;;
    *) echo "${1//,/ }" ;;
    esac
}

# The firewall: its words are the arguments.
lab_nat_firewall() {
    local word drop_new='iifname "wan" ct state new drop;' rules=
    for word in "$@"; do
        case $word in
        open-input) drop_new= ;;
        no-udp) rules+='
    oifname "wan" meta l4proto udp udp dport != 53 drop;' ;;
        only-443) rules+='
    oifname "wan" meta l4proto { tcp, udp } th dport 53 accept;
    oifname "wan" meta l4proto tcp tcp dport 443 accept;
    oifname "wan" drop;' ;;
        no-icmp) rules+='
    meta l4proto { icmp, icmpv6 } drop;'
            cat <<NFT
table inet quiet {
  chain out {
    type filter hook output priority 0;
    meta l4proto icmp drop;
    icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, echo-reply } drop;
  }
}
NFT
            ;;
        esac
    done
    cat <<NFT
table inet f {
  chain in {
    type filter hook input priority 0;
    $drop_new
  }
  chain fw {
    type filter hook forward priority 0;
    iifname "wan" ct status dnat accept;
    iifname "wan" ct state new,invalid drop;$rules
  }
}
NFT
}

# What lets strangers in: a map of the ports that went out, learnt before they are translated.
lab_nat_inbound() {
    local wan_ip=$1 filtering=$2 hairpin=$3 timeout=$4 seen='' learn='' check='' from='iifname "wan" '
    [ -z "$hairpin" ] || from=
    if [ "$filtering" = by-address ]; then
        seen="set seen {
    type inet_service . ipv4_addr;
    flags dynamic,timeout;
    timeout ${timeout}s;
    size 65535;
  }"
        learn='oifname "wan" meta l4proto udp update @seen { udp sport . ip daddr };'
        check='udp dport . ip saddr @seen '
    fi
    cat <<NFT
table ip n {
  map inside {
    type inet_service : ipv4_addr . inet_service;
    flags dynamic,timeout;
    timeout ${timeout}s;
    size 65535;
  }
  $seen
  chain learn {
    type filter hook postrouting priority 90;
    oifname "wan" meta l4proto udp update @inside { udp sport : ip saddr . udp sport };
    $learn
  }
  chain pre {
    type nat hook prerouting priority -100;
    ${from}ip daddr $wan_ip meta l4proto udp ${check}dnat ip to udp dport map @inside;
  }
}
NFT
}

# The outside ports 40000 to 44095 as the values of a map: numbers would be in the host's byte order.
lab_nat_ports() {
    awk -v ip="$1" 'BEGIN { for (i = 0; i < 4096; i++) printf "%d : %s . %d, ", i, ip, 40000 + i }'
}

lab_nat_rules() {
    local wan_ip=$1 word mapping=independent filtering=by-port hairpin='' timeout=120 block=32768-60999 udp=''
    shift
    for word in "$@"; do
        case $word in
        independent | address | random | sequential | plain) mapping=$word ;;
        by-port | by-address | none) filtering=$word ;;
        hairpin) hairpin=yes ;;
        timeout=*) timeout=${word#timeout=} ;;
        block=*) block=${word#block=} ;;
        open-input | no-udp | only-443 | no-icmp) ;;
        *) echo "lab: no NAT is called $word" >&2; return 1 ;;
        esac
    done
    echo "flush ruleset"
    lab_nat_firewall "$@"
    case $mapping in
    plain) return ;;
    address) udp="snat ip to jhash ip daddr . udp sport mod 4096 map { $(lab_nat_ports "$wan_ip") }" ;;
    random) udp="masquerade to :$block fully-random" ;;
    sequential) udp="snat ip to numgen inc mod 4096 map { $(lab_nat_ports "$wan_ip") }" ;;
    esac
    [ "$filtering" = by-port ] || lab_nat_inbound "$wan_ip" "$filtering" "$hairpin" "$timeout"
    cat <<NFT
table ip n {
  chain post {
    type nat hook postrouting priority 100;
    ${hairpin:+iifname "lan*" oifname "lan*" ct status dnat snat to $wan_ip;}
    ${udp:+oifname "wan" meta l4proto udp $udp;}
    oifname "wan" masquerade;
  }
}
NFT
}

# Forgets every flow of HOST: `flush ruleset` does not.
lab_forget_flows() {
    on "$1" /usr/bin/python3 -c '
import socket, struct
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
# IPCTNL_MSG_CT_DELETE of nothing in particular, with an acknowledgement
s.send(struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 5, 1, 0, 0, 0, 0))
error = struct.unpack("=IHHIIi", s.recv(4096)[:20])[5]
raise SystemExit(error and "conntrack: error %d" % -error)'
}

# lab_nat HOST KIND: rules for the router HOST, whose interfaces are "wan" and "lan"
lab_nat() {
    local host=$1 kind=$2 words word wan_ip
    words=$(lab_nat_words "$kind")
    wan_ip=$(on "$host" ip -4 -o addr show dev wan | awk '{ sub(/\/.*/, "", $4); print $4; exit }')
    LAB_NAT_KIND[$host]=$kind
    lab_forward "$host"
    # shellcheck disable=SC2086 # words are words
    lab_nat_rules "$wan_ip" $words | on "$host" nft -f - || return
    for word in $words; do
        case $word in
        timeout=*) on "$host" sysctl -qw "net.netfilter.nf_conntrack_udp_timeout=${word#*=}" \
            "net.netfilter.nf_conntrack_udp_timeout_stream=${word#*=}" || return ;;
        esac
    done
    lab_forget_flows "$host"
}

lab_internet() {
    lab_host core server nat-a nat-b alice bob
    lab_link core 192.0.2.1/24 server 192.0.2.10/24 srv eth0
    lab_link core 198.51.100.1/24 nat-a 198.51.100.2/24 a wan
    lab_link core 203.0.113.1/24 nat-b 203.0.113.2/24 b wan
    lab_link nat-a 10.1.0.1/24 alice 10.1.0.2/24 lan eth0
    lab_link nat-b 10.2.0.1/24 bob 10.2.0.2/24 lan eth0
    lab_forward core
    on server ip route add default via 192.0.2.1
    on nat-a ip route add default via 198.51.100.1
    on nat-b ip route add default via 203.0.113.1
    on alice ip route add default via 10.1.0.1
    on bob ip route add default via 10.2.0.1
    lab_nat nat-a "${1:-easy}"
    lab_nat nat-b "${2:-easy}"
}

# lab_dns HOST ADDRESS DNSMASQ-OPTION...: an authority for the lab's names, and everybody asks it.
lab_dns() {
    local host=$1 address=$2 each
    shift 2
    spawn "$host" dnsmasq.log dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv \
        --no-hosts --listen-address="$address" --bind-interfaces --pid-file= --user=root --local=/test/ "$@"
    for each in "${LAB_HOSTS[@]}"; do
        on "$each" sh -c "printf 'nameserver %s\noptions timeout:1 attempts:2\n' $address >/etc/resolv.conf"
    done
}

# wait_for SECONDS COMMAND...: true as soon as the command is.
wait_for() {
    local limit=$1 start=$SECONDS
    shift
    until "$@" >/dev/null 2>&1; do
        [ $((SECONDS - start)) -ge "$limit" ] && return 1
        sleep 0.1
    done
}

# ---- q2q-tun in the lab --------------------------------------------------------

# lab_use_root DIRECTORY: programs come from a `make install DESTDIR=DIRECTORY` with prefix /usr/local.
lab_use_root() {
    LAB_PATH=$1/usr/local/bin:$1/usr/local/sbin:$PATH
    LAB_LIBRARY_PATH=$1/usr/local/lib
}

LAB_DATA=/var/lib/q2q-server/data

# lab_server_start HOST LISTEN [OPTION...]
lab_server_start() {
    local host=$1 listen=$2
    shift 2
    spawn "$host" "$host-q2q-server.log" q2q-server --data-dir "$LAB_DATA" --listen "$listen" "$@" run
    wait_for 60 on "$host" q2q-server --data-dir "$LAB_DATA" status
}

# lab_end HOST PROGRAM [SIGNAL]: every process of that name, and waits until the last one is gone.
# Zombies count: one may have a thread left, which holds ports and locks.
lab_end() {
    on "$1" pkill "-${3:-TERM}" -x "$2"
    wait_for 60 eval "! on $1 pgrep -x $2"
}

# lab_daemon_start HOST [OPTION...]
lab_daemon_start() {
    local host=$1
    shift
    # Appended to, for a daemon that is killed and started again.
    # shellcheck disable=SC2086 # words
    on "$host" q2q-tund --foreground ${LAB_DAEMON_OPTIONS:-} "$@" >>"$LAB_DIR/$host-q2q-tund.log" 2>&1 </dev/null &
    wait_for 60 on "$host" q2q-tun status
}

# lab_daemon_end HOST: as systemd does it; when this returns another one may be started.
# Closing an interface waits for the kernel, 20 ms each on a busy machine.  Zombies count, as above.
lab_daemon_end() {
    # shellcheck disable=SC2016 # expanded on the host
    on "$1" sh -c 'kill -TERM $(pgrep -o -x q2q-tund)' && wait_for 60 eval "! on $1 pgrep -x q2q-tund"
}

lab_names_by_nss() {
    on "$1" sed -i 's/^hosts:.*/hosts: files q2q dns/' /etc/nsswitch.conf
}

# lab_register HOST ADDRESS SERVER-HOST [OPTION...]: an invited account, its password in /root/password
lab_register() {
    local host=$1 address=$2 server=$3 invite
    shift 3
    echo "a password of $address" | on "$host" sh -c 'umask 077; cat >/root/password'
    invite=$(on "$server" q2q-server --data-dir "$LAB_DATA" invite create) || return
    on "$host" q2q-tun register "$address" --password-file /root/password --invite "$invite" --yes "$@" || return
    # Its daemon listens a moment later; until then it is offline to others.
    wait_for 30 grep -q "$address .* listens" "$LAB_DIR/$server-q2q-server.log"
    return 0
}

LAB_SSH_OPTIONS=(-o StrictHostKeyChecking=accept-new -o BatchMode=yes -o ConnectTimeout=10)

# lab_sshd HOST CLIENT: a stock sshd on HOST that lets root of CLIENT in by key
lab_sshd() {
    on "$1" ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/lab_host_key &&
        on "$1" sh -c 'printf "Port 22\nHostKey /etc/ssh/lab_host_key\nPermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\nSubsystem sftp internal-sftp\n" >/etc/ssh/lab_sshd_config' || return
    spawn "$1" "$1-sshd.log" /usr/sbin/sshd -D -e -f /etc/ssh/lab_sshd_config
    on "$2" mkdir -p -m 0700 /root/.ssh
    on "$1" mkdir -p -m 0700 /root/.ssh
    on "$2" ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
    on "$2" cat /root/.ssh/id_ed25519.pub | on "$1" sh -c 'cat >/root/.ssh/authorized_keys'
    wait_for 30 on "$1" sh -c 'ss -Hltn sport = :22 | grep -q .'
}
