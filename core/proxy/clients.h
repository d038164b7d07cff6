/* clients: who may ask, from which address, with which key, for what.
 *
 *   head: address (security, server.trusted_proxies) -> key -> r->caller      before the body is read
 *   admit: model and budget                            route: the route
 *
 * Part of a generation, immutable: a rotated key is good, or bad, from the next request on. Keys are kept and looked up as
 * SHA-256; the one found is compared in constant time, so that time tells nothing of a key.
 *
 * A key comes in `Authorization: Bearer`, `x-api-key`, `x-goog-api-key` or, Gemini's way, the query's `key`. More than one must
 * all say the same; what is empty, and another scheme than Bearer, is no key. X-Forwarded-For is believed from server.trusted_proxies only: the client is the right-most address in it that
 * is none of theirs (RFC 7239 5.2 and 8.1 say why not the left-most). Where what stands there is no address, the one to its right is taken.
 */
#ifndef CLAW_PROXY_CLIENTS_H
#define CLAW_PROXY_CLIENTS_H

#include "proxy/req.h"

#define CLAW_CLIENTS_KEY_MAX 4096u /* a longer one is not looked up */

struct claw_clients;

/* Of a configuration, in the arena. *out NULL: it names neither clients, nor addresses, nor proxies; nobody need ask. CLAW_EINVAL
 * with problems: two clients have one key. CLAW_ENOMEM. */
int claw_clients_new(const struct claw_conf *conf, struct claw_arena *a, struct claw_clients **out, struct claw_conf_problems *problems) CLAW_MUSTCHECK;

/* The head is here: r->peer becomes the client's address behind proxies, r->caller is found. CLAW_EIP_DENIED, CLAW_EUNAUTHORIZED. */
int claw_clients_greet(const struct claw_clients *c, struct claw_req *r) CLAW_MUSTCHECK;
/* The model is known: may r->caller use it, and is there money left? CLAW_EMODEL_DENIED, CLAW_EBUDGET (r->error_text is set).
 * Not to be called without r->caller. */
int claw_clients_admit(const struct claw_clients *c, struct claw_req *r) CLAW_MUSTCHECK;
/* The route is known. CLAW_EROUTE_DENIED. Not to be called without r->caller. */
int claw_clients_admit_route(struct claw_req *r) CLAW_MUSTCHECK;
/* May r->caller use this model? Everybody may who is no client. */
bool claw_clients_may_model(const struct claw_req *r, struct claw_str model);
/* The client of that name, NULL: there is none. */
const struct claw_conf_client *claw_clients_named(const struct claw_conf *conf, struct claw_str name);
/* JSON for operators: each client, what it may, what it spent. Never a key. */
int claw_clients_write(const struct claw_conf *conf, struct claw_buf *out) CLAW_MUSTCHECK;

#endif
