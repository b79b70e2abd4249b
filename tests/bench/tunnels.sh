# shellcheck shell=bash
# The tunnels that are measured, each between two hosts of its own. Source it after lab.sh.
#
#   tunnel_up NAME A B     brings it up between two hosts that reach one another as 192.0.2.1 and
#                          192.0.2.2 by their eth0; sets TUNNEL_ADDRESS, where A reaches B through
#                          it, and TUNNEL_PROGRAM, whose processor time and memory are counted.
#                          1: not installed, or it does not come up
#   tunnel_missing NAME    says what is not installed, or nothing
#   q2q_tun_set NAME HOST...   makes q2q-tun there, before it starts, one of TUNNEL_VARIANTS
#
# WIREGUARD_GO, NEBULA and YGGDRASIL are paths to other ones than the system's.

TUNNELS="none null null-openssl null-ipsec-mb wireguard-go nebula openvpn-udp openvpn-tcp tinc fastd n2n yggdrasil q2q-tun"
# q2q-tun with another setting; measured where they are asked for
TUNNEL_VARIANTS="q2q-tun-openssl q2q-tun-no-parity"
TUNNEL_PACKAGES="wireguard-go wireguard-tools nebula openvpn tinc fastd n2n yggdrasil"

tunnel_program() {
    case $1 in
    null*) echo null_tunnel ;;
    wireguard-go) echo "${WIREGUARD_GO:-wireguard-go}" ;;
    nebula) echo "${NEBULA:-nebula}" ;;
    yggdrasil) echo "${YGGDRASIL:-yggdrasil}" ;;
    openvpn-*) echo openvpn ;;
    tinc) echo tincd ;;
    n2n) echo edge ;;
    q2q-tun*) echo q2q-tund ;;
    fastd) echo fastd ;;
    esac
}

tunnel_missing() {
    local program
    program=$(tunnel_program "$1")
    case $1 in
    none | null* | q2q-tun*) ;;
    *) PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || echo "$program" ;;
    esac
}

tunnel_up() {
    local program
    [ -z "$(tunnel_missing "$1")" ] || return 1
    TUNNEL_ADDRESS='' program=$(tunnel_program "$1")
    # The kernel keeps 15 characters of a name.
    TUNNEL_PROGRAM=$(basename "${program:-none}" | cut -c 1-15)
    case $1 in
    none) TUNNEL_ADDRESS=192.0.2.2 ;;
    null) tunnel_null "$2" "$3" none ;;
    null-*) tunnel_null "$2" "$3" "${1#null-}" ;;
    openvpn-udp) tunnel_openvpn "$2" "$3" udp udp ;;
    openvpn-tcp) tunnel_openvpn "$2" "$3" tcp-server tcp-client ;;
    q2q-tun*) tunnel_q2q_tun "$1" "$2" "$3" ;;
    *) "tunnel_${1//-/_}" "$2" "$3" ;;
    esac || return 1
    case $TUNNEL_ADDRESS in
    '') return 1 ;;
    *) wait_for 20 on "$2" ping -c 1 -W 1 "$TUNNEL_ADDRESS" ;;
    esac
}

# bench_tune HOST...: what makes rounds independent of one another
bench_tune() {
    local host
    for host in "$@"; do
        on "$host" sysctl -qw net.ipv4.tcp_no_metrics_save=1
    done
}

iperf_server() {
    spawn "$1" "$1-iperf3-${2:-5201}.log" iperf3 -s -p "${2:-5201}"
    wait_for 5 on "$1" sh -c "ss -Hltn sport = :${2:-5201} | grep -q ."
}

# tunnel_address A B INTERFACE: 10.9.0.1 at A and 10.9.0.2 at B
tunnel_address() {
    wait_for 10 on "$1" ip link show "$3" && wait_for 10 on "$2" ip link show "$3" || return
    on "$1" ip addr add 10.9.0.1/24 dev "$3" && on "$2" ip addr add 10.9.0.2/24 dev "$3" &&
        on "$1" ip link set dev "$3" up && on "$2" ip link set dev "$3" up &&
        TUNNEL_ADDRESS=10.9.0.2
}

# tunnel_null A B AEAD
tunnel_null() {
    local host own=192.0.2.1 other=192.0.2.2
    for host in "$1" "$2"; do
        spawn "$host" "$host-null.log" "$BUILD/tests/bench/null_tunnel" --aead "$3" null0 $own:5000 $other:5000
        own=192.0.2.2 other=192.0.2.1
        wait_for 3 on "$host" ip link show null0 || return
        # A packet that is still sent by one system call, and room for more than one burst
        on "$host" ip link set dev null0 mtu 1500 txqueuelen 2000 gso_max_size 62000 || return
    done
    tunnel_address "$1" "$2" null0
}

