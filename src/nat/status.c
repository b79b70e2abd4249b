/* status - what an agent tells people. */
#include "nat/internal.h"

static const char *reason_of(const struct nat_agent *a)
{
	switch (a->phase) {
	case NAT_IDLE:
		return "waiting for the peer's addresses";
	case NAT_GATHERING:
		return "trying again from another port";
	case NAT_SIGNALLED:
		return "waiting for the peer's answer";
	case NAT_CHECKING:
		if (nat_guess_active(a))
			return "guessing ports of a NAT that has another one for each destination";
		return nat_pairs_announced(a) ? "works; better paths are still tried" : "probing";
	case NAT_RESTING:
		return a->fail_reason ? a->fail_reason : "trying again shortly";
	case NAT_CONNECTED:
		return "works";
	default:
		return "?";
	}
}

struct nat_status nat_agent_status(const struct nat_agent *agent)
{
	struct nat_status status = {
		.round = agent->round,
		.started = agent->phase != NAT_IDLE,
		.checking = agent->phase == NAT_CHECKING,
		.connected = nat_pairs_announced(agent),
		.local_mapping = nat_local_mapping(agent),
		.remote_mapping = agent->remote_mapping,
		.local_allocation = nat_local_allocation(agent),
		.guessing = nat_guess_active(agent),
		.n_guessed = agent->n_guessed,
		.guess_reason = agent->guess_reason,
		.n_local = agent->n_local,
		.n_remote = agent->n_remote,
		.n_pairs = agent->n_pairs,
		.n_refused = agent->n_refused,
		.n_bad = agent->n_bad,
		.n_replayed = agent->n_replayed,
		.n_sent = agent->n_sent,
		.n_over_budget = agent->n_over_budget,
		.retry_us = agent->retry_us,
		.reason = reason_of(agent),
	};

	for (size_t i = 0; i < agent->n_pairs; i++)
		status.n_valid += agent->pairs[i]->announced;
	return status;
}

static void fill_info(const struct nat_pair *p, struct nat_pair_info *info)
{
	*info = (struct nat_pair_info){
		.socket = p->socket,
		.remote = p->remote,
		.remote_kind = p->kind,
		.state = p->state,
		.reason = p->reason,
		.priority = p->priority,
		.same_lan = p->same_lan,
		.n_sent = p->n_probes + (p->wants_openers ? p->n_openers : 0),
		.heard = p->heard,
		.rtt_us = p->rtt_us,
	};
}

size_t nat_agent_pairs(const struct nat_agent *agent, struct nat_pair_info *ret_list, size_t max)
{
	bool used[NAT_PAIRS_MAX] = { false };
	size_t n;

	for (n = 0; n < min_size(max, agent->n_pairs); n++) {
		size_t best = NAT_PAIRS_MAX;

		for (size_t i = 0; i < agent->n_pairs; i++)
			if (!used[i] && (best == NAT_PAIRS_MAX ||
					 agent->pairs[i]->priority > agent->pairs[best]->priority))
				best = i;
		used[best] = true;
		fill_info(agent->pairs[best], &ret_list[n]);
	}
	return n;
}

size_t nat_agent_local(const struct nat_agent *agent, struct nat_candidate *ret_list, size_t max)
{
	const size_t n = min_size(max, agent->n_local);

	memcpy(ret_list, agent->local, n * sizeof(ret_list[0]));
	return n;
}

size_t nat_agent_remote(const struct nat_agent *agent, struct nat_candidate *ret_list, size_t max)
{
	const size_t n = min_size(max, agent->n_remote);

	memcpy(ret_list, agent->remote, n * sizeof(ret_list[0]));
	return n;
}
