# shellcheck shell=bash
# A gateway that maps ports: miniupnpd with nftables, on a NAT of the lab. Source tunnel_lab.sh first.
#
#   portmap_lab NAME    the lab, alice and bob behind hard NATs, between which there is no direct path
#   gateway HOW         nat-a maps ports by pcp, pmp (alone), upnp, or upnp1 (of the first version)
#   gateway_stop        it is gone, and what it had mapped too
#   mapping HOW         waits until the daemon says so, and nftables does
#   alice_starts [CONFIGURATION...]

PORTMAP_OUTSIDE=9.8.7.6 # miniupnpd does not believe in the lab's own addresses

portmap_lab() {
    command -v miniupnpd >/dev/null ||
        tap_skip_all "miniupnpd is missing (packages miniupnpd, miniupnpd-nftables)"
    tunnel_lab "$1" hard hard
    on nat-a ip addr add $PORTMAP_OUTSIDE/32 dev wan
    on core ip route add $PORTMAP_OUTSIDE via 198.51.100.2
    tunnel_lab_register
    wait_for 30 grep -q 'bob@server.test .* listens' "$LAB_DIR/server-q2q-server.log"
}

gateway_rules() {
    local silent=
    # NAT-PMP alone: what is of PCP's version gets no answer.
    [ "$1" != pmp ] || silent='udp dport 5351 @th,64,8 2 drop'
    on nat-a nft -f - <<NFT
table inet up
delete table inet up
table inet up {
  chain in {
    type filter hook input priority -10;
    $silent
  }
  chain forward {
    type filter hook forward priority -10;
    jump mapped;
  }
  chain mapped {
  }
  chain pre {
    type nat hook prerouting priority -100;
    jump premap;
  }
  chain premap {
  }
  chain post {
    type nat hook postrouting priority 90;
    jump postmap;
  }
  chain postmap {
  }
}
NFT
}

gateway() {
    local natpmp=yes upnp=no first=no
    case $1 in upnp*) natpmp=no upnp=yes ;; esac
    [ "$1" != upnp1 ] || first=yes
    gateway_rules "$1" || return
    on nat-a sh -c "cat >/run/miniupnpd.conf" <<CONF
ext_ifname=wan
ext_ip=$PORTMAP_OUTSIDE
listening_ip=lan
enable_natpmp=$natpmp
enable_upnp=$upnp
force_igd_desc_v1=$first
secure_mode=yes
upnp_table_name=up
upnp_nat_table_name=up
upnp_forward_chain=mapped
upnp_nat_chain=premap
upnp_nat_postrouting_chain=postmap
min_lifetime=5
max_lifetime=86400
uuid=00000000-0000-0000-0000-000000000001
allow 1024-65535 10.1.0.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
CONF
    on nat-a ip route replace 239.0.0.0/8 dev lan
    spawn nat-a miniupnpd.log miniupnpd -d -f /run/miniupnpd.conf -P /run/miniupnpd.pid
    if [ $upnp = yes ]; then
        wait_for 30 on nat-a sh -c 'ss -Hlun sport = :1900 | grep -q .'
    else
        wait_for 30 on nat-a sh -c 'ss -Hlun sport = :5351 | grep -q .'
    fi
}

gateway_stop() {
    lab_end nat-a miniupnpd KILL
    on nat-a nft delete table inet up
}

premap() {
    on nat-a nft list chain inet up premap
}

# Whether nftables sends a port to alice
is_mapped() {
    premap | grep -q 'dnat ip to 10.1.0.2:'
}

# The rules, as a comment
show_mapping() {
    premap | grep dnat | sed 's/^ */# /'
}

is_unmapped() {
    ! premap | grep -q dnat
}

alice_log() {
    tail -n "+$((ALICE_LOG_FROM + 1))" "$LAB_DIR/alice-q2q-tund.log"
}

alice_log_says() {
    alice_log | grep -q "$1"
}

alice_starts() {
    on alice pgrep -x q2q-tund >/dev/null && lab_end alice q2q-tund
    ALICE_LOG_FROM=$(wc -l <"$LAB_DIR/alice-q2q-tund.log")
    on alice mkdir -p /etc/q2q-tun
    printf '[network]\n' | cat - <(printf '%s\n' "$@") | on alice sh -c 'cat >/etc/q2q-tun/q2q-tun.conf'
    lab_daemon_start alice
}

mapping() {
    wait_for 60 alice_log_says "the gateway maps $PORTMAP_OUTSIDE:.* to us ($1)" && wait_for 20 is_mapped
}
