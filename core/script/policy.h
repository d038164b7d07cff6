/* policy: the policies of a generation, from files to decisions.
 *
 *   read     every NAME.lua of the configured folder, and the shipped ones, once into memory, with a hash
 *   prove    in a scratch VM: compile, check hook names and verdict kinds, run init and selftest; what the provider
 *            tables say goes into the generation's upstream heads
 *   vm       one lua_State a worker, made on the control thread so that no loop stalls, owned by one thread at a time
 *   decide   struct claw_policy_ops over such a VM
 */
#ifndef CLAW_SCRIPT_POLICY_H
#define CLAW_SCRIPT_POLICY_H

#include "proxy/pipeline.h"

struct claw_policies; /* sources, immutable, owned by a generation */
struct claw_policy_vm;

/* Read the sources conf->policies.dir names (a missing folder is an empty one). CLAW_EINVAL with problems: a file that
 * cannot be read, is over 1 MB, is bytecode, or has a name that is none. */
int claw_policies_read(const struct claw_conf *conf, struct claw_policies **out, struct claw_conf_problems *problems) CLAW_MUSTCHECK;
/* Of all names and texts. */
uint64_t claw_policies_hash(const struct claw_policies *p);
void claw_policies_free(struct claw_policies *p);

/* A policy's text: "x", "policies/x.lua". Slices live as long as `p`. */
struct claw_policy_text { struct claw_str name, file, text; bool builtin; };
/* Each of them, by name; the folder's lib behind them, with names like "lib.x". NULL has none. */
void claw_policies_each(const struct claw_policies *p, void (*fn)(void *arg, const struct claw_policy_text *t), void *arg);
/* Another text for the policy of that name, or one more policy. Copies. Before the first VM. CLAW_EINVAL: no name, or bytecode;
 * CLAW_ENOMEM. */
int claw_policies_set(struct claw_policies *p, struct claw_str name, struct claw_str text) CLAW_MUSTCHECK;

/* Prove gen->conf together with gen->policies (struct claw_policies) and fill in the upstreams' heads. CLAW_EINVAL with
 * problems, each with its place in openclaw.yaml or as `policies/x.lua:3: …`. Thread: control. */
int claw_policy_prove(struct claw_generation *gen, struct claw_conf_problems *problems) CLAW_MUSTCHECK;

/* A VM for one worker. CLAW_EINVAL and *why (malloc'ed, may be NULL) on failure. */
int claw_policy_vm_new(struct claw_generation *gen, struct claw_policy_vm **out, char **why) CLAW_MUSTCHECK;
void claw_policy_vm_free(struct claw_policy_vm *vm);
/* The thread that uses the VM from here on, and what policies log, count and wait with; `local` is whose VM it is (NULL:
 * no background tasks, no fetches). */
void claw_policy_vm_attach(struct claw_policy_vm *vm, struct claw_worker_ctx *ctx, struct claw_generation_local *local);
/* Bytes the VM holds now. */
size_t claw_policy_vm_bytes(const struct claw_policy_vm *vm);

/* The decisions; their `vm` is a struct claw_policy_vm. */
extern const struct claw_policy_ops claw_policy_ops_lua;

/* -explain: in a VM that serves nobody (what policies store and count stays in it). `request` is JSON: {"method","path","headers":{…},"body":{…}} or just a body (then POST
 * /v1/chat/completions). Prints the decision to `out`. CLAW_EBAD_JSON, CLAW_EPOLICY with a text in out. */
int claw_policy_explain(struct claw_policy_vm *vm, struct claw_str request, struct claw_buf *out) CLAW_MUSTCHECK;

/* -replay: each line of `log` (logging.decisions) is decided anew, without any network, and what differs is printed to `out`,
 * with a summary. *changed: something did. Chance is fixed: the same log gives the same answers. CLAW_EBAD_JSON (the line is
 * named in out), CLAW_ENOMEM. */
int claw_policy_replay(struct claw_policy_vm *vm, struct claw_str log, struct claw_buf *out, bool *changed) CLAW_MUSTCHECK;

#endif
