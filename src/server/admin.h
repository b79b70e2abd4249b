/*
 * admin - the local socket of a running server, DIR/admin.sock: JSON lines as
 * on the control socket of q2q-tund. Who may open it is what the permissions
 * of the directory say: the server's user and root.
 *
 *     {"v":1,"id":N,"cmd":"status"}
 *     {"v":1,"id":N,"cmd":"disconnect","args":{"name":"bob","why":"..."}}
 *  -> {"v":1,"id":N,"ok":true,"result":{...}}
 *     {"v":1,"id":N,"ok":false,"code":1,"error":"..."}
 */
#ifndef SERVER_ADMIN_H
#define SERVER_ADMIN_H

#include "base/base.h"

#include <jansson.h>

#define ADMIN_SOCKET_NAME "admin.sock"
#define ADMIN_TIMEOUT_MS  5000
#define ADMIN_LINE_MAX    (1024 * 1024)
#define ADMIN_ONLINE_MAX  1000 /* addresses that status lists */

/*
 * The client's side, blocking. Takes over `args` (may be NULL). 0 with the result, which the
 * caller decrefs; -ENOENT: no server is running on that directory; -EACCES; -ETIMEDOUT; -EPROTO;
 * -EREMOTEIO: it answered with an error, and `why` says which.
 */
int admin_request(const char *dir, const char *command, json_t *args, json_t **ret_result,
		  char *why, size_t why_bytes);

#endif
