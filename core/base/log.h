/* log: JSON lines (or text), written by one thread, never waited for.
 *
 * Every thread that logs owns a claw_log_local: lines gather there and are handed over when 128 KB
 * are full or claw_log_flush is called (the loop does so 50 ms after the first line). The writer
 * thread puts them to stdout, stderr or a file. The queue between them is bounded (8 MB): past it
 * lines are dropped and counted. Nothing here blocks the caller.
 *
 * Secrets: every string known through claw_log_secret (keys from the configuration, clients' bearer
 * tokens never reach the log at all) is replaced by "***" in every line, whatever it came in with.
 */
#ifndef CLAW_BASE_LOG_H
#define CLAW_BASE_LOG_H

#include "base/buf.h"

#define CLAW_LOG_SECRETS 131072u
#define CLAW_LOG_SECRET_BYTES (32u << 20)

enum claw_log_level { CLAW_LOG_DEBUG, CLAW_LOG_INFO, CLAW_LOG_WARN, CLAW_LOG_ERROR };

struct claw_log_conf {
    enum claw_log_level level; /* lines below it are not written (request lines are info) */
    int to;                    /* 1 stdout, 2 stderr, 0: file `path` */
    const char *path;
    bool text;                 /* logging.format: text; else json */
    const char *decisions;     /* logging.decisions: the file of claw_log_begin_decision's lines; NULL: none */
};

/* Start the writer thread. CLAW_EIO: the file cannot be opened (errno). Once a process. */
int claw_log_open(const struct claw_log_conf *conf) CLAW_MUSTCHECK;
/* Change level, target or format while running. On CLAW_EIO the old target stays. Thread: control. */
int claw_log_set(const struct claw_log_conf *conf) CLAW_MUSTCHECK;
/* SIGUSR1: open the files anew. */
int claw_log_reopen(void);
/* Write what is queued, waiting at most `wait_ms`, stop the thread. */
void claw_log_close(unsigned wait_ms);

/* Never show `secret` (at least 6 bytes; shorter ones are ignored). Copies. CLAW_LOG_SECRETS are kept (one that JSON writes otherwise
 * counts twice), or CLAW_LOG_SECRET_BYTES of them, at some 40 bytes besides each, and beyond them the latest 32; what a line costs does not
 * depend on how many there are, but for those 32. A secret told twice counts once. Thread: control only, before the configuration it belongs to is published. */
void claw_log_secret(struct claw_str secret);
/* A secret that comes and goes (an access token), shown neither while it is lent. The struct is the lender's, zeroed at
 * first; the text must stay until it is returned; returning what is not lent does nothing. Any thread. */
struct claw_log_lent { struct claw_log_lent *prev, *next; struct claw_str secret; };
void claw_log_secret_lend(struct claw_log_lent *l, struct claw_str secret);
void claw_log_secret_return(struct claw_log_lent *l);
/* Replace every known secret in place in `b`'s waiting bytes by "***". For error texts and admin answers. */
void claw_log_redact(struct claw_buf *b);

/* Does a known secret stand in `s`? Any thread. */
bool claw_log_quotes_secret(struct claw_str s);

/* Would a line of this level be written? Cheap (one relaxed load). */
bool claw_log_on(enum claw_log_level level);

/* One event line: {"time":"2026-01-02T03:04:05.678Z","level":"info","msg":"…", fields…}. `fields` is a list of
 * key, value pairs of C strings that ends with NULL; values are JSON strings, or numbers where the key ends in
 * `#` (the # is cut off; the value's text is written as is). A NULL value writes null. */
void claw_log_event(enum claw_log_level level, const char *msg, ...) __attribute__((sentinel));

/* A line built by the caller in the thread's buffer: begin returns the buffer to append the text of one whole
 * line to (with its newline); end redacts and accounts for it. begin gives NULL when the level is off. Between
 * them no other log call of this thread. A line over 64 KB is dropped and counted. */
struct claw_buf *claw_log_begin(enum claw_log_level level);
void claw_log_end(struct claw_buf *b);
/* The same for a line of the decisions' file, whatever the level; NULL when there is none. Such a line is JSON, and dropped
 * past 192 KB. */
struct claw_buf *claw_log_begin_decision(void);
/* Would it be written? Cheap. */
bool claw_log_decisions_on(void);
/* The time now as RFC 3339 with milliseconds, UTC, appended without quotes. Cached per second. */
int claw_log_add_time(struct claw_buf *b) CLAW_MUSTCHECK;

/* Hand this thread's gathered lines to the writer. Safe to call with none. */
void claw_log_flush(void);
/* Bytes gathered by this thread and not yet handed over. */
size_t claw_log_waiting(void);
/* Lines dropped since start, all threads. */
uint64_t claw_log_dropped(void);
/* This thread ends: hand over and free its buffer. */
void claw_log_thread_end(void);

#endif
