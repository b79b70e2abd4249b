# shellcheck shell=bash
# An internet of the lab with as many sides as one likes, each behind routers of
# its own kind. Source lab.sh (or tunnel_lab.sh) first.
#
#   nat_lab_start NAME         the core with its name server, and server.test with its programs
#   nat_lab_side NAME KIND     a machine NAME, registered as NAME@server.test, behind KIND
#   nat_lab_pair_sides A B KIND    two machines behind one and the same NAT
#   nat_lab_meet A B           B allows A, and both states are kept as they are now
#   nat_lab_renew A B          both daemons and all NATs between as new, states as they were kept
#   nat_lab_run A B SECONDS    renew, then nat_measure.py from A to B: one line of JSON
#
# NAT_LAB_RTT_MS is the time from each side to each other one and back, and to the server (0).
#
# KIND of a side: what lab_nat takes, or
#   public    no NAT, no firewall             v6        IPv6 alone, behind a stateful firewall
#   double    easy behind easy                dual      easy, and IPv6 behind a stateful firewall
#   carrier   easy behind a carrier's NAT     nat64     IPv6 alone; IPv4 through NAT64 and DNS64
#             with a block of random ports
# KIND of a pair behind one NAT:
#   lan             two machines on one LAN
#   neighbours      two homes behind one carrier's NAT, which does not hairpin
#   neighbours-hairpin                         and which does
#
# Every home has the same private network, as homes do.

declare -gA NAT_LAB_ROUTERS # of a side: "HOST:KIND ..."
declare -gA NAT_LAB_MADE    # sides that are there
NAT_LAB_N=0
: "${NAT_LAB_RTT_MS:=0}"
NAT_LAB_PREFIX64=2001:db8:64:ff9b # not 64:ff9b::/96, which must be found out rather than known

nat_lab_start() {
    local reason
    reason=$(lab_need_root) || tap_skip_all "$reason"
    command -v dnsmasq >/dev/null || tap_skip_all "dnsmasq is missing (package dnsmasq-base)"
    [ -x "${abs_top_builddir:-/nonexistent}/tests/netns/root/usr/local/sbin/q2q-tund" ] ||
        tap_bail "q2q-tun is not installed into tests/netns/root; run this by make check"
    lab_start "$1"
    lab_use_root "$abs_top_builddir/tests/netns/root"
    lab_host core server
    lab_link core 192.0.2.1/24 server 192.0.2.10/24 srv eth0
    # Two addresses of the server show which NATs map per address.
    on server ip addr add 192.0.2.11/24 dev eth0
    on core ip addr add 2001:db8::1/64 dev srv
    on server ip addr add 2001:db8::10/64 dev eth0
    on server ip route add default via 192.0.2.1
    on server ip -6 route add default via 2001:db8::1
    lab_forward core
    # The core stands for many routers: a packet that shall die on its way has to.
    on core nft -f - <<'NFT'
table inet far {
  chain fw {
    type filter hook forward priority 0;
    ip ttl < 8 drop;
    ip6 hoplimit < 8 drop;
  }
}
NFT
    spawn core dnsmasq.log dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts \
        --listen-address=192.0.2.1,2001:db8::1 --bind-interfaces --pid-file= --user=root --local=/test/ \
        --local=/arpa/ --host-record=server.test,192.0.2.10,2001:db8::10 --host-record=server.test,192.0.2.11 \
        --srv-host=_q2q._tcp.server.test,server.test,8788
    nat_lab_resolver server 192.0.2.1
    [ "$NAT_LAB_RTT_MS" -eq 0 ] || nat_lab_distance || return
    on server q2q-server --data-dir "$LAB_DATA" init server.test >/dev/null &&
        lab_server_start server 192.0.2.10:8788 --listen 192.0.2.11:8788 --listen '[2001:db8::10]:8788' \
            --listen 192.0.2.10:443 --listen '[2001:db8::10]:443'
}

# What the core forwards waits half of the round trip on its way; the name server is near.
nat_lab_distance() {
    local family
    spawn core delay.log "$abs_top_builddir/tests/netns/delay" far $((NAT_LAB_RTT_MS * 500))
    wait_for 20 grep -q ready "$LAB_DIR/delay.log" && on core ip link set far up || return
    for family in -4 -6; do
        on core ip "$family" rule add pref 10 iif far lookup main &&
            on core ip "$family" rule add pref 20 iif lo lookup main &&
            on core ip "$family" rule add pref 30 lookup 100 &&
            on core ip "$family" route add default dev far table 100 || return
    done
}

nat_lab_resolver() {
    on "$1" sh -c "printf 'nameserver %s\noptions timeout:1 attempts:2\n' $2 >/etc/resolv.conf"
}

