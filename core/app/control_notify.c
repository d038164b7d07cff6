/* control, its part that tells the service manager how it goes. */
#include "app/control_part.h"

#include <stdio.h>
#include <stdlib.h>

#define DRAIN_MARGIN_MS 5000u  /* past drain_seconds, for what is cut then and the log */
#define WATCHED_STILL_MS 1000u /* a worker may always stand still for so long, however short the watchdog's time is */

uint64_t claw_control_still_ms(const struct claw_control *c)
{
    uint64_t most = 0;
    for (unsigned i = 0; i < c->workers_n; i++) {
        uint64_t ms = claw_worker_still_ms(c->workers[i]);
        if (ms > most) most = ms;
    }
    return most;
}

void claw_control_tell_ready(struct claw_control *c)
{
    char status[256];
    struct claw_str problem = claw_buf_str(&c->last_error);
    const char *end = problem.len ? memchr(problem.ptr, '\n', problem.len) : NULL;
    if (end) problem.len = (size_t)(end - problem.ptr);
    snprintf(status, sizeof status, "generation %llu serves%s%.*s", (unsigned long long)c->current->id,
             problem.len ? "; a reload was refused: " : "", CLAW_STR_FMT(problem));
    claw_notify_ready(&c->notify, status);
}

void claw_control_tell_stopping(struct claw_control *c)
{
    const struct claw_conf *conf = c->current->conf;
    claw_notify_stopping(&c->notify, conf->server.drain_ms + conf->tracing.flush_ms + DRAIN_MARGIN_MS, "draining");
}

/* Twice in the time it has. A worker that stands still for half of it does not come back by itself: let it be started anew. */
static void on_watchdog(struct claw_timer *t)
{
    struct claw_control *c = t->arg;
    uint64_t half_ms = c->watchdog_us / 2000;
    if (claw_control_still_ms(c) <= (half_ms > WATCHED_STILL_MS ? half_ms : WATCHED_STILL_MS)) claw_notify_alive(&c->notify);
    claw_timer_start(&c->loop, t, half_ms > CLAW_LOOP_TICK_MS ? half_ms - CLAW_LOOP_TICK_MS : 1);
}

void claw_control_tell_started(struct claw_control *c)
{
    if (!claw_notify_on(&c->notify)) return;
    claw_control_tell_ready(c);
    if (c->watchdog_us) on_watchdog(&c->watchdog);
}

void claw_control_open_notify(struct claw_control *c)
{
    const char *at = getenv("NOTIFY_SOCKET");
    int rc = claw_notify_open(&c->notify, at);
    if (rc != 0) fprintf(stderr, "NOTIFY_SOCKET=%s: %s; the service manager is not told\n", at, claw_err_text(rc));
    c->watchdog_us = claw_notify_watchdog_us(getenv("WATCHDOG_USEC"), getenv("WATCHDOG_PID"));
    claw_timer_init(&c->watchdog, on_watchdog, c);
}