tunnel_wireguard_go() {
    local host
    for host in "$1" "$2"; do
        on "$host" mkdir -p /run/wireguard
        spawn "$host" "$host-wireguard.log" env WG_PROCESS_FOREGROUND=1 "${WIREGUARD_GO:-wireguard-go}" -f wg0
        on "$host" sh -c 'umask 077; wg genkey >/root/wg.key; wg pubkey </root/wg.key >/root/wg.pub'
        wait_for 5 on "$host" ip link show wg0 || return
    done
    on "$1" wg set wg0 private-key /root/wg.key listen-port 51820 \
        peer "$(on "$2" cat /root/wg.pub)" allowed-ips 10.9.0.2/32 endpoint 192.0.2.2:51820 &&
        on "$2" wg set wg0 private-key /root/wg.key listen-port 51820 \
            peer "$(on "$1" cat /root/wg.pub)" allowed-ips 10.9.0.1/32 endpoint 192.0.2.1:51820 &&
        on "$1" ip link set dev wg0 mtu 1420 && on "$2" ip link set dev wg0 mtu 1420 &&
        tunnel_address "$1" "$2" wg0
}

# tunnel_openvpn A B PROTO-OF-B PROTO-OF-A: TLS with pinned certificates, AES-256-GCM
tunnel_openvpn() {
    local host
    local common=(--dev tun0 --dev-type tun --disable-dco --dh none --cert /root/vpn.crt --key /root/vpn.key
        --data-ciphers AES-256-GCM --verb 1)
    for host in "$1" "$2"; do
        on "$host" openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
            -subj "/CN=$host" -keyout /root/vpn.key -out /root/vpn.crt 2>/dev/null || return
    done
    local print_a print_b
    print_a=$(on "$1" openssl x509 -in /root/vpn.crt -noout -fingerprint -sha256 | cut -d= -f2)
    print_b=$(on "$2" openssl x509 -in /root/vpn.crt -noout -fingerprint -sha256 | cut -d= -f2)
    spawn "$2" "$2-openvpn.log" openvpn "${common[@]}" --tls-server --proto "$3" --peer-fingerprint "$print_a"
    spawn "$1" "$1-openvpn.log" openvpn "${common[@]}" --tls-client --proto "$4" --remote 192.0.2.2 1194 \
        --nobind --peer-fingerprint "$print_b"
    tunnel_address "$1" "$2" tun0
}

tunnel_nebula_config() {
    cat <<YAML
pki: { ca: /root/ca.crt, cert: /root/host.crt, key: /root/host.key }
static_host_map: { "10.9.0.$2": ["192.0.2.$2:4242"] }
lighthouse: { am_lighthouse: false }
listen: { host: 0.0.0.0, port: 4242 }
tun: { dev: nebula0 }
firewall:
  outbound: [{ port: any, proto: any, host: any }]
  inbound: [{ port: any, proto: any, host: any }]
YAML
}

tunnel_nebula() {
    local host n=1 cert=nebula-cert dir=$LAB_DIR/nebula.$1
    [ -z "${NEBULA:-}" ] || cert=$(dirname "$NEBULA")/nebula-cert
    mkdir -p "$dir" && "$cert" ca -name bench -out-crt "$dir/ca.crt" -out-key "$dir/ca.key" || return
    for host in "$1" "$2"; do
        "$cert" sign -ca-crt "$dir/ca.crt" -ca-key "$dir/ca.key" -name "$host" -ip "10.9.0.$n/24" \
            -out-crt "$dir/$host.crt" -out-key "$dir/$host.key" || return
        on "$host" tee /root/ca.crt <"$dir/ca.crt" >/dev/null
        on "$host" tee /root/host.crt <"$dir/$host.crt" >/dev/null
        on "$host" tee /root/host.key <"$dir/$host.key" >/dev/null
        tunnel_nebula_config $n $((3 - n)) | on "$host" tee /root/nebula.yml >/dev/null
        spawn "$host" "$host-nebula.log" "${NEBULA:-nebula}" -config /root/nebula.yml
        n=2
    done
    TUNNEL_ADDRESS=10.9.0.2
}

tunnel_tinc() {
    local host n=1 dir=/etc/tinc/bench
    for host in "$1" "$2"; do
        on "$host" mkdir -p $dir/hosts
        on "$host" sh -c "printf 'Name = n$n\nInterface = tinc0\n' >$dir/tinc.conf
            printf 'Address = 192.0.2.$n\nSubnet = 10.9.0.$n/32\n' >$dir/hosts/n$n
            printf '#!/bin/sh\nip link set dev tinc0 up\n' >$dir/tinc-up; chmod +x $dir/tinc-up
            tincd -n bench -K 2048 </dev/null >/dev/null 2>&1" || return
        n=2
    done
    on "$1" cat $dir/hosts/n1 | on "$2" tee $dir/hosts/n1 >/dev/null
    on "$2" cat $dir/hosts/n2 | on "$1" tee $dir/hosts/n2 >/dev/null
    on "$1" sh -c "echo 'ConnectTo = n2' >>$dir/tinc.conf"
    for host in "$2" "$1"; do
        spawn "$host" "$host-tinc.log" tincd -n bench -D
    done
    tunnel_address "$1" "$2" tinc0
}

