/*
 * conn_api - the calls of conn.h: covers for the owner of an association.
 */
#include "ptcp/conn_glue.h"

int64_t ptcp_connect(struct ptcp_assoc *a, uint16_t local_port, uint16_t port, const char *service,
		     uint64_t now_us)
{
	return ptcp_conns_connect(ptcp_assoc_conns(a), local_port, port, service, now_us);
}

int64_t ptcp_listen(struct ptcp_assoc *a, uint16_t port, const char *service, uint32_t n_backlog,
		    uint64_t now_us)
{
	return ptcp_conns_listen(ptcp_assoc_conns(a), port, service, n_backlog, now_us);
}

int ptcp_conn_accept(struct ptcp_assoc *a, uint32_t id, uint64_t now_us)
{
	return ptcp_conns_accept(ptcp_assoc_conns(a), id, now_us);
}

int ptcp_conn_write(struct ptcp_assoc *a, uint32_t id, const void *data, size_t n_bytes,
		    size_t *ret_bytes, uint64_t now_us)
{
	return ptcp_conns_send(ptcp_assoc_conns(a), id, data, n_bytes, ret_bytes, now_us);
}

int ptcp_conn_read(struct ptcp_assoc *a, uint32_t id, void *out, size_t out_bytes,
		   size_t *ret_bytes, uint64_t now_us)
{
	return ptcp_conns_read(ptcp_assoc_conns(a), id, out, out_bytes, ret_bytes, now_us);
}

int ptcp_conn_peek(struct ptcp_assoc *a, uint32_t id, const uint8_t **ret_data, size_t *ret_bytes)
{
	return ptcp_conns_peek(ptcp_assoc_conns(a), id, ret_data, ret_bytes);
}

int ptcp_conn_consume(struct ptcp_assoc *a, uint32_t id, size_t n_bytes, uint64_t now_us)
{
	return ptcp_conns_consume(ptcp_assoc_conns(a), id, n_bytes, now_us);
}

int ptcp_conn_shutdown(struct ptcp_assoc *a, uint32_t id, uint64_t now_us)
{
	return ptcp_conns_shutdown(ptcp_assoc_conns(a), id, now_us);
}

int ptcp_conn_close(struct ptcp_assoc *a, uint32_t id, uint64_t now_us)
{
	return ptcp_conns_close(ptcp_assoc_conns(a), id, now_us);
}

int ptcp_conn_abort(struct ptcp_assoc *a, uint32_t id, uint64_t now_us)
{
	return ptcp_conns_abort(ptcp_assoc_conns(a), id, now_us);
}

int ptcp_conn_info(const struct ptcp_assoc *a, uint32_t id, struct ptcp_conn_info *ret_info)
{
	return ptcp_conns_info(ptcp_assoc_conns(a), id, ret_info);
}