# A cable from HOST's interface IF to the core, with addresses of its own, IPv4 and IPv6.
nat_lab_uplink() {
    local host=$1 interface=$2 n
    n=$((++NAT_LAB_N))
    lab_link core "198.18.$n.1/24" "$host" "198.18.$n.2/24" "s$n" "$interface" || return
    on core ip addr add "2001:db8:ff:$n::1/64" dev "s$n"
    on "$host" ip addr add "2001:db8:ff:$n::2/64" dev "$interface"
    on "$host" ip route add default via "198.18.$n.1"
    on "$host" ip -6 route add default via "2001:db8:ff:$n::1"
    NAT_LAB_UPLINK=$n
}

# A machine NAME on the LAN side of ROUTER.
nat_lab_machine() {
    local name=$1 router=$2
    lab_link "$router" 192.168.1.1/24 "$name" 192.168.1.2/24 lan eth0 &&
        on "$name" ip route add default via 192.168.1.1
}

# IPv6 for NAME, from ROUTER.
nat_lab_machine6() {
    local name=$1 router=$2 n=$NAT_LAB_UPLINK
    on "$router" ip addr add "2001:db8:$n::1/64" dev lan
    on "$name" ip addr add "2001:db8:$n::2/64" dev eth0
    on "$name" ip -6 route add default via "2001:db8:$n::1"
    on core ip -6 route add "2001:db8:$n::/64" via "2001:db8:ff:$n::2"
}

# NAT64 and DNS64 on ROUTER.
nat_lab_translate() {
    local router=$1 dir=$LAB_DIR/$1 prefix=$NAT_LAB_PREFIX64
    command -v tayga >/dev/null || { echo "tayga is missing (package tayga)"; return 1; }
    cat >"$dir/tayga.conf" <<CONF
tun-device nat64
ipv4-addr 192.168.255.1
prefix $prefix::/96
dynamic-pool 192.168.255.0/24
data-dir $dir
CONF
    on "$router" tayga --mktun -c "$dir/tayga.conf" >/dev/null &&
        on "$router" ip link set nat64 up &&
        on "$router" ip addr add 192.168.255.254/32 dev nat64 &&
        on "$router" ip route add 192.168.255.0/24 dev nat64 &&
        on "$router" ip -6 route add "$prefix::/96" dev nat64 &&
        spawn "$router" "$router-tayga.log" tayga -d -c "$dir/tayga.conf" &&
        spawn "$router" "$router-dns64.log" dnsmasq --keep-in-foreground --conf-file=/dev/null \
            --no-resolv --no-hosts --interface=lan --bind-interfaces --pid-file= --user=root \
            --local=/test/ --local=/arpa/ --host-record="server.test,192.0.2.10,$prefix::c000:20a" \
            --host-record="ipv4only.arpa,192.0.0.170,$prefix::c000:aa" \
            --srv-host=_q2q._tcp.server.test,server.test,8788
}

nat_lab_router() {
    local name=$1
    lab_host "$name" && nat_lab_uplink "$name" wan
}

# HOME gets an outside address inside of CARRIER's network: number N of it.
nat_lab_home() {
    local home=$1 carrier=$2 n=$3
    lab_host "$home" && lab_link "$carrier" "100.100.$n.1/24" "$home" "100.100.$n.2/24" "lan$n" wan &&
        on "$home" ip route add default via "100.100.$n.1"
}

# The carrier's NAT has as many inner interfaces as homes; its rules know one name.
nat_lab_carrier_nat() {
    lab_nat "$1" "$2"
}

nat_lab_wire() {
    local name=$1 kind=$2 resolver=192.0.2.1
    case $kind in
    public)
        nat_lab_uplink "$name" eth0
        ;;
    double | carrier)
        local outer=easy
        [ "$kind" = double ] || outer=random,block=20000-20511
        nat_lab_router "$name-isp" && nat_lab_home "$name-nat" "$name-isp" 1 &&
            nat_lab_machine "$name" "$name-nat" || return
        NAT_LAB_ROUTERS[$name]="$name-isp:$outer $name-nat:easy"
        ;;
    v6 | nat64)
        nat_lab_router "$name-nat" && nat_lab_machine "$name" "$name-nat" &&
            nat_lab_machine6 "$name" "$name-nat" || return
        on "$name" ip -4 addr flush dev eth0
        resolver=2001:db8::1
        NAT_LAB_ROUTERS[$name]="$name-nat:easy"
        [ "$kind" = v6 ] && on "$name-nat" ip -4 route del default
        if [ "$kind" = nat64 ]; then
            nat_lab_translate "$name-nat" || return
            resolver=2001:db8:$NAT_LAB_UPLINK::1
        fi
        ;;
    dual)
        nat_lab_router "$name-nat" && nat_lab_machine "$name" "$name-nat" &&
            nat_lab_machine6 "$name" "$name-nat" || return
        NAT_LAB_ROUTERS[$name]="$name-nat:easy"
        ;;
    *)
        nat_lab_router "$name-nat" && nat_lab_machine "$name" "$name-nat" || return
        NAT_LAB_ROUTERS[$name]="$name-nat:$kind"
        ;;
    esac
    nat_lab_resolver "$name" "$resolver"
}