tunnel_fastd() {
    local host n=1
    for host in "$1" "$2"; do
        on "$host" sh -c 'fastd --machine-readable --generate-key >/root/fastd.secret &&
            echo "secret \"$(cat /root/fastd.secret)\";" >/root/fastd.conf &&
            fastd --machine-readable --config /root/fastd.conf --show-key >/root/fastd.public' || return
    done
    for host in "$1" "$2"; do
        local other=$2
        [ "$host" = "$1" ] || other=$1
        on "$host" sh -c "cat >>/root/fastd.conf" <<CONF
bind 192.0.2.$n:10000;
interface "fastd0";
mode tun;
mtu 1400;
method "salsa2012+umac";
peer "other" { key "$(on "$other" cat /root/fastd.public)"; remote 192.0.2.$((3 - n)):10000; }
CONF
        spawn "$host" "$host-fastd.log" fastd --config /root/fastd.conf
        n=2
    done
    tunnel_address "$1" "$2" fastd0
}

tunnel_n2n() {
    local host n=1
    spawn "$2" "$2-supernode.log" supernode -f -l 7654
    for host in "$1" "$2"; do
        spawn "$host" "$host-n2n.log" edge -f -d n2n0 -a 10.9.0.$n -c bench -k bench -l 192.0.2.2:7654
        n=2
    done
    TUNNEL_ADDRESS=10.9.0.2
}

tunnel_yggdrasil() {
    local host n=2 program=${YGGDRASIL:-yggdrasil}
    # B first: who finds nobody listening tries again only after a minute.
    for host in "$2" "$1"; do
        on "$host" mkdir -p /run/yggdrasil
        on "$host" "$program" -genconf -json | python3 -c '
import json, sys
c, n = json.load(sys.stdin), int(sys.argv[1])
c["IfName"], c["MulticastInterfaces"] = "ygg0", []
c["Listen"], c["Peers"] = (["tcp://192.0.2.2:9001"], []) if n == 2 else ([], ["tcp://192.0.2.2:9001"])
json.dump(c, sys.stdout)' $n | on "$host" tee /root/ygg.conf >/dev/null
        spawn "$host" "$host-yggdrasil.log" "$program" -useconffile /root/ygg.conf
        wait_for 5 on "$2" sh -c 'ss -Hltn sport = :9001 | grep -q .' || return
        n=1
    done
    TUNNEL_ADDRESS=$(on "$2" "$program" -useconffile /root/ygg.conf -address)
}

q2q_tun_set() {
    local name=$1 host section setting
    shift
    case $name in
    q2q-tun-openssl) section=daemon setting='aead-backend = openssl' ;;
    q2q-tun-no-parity) section=network setting='parity = off' ;;
    *) return 0 ;;
    esac
    for host in "$@"; do
        on "$host" sh -c "mkdir -p /etc/q2q-tun && cd /etc/q2q-tun && touch q2q-tun.conf &&
            { grep -qx '\[$section\]' q2q-tun.conf || echo '[$section]' >>q2q-tun.conf; } &&
            sed -i '/^\[$section\]/a $setting' q2q-tun.conf" || return
    done
}

# tunnel_q2q_tun NAME A B: with the identity server on B
tunnel_q2q_tun() {
    local host
    q2q_tun_set "$@" || return
    shift
    for host in "$1" "$2"; do
        on "$host" sh -c 'echo "192.0.2.2 server.test" >>/etc/hosts'
    done
    on "$2" q2q-server --data-dir "$LAB_DATA" init server.test >/dev/null &&
        lab_server_start "$2" 192.0.2.2:8788 || return
    for host in "$1" "$2"; do
        lab_daemon_start "$host" &&
            lab_register "$host" "$host@server.test" "$2" >/dev/null || return
    done
    on "$2" q2q-tun allow "$1@server.test" --yes >/dev/null &&
        on "$1" q2q-tun up "$2@server.test" --yes >/dev/null &&
        on "$1" q2q-tun wait "$2@server.test" --direct --timeout 15 >/dev/null || return
    TUNNEL_ADDRESS=$(on "$1" q2q-tun --json status |
        python3 -c 'import json,sys; print(json.load(sys.stdin)["peers"][0]["ipv4"])')
}
