/* q2q-tun-upnp: requests of the daemon in, a child for each, answers out. See upnp.h. */
#include "config.h"
#include "upnp/upnp.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct nanny {
	struct nat_igd_request
		mapped;              /* what to give back when the daemon is gone; op 0: nothing */
	struct nat_igd_answer *page; /* shared with the child of the moment */
};

/* ---- one conversation ---------------------------------------------------------------------- */

static bool is_sound(const struct nat_igd_request *q)
{
	return q->magic == NAT_IGD_REQUEST_MAGIC && q->port != 0 &&
	       (q->op == NAT_IGD_MAP || (q->op == NAT_IGD_UNMAP && q->external_port != 0)) &&
	       q->lifetime_s <= NAT_PORTMAP_LIFETIME_S_MAX;
}

static void child(const struct nat_igd_request *request, struct nat_igd_answer *page)
{
	const unsigned time_s = request->op == NAT_IGD_UNMAP ? UPNP_UNMAP_TIME_S : UPNP_TIME_S;
	struct nat_igd_answer answer;
	int fd;

	close(UPNP_SOCKET_FD);
	fd = upnp_search_open(request);
	if (fd < 0 || upnp_sandbox_conversation(time_s) < 0)
		_exit(EXIT_FAILURE);
	upnp_converse(fd, request, &answer);
	*page = answer;
	_exit(EXIT_SUCCESS);
}

/* What the child left is believed no more than a stranger's packet. */
static struct nat_igd_answer hold(struct nanny *n, const struct nat_igd_request *request)
{
	struct nat_igd_answer answer = { .result = NAT_IGD_BROKEN };
	int status = -1;
	pid_t pid;

	memset(n->page, 0, sizeof(*n->page));
	pid = fork();
	if (pid == 0)
		child(request, n->page);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS)
		answer = *n->page;
	if (answer.result >= NAT_IGD_RESULT_COUNT)
		answer.result = NAT_IGD_BROKEN;
	answer.magic = NAT_IGD_ANSWER_MAGIC;
	answer.id = request->id;
	answer.zero = 0;
	return answer;
}

/* ---- the daemon -------------------------------------------------------------------------------
 */

static void remember(struct nanny *n, const struct nat_igd_request *request,
		     const struct nat_igd_answer *answer)
{
	if (request->op == NAT_IGD_UNMAP)
		n->mapped.op = 0;
	if (request->op != NAT_IGD_MAP || answer->result != NAT_IGD_DONE)
		return;
	n->mapped = *request;
	n->mapped.op = NAT_IGD_UNMAP;
	n->mapped.external_port = answer->external_port;
}

/* False: the daemon is gone, or makes no sense. */
static bool serve(struct nanny *n)
{
	struct nat_igd_request request;
	struct nat_igd_answer answer;
	/* One too long is cut, and recognised. */
	const ssize_t n_bytes = recv(UPNP_SOCKET_FD, &request, sizeof(request), MSG_TRUNC);

	if (n_bytes < 0 && errno == EINTR)
		return true;
	if (n_bytes != (ssize_t)sizeof(request) || !is_sound(&request))
		return false;
	/* It may have been asked for under a port that was not to be had. */
	if (request.op == NAT_IGD_UNMAP && n->mapped.op && n->mapped.port == request.port &&
	    memcmp(n->mapped.gateway, request.gateway, sizeof(request.gateway)) == 0)
		request.external_port = n->mapped.external_port;
	answer = hold(n, &request);
	remember(n, &request, &answer);
	return send(UPNP_SOCKET_FD, &answer, sizeof(answer), MSG_NOSIGNAL) ==
	       (ssize_t)sizeof(answer);
}

static int prepare(struct nanny *n)
{
	const int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null_fd < 0)
		return -errno;
#ifndef __SANITIZE_ADDRESS__ /* whose findings are to be seen */
	for (int fd = 0; fd <= 2; fd++)
		if (dup2(null_fd, fd) < 0)
			return -errno;
#endif
	close(null_fd);
	n->page = mmap(NULL, sizeof(*n->page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	if (n->page == MAP_FAILED)
		return -errno;
	/* It ends when the daemon does, after its last work; not when a terminal or a service
	 * manager signals everybody. */
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	return prctl(PR_SET_NAME, "q2q-tun-upnp", 0, 0, 0) < 0 ? -errno : upnp_sandbox_nanny();
}

int main(void)
{
	struct nanny nanny = { .mapped.op = 0 };
	struct sockaddr_storage address;
	socklen_t address_bytes = sizeof(address);

	if (getpeername(UPNP_SOCKET_FD, (struct sockaddr *)&address, &address_bytes) < 0) {
		fprintf(stderr, "This program is started by q2q-tund.\n");
		return EXIT_FAILURE;
	}
	if (prepare(&nanny) < 0)
		return EXIT_FAILURE;
	while (serve(&nanny))
		continue;
	if (nanny.mapped.op)
		(void)hold(&nanny, &nanny.mapped);
	return EXIT_SUCCESS;
}