nat_lab_join() {
    local name=$1
    lab_names_by_nss "$name"
    nat_lab_routers_new "$name" && lab_daemon_start "$name" &&
        lab_register "$name" "$name@server.test" server >/dev/null && nat_lab_end "$name" &&
        nat_lab_keep "$name" born && NAT_LAB_MADE[$name]=yes
}

nat_lab_side() {
    lab_host "$1" && nat_lab_wire "$1" "$2" && nat_lab_join "$1"
}

nat_lab_pair_sides() {
    local a=$1 b=$2 kind=$3 outer=easy
    lab_host "$a" "$b"
    case $kind in
    lan)
        nat_lab_router "$a-nat" && on "$a-nat" ip link add lan type bridge &&
            on "$a-nat" ip addr add 192.168.1.1/24 dev lan && on "$a-nat" ip link set lan up || return
        local name n=2
        for name in "$a" "$b"; do
            lab_link "$a-nat" 0.0.0.0/32 "$name" "192.168.1.$n/24" "port$n" eth0
            on "$a-nat" ip link set "port$n" master lan
            on "$name" ip route add default via 192.168.1.1
            n=$((n + 1))
        done
        NAT_LAB_ROUTERS[$a]="$a-nat:easy"
        ;;
    neighbours*)
        [ "$kind" = neighbours ] || outer=none,hairpin
        nat_lab_router "$a-isp" && nat_lab_home "$a-nat" "$a-isp" 1 && nat_lab_home "$b-nat" "$a-isp" 2 &&
            nat_lab_machine "$a" "$a-nat" && nat_lab_machine "$b" "$b-nat" || return
        NAT_LAB_ROUTERS[$a]="$a-isp:$outer $a-nat:easy"
        NAT_LAB_ROUTERS[$b]="$b-nat:easy"
        ;;
    *) echo "lab: no pair is called $kind" >&2; return 1 ;;
    esac
    nat_lab_resolver "$a" 192.0.2.1
    nat_lab_resolver "$b" 192.0.2.1
    nat_lab_join "$a" && nat_lab_join "$b"
}

# All NATs of a side, with their rules and without any flow.
nat_lab_routers_new() {
    local each
    for each in ${NAT_LAB_ROUTERS[$1]:-}; do
        lab_nat "${each%%:*}" "${each#*:}" || return
    done
}

# A daemon's state, under a name.
nat_lab_keep() {
    rm -rf "${LAB_DIR:?}/$1/$2" && cp -a "$LAB_DIR/$1/state" "$LAB_DIR/$1/$2"
}

nat_lab_restore() {
    # The directory itself is mounted there, so it stays.
    find "$LAB_DIR/$1/state" -mindepth 1 -delete && cp -a "$LAB_DIR/$1/$2/." "$LAB_DIR/$1/state/"
}

nat_lab_end() {
    on "$1" pkill -KILL -x q2q-tund
    wait_for 30 eval "! on $1 pgrep -x q2q-tund"
}

nat_lab_connected() {
    on "$1" q2q-tun --json status | grep -q '"connected": *true'
}

nat_lab_meet() {
    nat_lab_end "$1" && nat_lab_end "$2" && nat_lab_restore "$1" born && nat_lab_restore "$2" born &&
        lab_daemon_start "$2" && on "$2" q2q-tun allow "$1@server.test" --yes >/dev/null &&
        nat_lab_end "$2" && nat_lab_keep "$1" "met-$2" && nat_lab_keep "$2" "met-$1"
}

nat_lab_renew() {
    local name
    nat_lab_end "$1" && nat_lab_end "$2" && nat_lab_restore "$1" "met-$2" && nat_lab_restore "$2" "met-$1" || return
    for name in "$1" "$2"; do
        nat_lab_routers_new "$name" || return
    done
    for name in "$1" "$2"; do
        lab_daemon_start "$name" || return
    done
    wait_for 20 nat_lab_connected "$1" && wait_for 20 nat_lab_connected "$2"
}

nat_lab_run() {
    nat_lab_renew "$1" "$2" || { echo '{"ok": false, "error": "not connected to the server"}'; return 1; }
    on "$1" "$LAB_TOP/tests/netns/nat_measure.py" "$2@server.test" "$3" || return
}
