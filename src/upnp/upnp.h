/*
 * upnp - q2q-tun-upnp, the process that talks UPnP with the gateway.
 *
 * UPnP is multicast, HTTP and XML from an untrusted LAN; the library that speaks it
 * (libminiupnpc) blocks. So it lives in a program of its own, which the daemon's process starts
 * before it gives up what starting takes. It has no capability, is given nothing but a socket to
 * the daemon, and serves requests of struct nat_igd_request, one at a time. Each conversation is
 * held by a fresh child, which may use IPv4 sockets and nothing else, under limits of memory and
 * time that the kernel keeps: what a gateway does to one is gone with it.
 *
 *	daemon --- socketpair --- nanny --- fork, shared page --- conversation --- gateway
 *
 * When the daemon is gone, however that came, the nanny gives back what is mapped, and ends.
 */
#ifndef UPNP_UPNP_H
#define UPNP_UPNP_H

#include "base/base.h"
#include "nat/nat.h"

enum {
	UPNP_SOCKET_FD = 3, /* the daemon's other end */
	UPNP_URL_BYTES = 128,
	UPNP_SEARCH_BYTES = 256,
	UPNP_LOCATIONS_MAX = 3,
	UPNP_ANSWERS_MAX = 64, /* datagrams read in one search, whoever sent them */
	UPNP_PORT = 1900,
	UPNP_TIME_S = 20, /* for one conversation */
	UPNP_UNMAP_TIME_S = 5,
};

/* ssdp.c: UPnP Device Architecture 2.0, section 1.3. Sans-IO. */

/* A search for gateways of a version, to be sent to `host`. Its size. */
size_t upnp_search(const char *host, unsigned version, char out[static UPNP_SEARCH_BYTES]);
/*
 * An answer to it; that it came from the gateway the caller has checked. 0, and where its
 * description is. -EBADMSG: it is none, or the description is not at the gateway itself.
 */
int upnp_search_answer(const void *data, size_t data_bytes, const struct ip_address *gateway,
		       char ret_url[static UPNP_URL_BYTES]);
/* Whether it is "http://" and the gateway's address in figures, with or without a port. */
bool upnp_url_is_at(const char *url, const struct ip_address *gateway);

/* sandbox.c: 0 or a fault. */

/* Of the nanny, and so of all its children. */
int upnp_sandbox_nanny(void);
/* Of one that talks, for its last part. It is killed after so many seconds. */
int upnp_sandbox_conversation(unsigned time_s);

/* igd.c: to be called in a child; `search_fd` of upnp_search_open(). Blocks. */
int upnp_search_open(const struct nat_igd_request *request);
void upnp_converse(int search_fd, const struct nat_igd_request *request,
		   struct nat_igd_answer *ret_answer);

#endif
