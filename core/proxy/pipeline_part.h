/* pipeline_part: what pipeline.c, pipeline_try.c (an attempt at an upstream) and pipeline_conn.c (the client's connection) know
 * of each other. A step returns the next one or CLAW_PIPELINE_WAIT. */
#ifndef CLAW_PROXY_PIPELINE_PART_H
#define CLAW_PROXY_PIPELINE_PART_H

#include "proxy/pipeline.h"

#define CLAW_PIPELINE_WAIT (-1)

/* pipeline_try.c */
int claw_pipeline_step_transform(struct claw_req *r);
int claw_pipeline_step_upstream(struct claw_req *r);
int claw_pipeline_step_retry(struct claw_req *r);

/* pipeline.c: `s` is the step now; it must be a legal one. */
void claw_pipeline_enter(struct claw_req *r, enum claw_step s);
/* Run steps until one waits. Called again from within a step it only notes that there is more to do. */
void claw_pipeline_walk(struct claw_req *r);
/* Both. */
void claw_pipeline_go(struct claw_req *r, enum claw_step s);
/* What an op returned: does it wait? If not, nothing it waited on is left. */
bool claw_pipeline_waits(struct claw_req *r, int rc);
/* A copy in the request's arena, cut at 512 bytes. */
struct claw_str claw_pipeline_keep(struct claw_req *r, struct claw_str s);
/* Within a step: answer with the error, or cut what is under way; the next step. */
int claw_pipeline_fail_step(struct claw_req *r, int code, struct claw_str text);
/* The same when an op failed (rc), or set r->error by its own decision (0). err: of CLAW_EPOLICY. */
int claw_pipeline_refuse(struct claw_req *r, int rc, const struct claw_policy_error *err);
/* Give up whatever is under way. */
void claw_pipeline_stop(struct claw_req *r);
/* The client's time is not the upstream's: it begins when all of the body is here. */
void claw_pipeline_start_deadline(struct claw_req *r);
/* May there be a body? Must it be a JSON object? */
bool claw_pipeline_takes_body(const struct claw_req *r);
bool claw_pipeline_takes_object(const struct claw_req *r);
/* The head is here: CLAW_ECODING when a body follows that is to be read and cannot. */
int claw_pipeline_check_coding(struct claw_req *r) CLAW_MUSTCHECK;

static inline void claw_pipeline_forget_error(struct claw_req *r)
{
    r->error = 0;
    r->error_text = r->error_param = CLAW_STR("");
}

static inline enum claw_step claw_pipeline_past_limits(const struct claw_req *r) { return r->gen->gen->recalls ? CLAW_STEP_CACHE : CLAW_STEP_TRANSFORM; }

#endif
