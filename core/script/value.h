/* value: how JSON and Lua see each other.
 *
 *   JSON            Lua
 *   null            core.null (a light userdata of address 0, lua-cjson's null)
 *   number          a number; a whole number that a double cannot hold exactly comes out as its digits, a string
 *                   (claw_value_push only: as a table's item it is the nearest double, so that it stays a number)
 *   array, object   a document (document.h), or a table where one is asked for; arrays are marked by their metatable
 *
 * A table becomes an array when it is marked as one or its keys are 1..n, else an object with its keys in order;
 * {} without a mark is an object. A metatable marks by __name = "claw.json.array" or __jsontype = "array".
 */
#ifndef CLAW_SCRIPT_VALUE_H
#define CLAW_SCRIPT_VALUE_H

#include "base/conf.h"
#include "base/json.h"
#include "script/vm.h"

#define CLAW_VALUE_DEPTH 64 /* tables inside each other */

/* Ties the objects that policies hold to their request. They remember its number: when the life has another one, theirs
 * is over, and they say so. A life is as old as its VM, and serves one request after the other. The texts that documents
 * stand on may go earlier: an open stream does not keep its request's body, and an answer's text is the relay's. */
struct claw_life {
    uint64_t serial;             /* of the request; 0: of none */
    const struct claw_buf *body; /* the request's */
    unsigned answer;             /* counts answers, and their ends; 0 is none */
};

/* A place in a JSON document, as a userdata. */
struct claw_document {
    const struct claw_life *life;
    uint64_t serial;  /* of its request */
    const char *base; /* of the body it stands on; NULL: it stands on answer number `answer` */
    unsigned answer;
    struct claw_json_doc *doc;
    struct claw_json_node *node;
    bool readonly;
    uint64_t magic;   /* set by claw_document_push: tells it from other userdata, cheaper than its metatable */
};
#define CLAW_DOCUMENT_MAGIC 0x636c61772e646f63u

extern const char claw_document_type[]; /* the metatable's name in the registry */
/* NULL: not a document. */
struct claw_document *claw_document_test(lua_State *L, int idx);
/* The document, which must be one of a living request; raises else. */
struct claw_document *claw_document_check(lua_State *L, int idx);

/* All of these may raise. */

/* A scalar as a Lua value, an array or object as a table. */
void claw_value_push(lua_State *L, struct claw_json_value v);
void claw_value_push_table(lua_State *L, struct claw_json_value v);
/* The value's JSON text, appended to `out`, which must outlive an error. Documents inside are written as they are
 * now. `depth` is how many tables may be inside each other. */
void claw_value_write(lua_State *L, int idx, struct claw_buf *out, unsigned depth);
/* Arrays made by C carry the mark that lua/claw's json module gives; called once it is loaded. */
void claw_value_set_mark(lua_State *L);
/* Push the metatable that marks arrays. */
void claw_value_push_mark(lua_State *L);

/* Push what is at a dotted path such as messages[-1].content or messages[*].content (0-based, negative from the end):
 * an array of the scalars there, or nil. An array of content parts gives its texts, other arrays and objects nothing.
 * `top` lists the root's members. */
void claw_value_push_path(lua_State *L, const struct claw_json_top *top, struct claw_str path);
/* Does one of the texts there mention one of `words`, which are in lower case, whatever its own case (ASCII)? Nothing of it becomes a
 * Lua value: texts may be as large as a body. CLAW_EREQ_MEM: one could not be decoded. */
int claw_value_mentions(const struct claw_json_top *top, struct claw_str path, const struct claw_str *words, unsigned n, bool *mentioned) CLAW_MUSTCHECK;

/* One step of a path: a key, an index, or every element. False at the end; CLAW_EINVAL in *err for no path. */
struct claw_value_step {
    enum { CLAW_PATH_KEY, CLAW_PATH_INDEX, CLAW_PATH_EVERY } kind;
    struct claw_str key;
    long index;
};
bool claw_value_next_step(struct claw_str *path, struct claw_value_step *step, bool *bad);

/* A part of openclaw.yaml as Lua has it: maps and lists are tables, null and NULL are nil, secrets "***". */
void claw_value_push_conf(lua_State *L, const struct claw_conf_node *n);

#endif
