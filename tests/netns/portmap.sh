#!/usr/bin/env bash
# A gateway that maps ports: miniupnpd, as PCP and as NAT-PMP speaker. The port
# is told to peers, leads inside, and is given back when the daemon ends.
. "$(dirname "$0")/tunnel_lab.sh"
command -v miniupnpd >/dev/null || tap_skip_all "miniupnpd is missing (packages miniupnpd, miniupnpd-nftables)"
tunnel_lab portmap

# The lab's own outside is of an address range that miniupnpd does not believe in.
OUTSIDE=9.8.7.6

gateway() {
    on nat-a nft -f - <<'NFT' || return
table inet up {
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
    on nat-a sh -c "cat >/run/miniupnpd.conf" <<CONF
ext_ifname=wan
ext_ip=$OUTSIDE
listening_ip=lan
enable_natpmp=yes
enable_upnp=no
secure_mode=yes
upnp_table_name=up
upnp_nat_table_name=up
upnp_forward_chain=mapped
upnp_nat_chain=premap
upnp_nat_postrouting_chain=postmap
min_lifetime=120
max_lifetime=86400
uuid=00000000-0000-0000-0000-000000000001
allow 1024-65535 10.1.0.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
CONF
    spawn nat-a miniupnpd.log miniupnpd -d -f /run/miniupnpd.conf -P /run/miniupnpd.pid
    wait_for 10 on nat-a sh -c 'ss -Hlun sport = :5351 | grep -q .'
}

restart_alice() {
    lab_end alice q2q-tund
    lab_daemon_start alice
}

rules() {
    on nat-a nft list chain inet up premap
}

maps() {
    wait_for 10 grep -q "the gateway maps $OUTSIDE:.* to us ($1)" "$LAB_DIR/alice-q2q-tund.log" &&
        rules | tee /dev/stderr | grep -q 'dnat ip to 10.1.0.2:'
}

told() {
    on alice q2q-tun --json status bob@server.test | grep -q "\"$OUTSIDE:"
}

gives_back() {
    lab_end alice q2q-tund
    wait_for 5 eval '! rules | grep -q dnat'
}

tap "a gateway that maps ports" gateway
restart_alice
tap "PCP gives us a port" maps PCP
tunnel_lab_register
wait_for 10 grep -q 'bob@server.test .* listens' "$LAB_DIR/server-q2q-server.log"
tunnel_lab_up
tap "the peer is told of it" wait_for 5 told
tap "it is given back at the end" gives_back
tap_done
